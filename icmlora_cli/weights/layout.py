"""Which modules an adapter covers, and their shapes: what codec, generator and language model agree on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.weights.adapter import Adapter

LAYER = re.compile(r"\.(\d+)\.")


def layer_of(module: str) -> int | None:
    """Return the index of a module's block in the base's stack, or None where its name has none."""
    found = LAYER.search(module)
    return int(found.group(1)) if found else None


@dataclass(frozen=True)
class ModuleShape:
    """One module that carries a LoRA.

    Args:
        name: full module name in the base model.
        out_features: rows of delta-W.
        in_features: columns of delta-W.
    """

    name: str
    out_features: int
    in_features: int

    @property
    def layer(self) -> int:
        """The index of its block (0 where the name has none)."""
        return layer_of(self.name) or 0

    @property
    def kind(self) -> str:
        """The last part of its name, such as ``q_proj``."""
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Layout:
    """The modules of a family of adapters, in one fixed order.

    Args:
        modules: ordered by layer, then kind, then name.
        fan_in_fan_out: the base keeps these weights as [in, out].
    """

    modules: tuple[ModuleShape, ...]
    fan_in_fan_out: bool = False

    def places(self) -> tuple[tuple[int, int], ...]:
        """Return of each module the indices of its layer and of its kind, which tell it from all others.

        Where a layer has two modules whose names end alike, as GPT-2's ``attn.c_proj`` and ``mlp.c_proj``, or experts,
        a kind is the whole name but for the layer's index.
        """
        places = [(item.layer, item.kind) for item in self.modules]
        if len(set(places)) < len(places):
            places = [(item.layer, LAYER.sub(".", item.name, count=1)) for item in self.modules]
        kinds = sorted({kind for _, kind in places})
        return tuple((layer, kinds.index(kind)) for layer, kind in places)


def layout_of(adapters: Sequence[Adapter]) -> Layout:
    """Return the layout that covers the modules of all adapters.

    Raises:
        CorruptFileError: if two adapters disagree on a module's shape or orientation.
    """
    shapes: dict[str, ModuleShape] = {}
    for adapter in adapters:
        if adapter.fan_in_fan_out != adapters[0].fan_in_fan_out:
            raise CorruptFileError("the adapters are of base models with different weight orientation")
        for name, item in adapter.factors.items():
            shape = ModuleShape(name, int(item.lora_b.shape[0]), int(item.lora_a.shape[1]))
            if shapes.setdefault(name, shape) != shape:
                raise CorruptFileError(f"{name} has two shapes among the adapters: they are of different base models")
    ordered = sorted(shapes.values(), key=lambda item: (item.layer, item.kind, item.name))
    return Layout(tuple(ordered), adapters[0].fan_in_fan_out)
