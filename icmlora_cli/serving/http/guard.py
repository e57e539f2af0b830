"""Refuses requests without an API key or a page's token, and requests to a host name that is not this server's."""

import hmac
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from icmlora_cli.serving.http.reply import error_body

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
PLAY = "/play/"  # what the paths of the playground begin with; its token follows


class RequireKey:
    """ASGI middleware that refuses requests without an API key.

    ``/health`` is open to all, and the playground has a token of its own, which ``RequireToken`` asks for.

    Args:
        app: The application behind it.
        keys: The API keys, one of which has to be sent as ``Authorization: Bearer KEY``.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        """Keep the application and the keys."""
        self._app, self._expected = app, [f"Bearer {key}".encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request with a key on to the application, and refuse any other."""
        sent = dict(scope.get("headers", ())).get(b"authorization", b"")
        known = [hmac.compare_digest(sent, expected) for expected in self._expected]
        is_open = scope["type"] != "http" or scope["path"] == "/health" or scope["path"].startswith(PLAY)
        if not is_open and not any(known):
            body = error_body("there is no such API key", "invalid_request_error", code="invalid_api_key")
            await JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class RequireHost:
    """ASGI middleware that refuses requests whose ``Host`` or ``Origin`` is not a known host name.

    Otherwise a web page whose host name its owner lets point to this machine (DNS rebinding) could use the server from
    a browser here. Such a page can change neither the ``Host`` nor the ``Origin`` that the browser sends.

    Args:
        app: The application behind it.
        hosts: The known host names and addresses, without ports.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        """Keep the application and the keys."""
        self._app, self._hosts = app, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to a known host on to the application, and refuse any other."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._knows(f"//{host}") and (origin is None or self._knows(origin)):
            await self._app(scope, receive, send)
            return
        name = host[:120] if not self._knows(f"//{host}") else str(origin)[:120]
        message = f"{name!r} is not a name of this server; --allow-host makes it one"
        await JSONResponse(error_body(message, "invalid_request_error", code="unknown_host"), 403)(scope, receive, send)

    def _knows(self, url: str) -> bool:
        return _host_name(url) in self._hosts


class RequireToken:
    """ASGI middleware that lets only the playground's own page, and whoever has its address, use the playground.

    The address has a token, which no other page knows; a request of the page has the page's own ``Origin`` or none, and
    is sent to this machine by one of its own names, whatever else the server is called. All other paths pass.

    Args:
        app: The application behind it.
        token: The token, which follows ``/play/`` in all paths of the playground.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Keep the application and the token."""
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request with the token, of the page itself, on to the application, and refuse any other."""
        if scope["type"] != "http" or not scope["path"].startswith(PLAY):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        sent = scope["path"].removeprefix(PLAY).partition("/")[0].encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(sent, self._token):
            code, message = (
                "unknown_token",
                "open the address that icmlora printed: it ends in a token that is not here",
            )
        elif _host_name(f"//{host}") not in LOCAL_HOSTS:
            code, message = "unknown_host", f"{host[:120]!r} is not a name of this machine"
        elif origin is not None and origin.lower() != f"http://{host}".lower():
            code, message = "unknown_origin", f"{origin[:120]!r} is not the page of this server"
        else:
            await self._app(scope, receive, send)
            return
        await JSONResponse(error_body(message, "invalid_request_error", code=code), 403)(scope, receive, send)


def _host_name(url: str) -> str | None:
    """Return the host name of an address, in lower case; None if there is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
