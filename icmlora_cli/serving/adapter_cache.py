"""Keeps the adapters that a server used last in memory."""

import threading
from collections.abc import Callable

from cachetools import LRUCache

from icmlora_cli.serving.sources import AdapterSource
from icmlora_cli.weights.adapter import Adapter


class AdapterCache:
    """The adapters that an engine used last, by the keys of their sources.

    Args:
        max_adapters: How many adapters are kept at most.
    """

    def __init__(self, max_adapters: int) -> None:
        """Start with an empty cache."""
        self._lock = threading.Lock()  # the worker writes, and requests for the list of models read
        self._cache: LRUCache[str, tuple[AdapterSource, Adapter]] = LRUCache(max_adapters)

    def get(self, source: AdapterSource, load: Callable[[], Adapter]) -> Adapter:
        """Return the adapter of a source, and load it if it is not in the cache. Only one thread may call this.

        Args:
            source: Where the adapter comes from.
            load: Returns that adapter, with its tensors where the base's are.
        """
        with self._lock:
            entry = self._cache.get(source.key)
        if entry is not None:
            return entry[1]
        adapter = load()
        with self._lock:
            self._cache[source.key] = (source, adapter)
        return adapter

    def sources(self) -> tuple[AdapterSource, ...]:
        """Return the sources of the adapters that are in the cache."""
        with self._lock:
            return tuple(source for source, _ in self._cache.values())
