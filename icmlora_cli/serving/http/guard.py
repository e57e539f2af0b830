"""Who may ask: those with a key; on this machine and without keys, those who call the server by its own names."""

import hmac
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from icmlora_cli.serving.http.reply import error_body

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class RequireKey:
    """Lets nobody in without a key, but for ``/health``.

    Args:
        app: What is guarded.
        keys: One of them has to be sent as ``Authorization: Bearer KEY``.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        """Stand before an application."""
        self._app, self._expected = app, [f"Bearer {key}".encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request with a key, or refuse it."""
        sent = dict(scope.get("headers", ())).get(b"authorization", b"")
        known = [hmac.compare_digest(sent, expected) for expected in self._expected]
        if scope["type"] == "http" and scope["path"] != "/health" and not any(known):
            body = error_body("there is no such API key", "invalid_request_error", code="invalid_api_key")
            await JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class RequireHost:
    """Answers only requests to known host names, and of pages from them.

    A page whose name its owner lets point to this machine (DNS rebinding) could otherwise use the server from a browser
    here; it can set neither the ``Host`` nor the ``Origin`` that the browser sends.

    Args:
        app: What is guarded.
        hosts: Names and addresses without ports.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        """Stand before an application."""
        self._app, self._hosts = app, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request that names this machine, or refuse it."""
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
