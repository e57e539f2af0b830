"""uvicorn as a command runs it: Ctrl-C and SIGTERM are its good end."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not always there to be read
    """A server that ends on a signal and then returns.

    What is under way then may be finished within the grace, and is given up after it; a second Ctrl-C ends it at once.

    Args:
        config: uvicorn's.
        on_started: called once requests are taken.
        give_up: called when the grace is over; it must not block.
        grace: seconds.
    """

    def __init__(
        self, config: uvicorn.Config, on_started: Callable[[], None], give_up: Callable[[], None], grace: float
    ) -> None:
        """Keep what is to be called at the start and at the end."""
        super().__init__(config)
        self._on_started, self._give_up, self._grace = on_started, give_up, grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then say so."""
        await super().startup(sockets=sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is under way within the grace."""
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
