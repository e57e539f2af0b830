"""The adapters that a server used last, in memory."""

import threading
from collections.abc import Callable

from cachetools import LRUCache

from icmlora_cli.serving.sources import AdapterSource
from icmlora_cli.weights.adapter import Adapter


class AdapterCache:
    """The adapters used last, by the keys of their sources.

    Args:
        max_adapters: How many are kept.
    """

    def __init__(self, max_adapters: int) -> None:
        """Start with no adapter."""
        self._lock = threading.Lock()  # the worker writes, and requests for the list of models read
        self._cache: LRUCache[str, tuple[AdapterSource, Adapter]] = LRUCache(max_adapters)

    def get(self, source: AdapterSource, load: Callable[[], Adapter]) -> Adapter:
        """Return the adapter of a source, loaded where it is not kept. Only one thread may call this."""
        with self._lock:
            kept = self._cache.get(source.key)
        if kept is not None:
            return kept[1]
        adapter = load()
        with self._lock:
            self._cache[source.key] = (source, adapter)
        return adapter

    def sources(self) -> tuple[AdapterSource, ...]:
        """Return the sources of the adapters that are kept."""
        with self._lock:
            return tuple(source for source, _ in self._cache.values())
