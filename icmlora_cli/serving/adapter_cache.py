"""The adapters that a server used last, in memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from icmlora_cli.serving.sources import AdapterSource
from icmlora_cli.weights.adapter import Adapter


class AdapterCache:
    """The adapters used last.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        """Start with no adapter."""
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[AdapterSource, Adapter]] = OrderedDict()

    def get(self, source: AdapterSource, make: Callable[[], Adapter]) -> Adapter:
        """Return the adapter of a source, made where it is not kept; called by one thread only."""
        with self._lock:
            if source.key in self._kept:
                self._kept.move_to_end(source.key)
                return self._kept[source.key][1]
        adapter = make()
        with self._lock:
            self._kept[source.key] = (source, adapter)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return adapter

    def sources(self) -> tuple[AdapterSource, ...]:
        """Return what is kept, the one used last at the end."""
        with self._lock:
            return tuple(source for source, _ in self._kept.values())
