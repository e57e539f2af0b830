"""The codec: adapters as token tensors in a basis that all adapters share.

For each module m the codec holds U_m [out, R] and V_m [R, in] with orthonormal columns and rows. An adapter's
delta-W is written as U_m C V_m, and only the core C [R, R] belongs to the task. Since U and V are orthonormal, the
squared error of the cores is the squared error of delta-W. A decoded adapter is an ordinary LoRA.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.compare import norm
from icmlora_cli.weights.layout import Layout, layout_of


@dataclass(frozen=True)
class Codec:
    """A shared basis per module.

    Args:
        layout: the modules, in the order of the token tensor's first axis.
        left: per module, U_m [out, w], w <= width.
        right: per module, V_m [w', in], w' <= width.
        width: R, the size of the padded cores.
        base_model: written into decoded adapters.
    """

    layout: Layout
    left: tuple[torch.Tensor, ...]
    right: tuple[torch.Tensor, ...]
    width: int
    base_model: str

    def mask(self) -> torch.Tensor:
        """Return which numbers of the padded tokens carry weights, bool [modules, R, R]."""
        mask = torch.zeros(len(self.left), self.width, self.width, dtype=torch.bool)
        for index, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            mask[index, : left.shape[1], : right.shape[0]] = True
        return mask

    def encode(self, adapter: Adapter) -> torch.Tensor:
        """Return an adapter's cores, fp32 [modules, R, R]; modules that it lacks are zero.

        Raises:
            CorruptFileError: if the adapter has a module or shape that the codec does not know.
        """
        unknown = set(adapter.factors) - {item.name for item in self.layout.modules}
        if unknown:
            raise CorruptFileError(f"the adapter covers {min(unknown)}, which the generator does not know")
        tokens = torch.zeros(len(self.left), self.width, self.width)
        for index, module in enumerate(self.layout.modules):
            if module.name not in adapter.factors:
                continue
            item, left, right = adapter.factors[module.name], self.left[index], self.right[index]
            if item.lora_b.shape[0] != left.shape[0] or item.lora_a.shape[1] != right.shape[1]:
                raise CorruptFileError(f"{module.name} of the adapter has another shape: it is of another base model")
            core = (left.T @ item.lora_b.float()) @ (item.lora_a.float() @ right.T)
            tokens[index, : left.shape[1], : right.shape[0]] = adapter.scaling(module.name) * core
        return tokens

    def decode(self, tokens: torch.Tensor, *, rank: int | None = None) -> Adapter:
        """Return the adapter with the given cores.

        Args:
            tokens: fp32 [modules, R, R].
            rank: keep only the leading singular directions of each core; all of them by default.

        Returns:
            An adapter with ``alpha`` equal to its rank (scaling 1), its two factors of equal norm.
        """
        kept = min(rank or self.width, self.width)
        factors: dict[str, Factors] = {}
        for index, module in enumerate(self.layout.modules):
            left, right = self.left[index], self.right[index]
            core = tokens[index, : left.shape[1], : right.shape[0]].float()
            u, s, vh = torch.linalg.svd(core, full_matrices=False)
            size = min(kept, s.shape[0])
            root = s[:size].sqrt()
            lora_b = torch.zeros(left.shape[0], kept)
            lora_a = torch.zeros(kept, right.shape[1])
            lora_b[:, :size] = left @ (u[:, :size] * root)
            lora_a[:size] = (root[:, None] * vh[:size]) @ right
            factors[module.name] = Factors(lora_a=lora_a, lora_b=lora_b)
        return Adapter(self.base_model, float(kept), factors, fan_in_fan_out=self.layout.fan_in_fan_out)

    def truncated(self, width: int) -> "Codec":
        """Return the leading directions alone: of a fitted codec, what ``fit_codec`` gives with that ``max_width``.

        Args:
            width: R, at least 1; a codec that is no wider is returned as it is.
        """
        if width >= self.width:
            return self
        left = tuple(item[:, :width].contiguous() for item in self.left)
        right = tuple(item[:width].contiguous() for item in self.right)
        return Codec(self.layout, left, right, width, self.base_model)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the basis under the keys ``codec.left.{i}`` and ``codec.right.{i}``."""
        named = {f"codec.left.{index}": item.contiguous() for index, item in enumerate(self.left)}
        return named | {f"codec.right.{index}": item.contiguous() for index, item in enumerate(self.right)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], layout: Layout, width: int, base_model: str) -> "Codec":
        """Rebuild a codec from its tensors and the generator's JSON.

        Raises:
            CorruptFileError: if a basis is missing.
        """
        try:
            left = tuple(tensors[f"codec.left.{index}"].float() for index in range(len(layout.modules)))
            right = tuple(tensors[f"codec.right.{index}"].float() for index in range(len(layout.modules)))
        except KeyError as error:
            raise CorruptFileError(f"the generator lacks {error.args[0]}") from error
        return cls(layout, left, right, width, base_model)


