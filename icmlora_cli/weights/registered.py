"""The weights of adapters in the registry."""

from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.weights.adapter import Adapter, read_adapter


def read_last(store: AdapterStore, record: AdapterRecord) -> Adapter:
    """Read the last checkpoint of a harvested adapter.

    Raises:
        CorruptFileError: if it is not what its manifest says.
    """
    return read_adapter(store.checked(record, record.checkpoints[-1]))
