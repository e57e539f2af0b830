"""Refuses requests without an API key, and requests to a host name that is not this server's."""

import hmac
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from icmlora_cli.serving.http.reply import error_body

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class RequireKey:
    """ASGI middleware that refuses requests without an API key; only ``/health`` is open to all.

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
        if scope["type"] == "http" and scope["path"] != "/health" and not any(known):
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
        try:
            return urlsplit(url).hostname in self._hosts
        except ValueError:
            return False
