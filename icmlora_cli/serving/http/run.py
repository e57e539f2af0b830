"""uvicorn as a command runs it: Ctrl-C and SIGTERM are its good end, and no client can hold it up or use it up."""

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
HEADER_SECONDS = 20  # within which a request's headers have to arrive, from the opening of its connection on
BACKLOG = 64  # connections that wait to be accepted; asyncio also tries that often at once when files run out
SPARE_CONNECTIONS = 128  # beside those of the queue: of clients that keep theirs open, and that are told to come again
SPARE_FILES = 64  # beside connections: of the base, the registry and Python itself
LAST_SECONDS = 10  # after the grace, when connections are cut: of clients that do not read what they are sent
QUIET_SECONDS = 10.0  # between two lines in the log about files that have run out
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
log = logging.getLogger("uvicorn.error")


class TimedProtocol(H11Protocol):  # type: ignore[misc]  # uvicorn is not always there to be read
    """HTTP/1.1 on one connection, which is closed if a request's headers do not arrive in time."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the first request; a connection that is one too many is cut at once."""
        super().connection_made(transport)
        if len(self.connections) > self.limit_concurrency + BACKLOG:
            transport.abort()
        else:
            self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Wait no longer once the headers of a request are there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._header_timer is None and not self.transport.is_closing():
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def make_config(app: FastAPI, queue: int, grace: float) -> uvicorn.Config:
    """Return how uvicorn serves an application.

    Args:
        app: The application.
        queue: How many of its requests may wait.
        grace: How many seconds answers under way have once the server is to stop.
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
    """Return how many connections are answered: what the queue and its clients need, as far as files allow."""
    wanted = queue + SPARE_CONNECTIONS
    with suppress(ImportError):  # Windows has no such limit
        import resource

        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            wanted = min(wanted, files - SPARE_FILES - BACKLOG)
    return max(wanted, 8)


class Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not always there to be read
    """A server that ends on a signal and then returns.

    What is under way then may be finished within the grace, and is given up after it; a second Ctrl-C ends it at once.

    Args:
        config: Of uvicorn.
        on_started: Called once requests are taken.
        give_up: Called when the grace is over; it must not block.
        grace: How many seconds that is.
    """

    def __init__(
        self, config: uvicorn.Config, on_started: Callable[[], None], give_up: Callable[[], None], grace: float
    ) -> None:
        """Keep what is to be called at the start and at the end."""
        super().__init__(config)
        self._on_started, self._give_up, self._grace = on_started, give_up, grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say that requests are taken."""
        asyncio.get_running_loop().set_exception_handler(LoopErrors())
        await super().startup(sockets=sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, and give up what is under way once the grace is over."""
        asyncio.get_running_loop().call_later(self._grace, self._give_up)
        await super().shutdown(sockets=sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take over the signals, and do not raise them again at the end, as uvicorn does."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class LoopErrors:
    """Logs what fails in the event loop; that files have run out takes one line now and then, and no traceback."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
        """Log what went wrong."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in OUT_OF_RESOURCES:
            loop.default_exception_handler(dict(context))
        elif time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + QUIET_SECONDS
            log.error("no connection can be taken now: %s (ulimit -n)", error.strerror)