def balanced(adapters: Sequence[Adapter]) -> tuple[float, ...]:
    """Return weights by which every adapter has a delta-W of norm 1, whatever made it.

    Without them a foreign adapter of a hundred times the norm would leave no room in a basis for the rest.
    """
    return tuple(1.0 / (norm(adapter) or 1.0) for adapter in adapters)


def spans(adapters: Sequence[Adapter], weights: Sequence[float], module: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows that span the adapters' inputs [sum r, in] and outputs [sum r, out], weighted by their energy.

    Args:
        adapters: whatever ranks they have; at least one has the module.
        weights: what each one's delta-W is multiplied by.
        module: the module's name.
    """
    rows, columns = [], []
    for adapter, weight in zip(adapters, weights, strict=True):
        if module not in adapter.factors:
            continue
        item, scale = adapter.factors[module], weight * adapter.scaling(module)
        lora_a, lora_b = item.lora_a.float(), item.lora_b.float()
        rows.append(scale * (torch.linalg.qr(lora_b).R @ lora_a))
        columns.append(scale * (torch.linalg.qr(lora_a.T).R @ lora_b.T))
    return torch.cat(rows), torch.cat(columns)


def _needed(singular: torch.Tensor, energy: float) -> int:
    squares = singular.double().square()
    total = squares.sum()
    if total == 0:
        return 1
    return int((squares.cumsum(0) / total < energy).sum()) + 1


def fit_codec(adapters: Sequence[Adapter], *, energy: float = 0.999, max_width: int = 48) -> Codec:
    """Find the shared basis of a set of adapters, whatever their ranks.

    Args:
        adapters: one or more adapters of one base model.
        energy: share of the squared norm that each side's basis should keep, in (0, 1]; every adapter counts alike.
        max_width: the largest R.

    Raises:
        CorruptFileError: if the adapters disagree on shapes.
    """
    layout, weights = layout_of(adapters), balanced(adapters)
    bases: list[tuple[torch.Tensor, torch.Tensor]] = []
    width = 1
    for module in layout.modules:
        rows, columns = spans(adapters, weights, module.name)
        _, s_in, v_in = torch.linalg.svd(rows, full_matrices=False)
        _, s_out, v_out = torch.linalg.svd(columns, full_matrices=False)
        width = max(width, min(max_width, max(_needed(s_in, energy), _needed(s_out, energy))))
        bases.append((v_out, v_in))
    left = tuple(out[:width].T.contiguous() for out, _ in bases)
    right = tuple(inn[:width].contiguous() for _, inn in bases)
    return Codec(layout, left, right, width, adapters[0].base_model)


def relative_error(codec: Codec, adapter: Adapter) -> float:
    """Return ||delta-W - decode(encode)|| / ||delta-W|| over all modules (0 exact, 1 nothing kept)."""
    tokens, missed, total = codec.encode(adapter).double(), 0.0, 0.0
    for index, module in enumerate(codec.layout.modules):
        if module.name in adapter.factors:
            left, right, delta = codec.left[index], codec.right[index], adapter.delta(module.name).double()
            kept = left.double() @ tokens[index, : left.shape[1], : right.shape[0]] @ right.double()
            missed += float((delta - kept).square().sum())  # not total - kept, whose rounding a root would enlarge
            total += float(delta.square().sum())
    return float((missed / total) ** 0.5) if total else 0.0


def energy_kept(codec: Codec, adapter: Adapter) -> float:
    """Return the share of ||delta-W||^2 over all modules that a basis keeps, 0 to 1: 1 - relative_error^2.

    Only the cores are squared, for U and V are orthonormal; no [out, in] matrix is made. 1 where delta-W is zero.

    Args:
        codec: any basis.
        adapter: An adapter of the codec's base.

    Raises:
        CorruptFileError: if the adapter has a module or shape that the codec does not know.
    """
    kept, total = float(codec.encode(adapter).double().square().sum()), norm(adapter) ** 2
    return min(1.0, kept / total) if total else 1.0
