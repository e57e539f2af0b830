"""Runs uvicorn for a command: Ctrl-C and SIGTERM end it in good order, and no client can block or exhaust it."""

import asyncio
import errno
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM)
HEADER_SECONDS = 20  # the time, from the opening of a connection on, within which a request's headers have to arrive
BACKLOG = 64  # connections that may wait to be accepted; asyncio also accepts so many at a time
SPARE_CONNECTIONS = 128  # connections besides the queue's: those that clients keep open, and those that are refused
SPARE_FILES = 64  # open files that the base, the registry and Python itself need besides the connections
LAST_SECONDS = 10  # the time after the grace when connections are cut whose clients do not read their answers
QUIET_SECONDS = 10.0  # the least time between two lines in the log that say that files have run out
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
log = logging.getLogger("uvicorn.error")


class TimedProtocol(H11Protocol):  # type: ignore[misc]  # where uvicorn is not installed, mypy takes its classes for Any
    """uvicorn's HTTP/1.1 on one connection, which is closed if a request's headers do not arrive in time."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Start the timer for the first request; if there are too many connections, close this one at once."""
        super().connection_made(transport)
        if len(self.connections) > self.limit_concurrency + BACKLOG:
            transport.abort()
        else:
            self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Stop the timer once the headers of a request are there, and start it for the next request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._header_timer is None and not self.transport.is_closing():
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def make_config(app: FastAPI, queue: int, grace: float) -> uvicorn.Config:
    """Return the configuration with which uvicorn serves an application.

    Args:
        app: The application.
        queue: The number of requests that may wait.
        grace: The seconds that answers under way have to be finished once the server is asked to stop.
    """
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        backlog=BACKLOG,
        limit_concurrency=max_connections(queue),
        timeout_graceful_shutdown=round(grace) + LAST_SECONDS,
    )


def max_connections(queue: int) -> int:
    """Return how many connections may be open: those of the queue and some more, as far as the file limit allows."""
    connections = queue + SPARE_CONNECTIONS
    with suppress(ImportError):  # Windows has no such limit and no such module
        import resource

        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            connections = min(connections, files - SPARE_FILES - BACKLOG)
    return max(connections, 8)


class Server(uvicorn.Server):  # type: ignore[misc]  # where uvicorn is not installed, mypy takes its classes for Any
    """A uvicorn server whose ``run`` returns after SIGINT or SIGTERM.

    Answers that are under way then have the grace to be finished, and are given up after it; a second Ctrl-C ends them
    at once.

    Args:
        config: The configuration from ``make_config``.
        on_started: Called once the server takes requests.
        give_up: Called when the grace is over, to end the answers that are not finished; it must not block.
        grace: The seconds that answers under way have to be finished.
    """

    def __init__(
        self, config: uvicorn.Config, on_started: Callable[[], None], give_up: Callable[[], None], grace: float
    ) -> None:
        """Keep what is to be called at the start and at the end."""
        super().__init__(config)
        self._on_started, self._give_up, self._grace = on_started, give_up, grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``on_started``."""
        asyncio.get_running_loop().set_exception_handler(LoopErrors())
        await super().startup(sockets=sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, and call ``give_up`` once the grace is over."""
        asyncio.get_running_loop().call_later(self._grace, self._give_up)
        await super().shutdown(sockets=sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs; unlike uvicorn, do not raise them again at the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class LoopErrors:
    """Logs errors of the event loop; when files have run out, it logs a line now and then, and no traceback."""

    def __init__(self) -> None:
        """Let the first error be logged."""
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
        """Log an error that asyncio reports."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in OUT_OF_RESOURCES:
            loop.default_exception_handler(dict(context))
        elif time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + QUIET_SECONDS
            log.error("no connection can be taken now: %s (ulimit -n)", error.strerror)
