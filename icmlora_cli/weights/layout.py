"""Which modules an adapter covers, and their shapes: what codec, generator and language model agree on."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.weights.adapter import Adapter

LAYER = re.compile(r"\.(\d+)\.")
NESTED = re.compile(r"\.(\d+(?:\.\d+)*)\.")  # what reads images can have blocks within stages
STACKS = ("encoder", "decoder", "vision")


def stack_of(module: str) -> str:
    """Return which stack of its base a module is in: one of ``STACKS``, or the empty text where there is only one."""
    parts = module.split(".")
    if any(part.startswith(("vision", "visual")) for part in parts):
        return "vision"
    return next((part for part in parts if part in STACKS), "")


def layers_of(modules: Iterable[str]) -> dict[str, int | None]:
    """Return the layer of each module: the index of its block in the base's stack, None where its name has none.

    Where a base has several stacks, the layers of its encoder come first, then those of its decoder, then those that
    read images; they are counted over the blocks that the modules are in.

    Args:
        modules: full names of modules.
    """
    blocks = {name: (LAYER if stack_of(name) != "vision" else NESTED).search(name) for name in modules}
    places = {
        name: (STACKS.index(stack) if (stack := stack_of(name)) else -1, *map(int, found[1].split(".")))
        for name, found in blocks.items()
        if found
    }
    if len({place[0] for place in places.values()}) < 2 and all(len(place) == 2 for place in places.values()):
        return {name: places[name][1] if name in places else None for name in blocks}
    order = {place: index for index, place in enumerate(sorted(set(places.values())))}
    return {name: order[places[name]] if name in places else None for name in blocks}


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
    def kind(self) -> str:
        """The last part of its name, such as ``q_proj``."""
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Layout:
    """The modules of a family of adapters, in one fixed order.

    Args:
        modules: as ``ordered`` has them.
        fan_in_fan_out: the base keeps these weights as [in, out].
    """

    modules: tuple[ModuleShape, ...]
    fan_in_fan_out: bool = False

    def places(self) -> tuple[tuple[int, int], ...]:
        """Return of each module the indices of its layer and of its kind, which tell it from all others.

        Where a layer has two modules whose names end alike, as GPT-2's ``attn.c_proj`` and ``mlp.c_proj``, or experts,
        a kind is the whole name but for the layer's index.
        """
        layers = layers_of(item.name for item in self.modules)
        places = [(layers[item.name] or 0, item.kind) for item in self.modules]
        if len(set(places)) < len(places):
            places = [(layers[item.name] or 0, _without_block(item.name)) for item in self.modules]
        kinds = sorted({kind for _, kind in places})
        return tuple((layer, kinds.index(kind)) for layer, kind in places)


def _without_block(module: str) -> str:
    return (NESTED if stack_of(module) == "vision" else LAYER).sub(".", module, count=1)


def ordered(modules: Iterable[ModuleShape]) -> tuple[ModuleShape, ...]:
    """Return modules by layer (see ``layers_of``), then kind, then name."""
    found = list(modules)
    layers = layers_of(item.name for item in found)
    return tuple(sorted(found, key=lambda item: (layers[item.name] or 0, item.kind, item.name)))


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
    return Layout(ordered(shapes.values()), adapters[0].fan_in_fan_out)
