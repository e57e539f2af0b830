"""Frames: bases of delta-W that a seed gives, so that they cost no storage, and only cores belong to tasks.

For each module, U [out, R] and V [R, in] are orthonormal, drawn from the frame's seed and the module's name; delta-W is
U C V with a core C [R, R] of the task. A frame is a codec (see ``weights.codec``) whose basis is not learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.codec import Codec, balanced, spans
from icmlora_cli.weights.layout import Layout
from icmlora_cli.weights.seeds import named_source


@dataclass(frozen=True)
class FrameSpec:
    """What a frame is made from, beside a base's modules.

    Args:
        seed: The seed from which all matrices of the frame are drawn.
        width: R; a module that is smaller has a frame of its own size.
    """

    seed: int
    width: int


def _orthonormal(size: int, width: int, *name: object) -> torch.Tensor:
    """Return a matrix with orthonormal columns, fp32 [size, min(width, size)], that only the name decides."""
    drawn = torch.randn(size, min(width, size), generator=named_source(*name), dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0).double()  # or each LAPACK would choose its own
    matrix: torch.Tensor = (q * signs).float()
    return matrix


def seeded_frame(layout: Layout, spec: FrameSpec, base_model: str) -> Codec:
    """Return the frame of a base's modules as a codec.

    Args:
        layout: the modules.
        spec: seed and width.
        base_model: written into decoded adapters.
    """
    left = [_orthonormal(item.out_features, spec.width, spec.seed, item.name, "left") for item in layout.modules]
    right = [_orthonormal(item.in_features, spec.width, spec.seed, item.name, "right").T for item in layout.modules]
    width = max(max(u.shape[1], v.shape[0]) for u, v in zip(left, right, strict=True))
    return Codec(layout, tuple(left), tuple(item.contiguous() for item in right), width, base_model)


def learned_directions(frame: Codec, width: int) -> dict[str, torch.Tensor]:
    """Return what a frame has beyond its seed's, as named tensors; ``with_directions`` puts it back.

    Args:
        frame: a seeded frame, extended or not.
        width: R of the seeded frame.
    """
    named: dict[str, torch.Tensor] = {}
    for index, module in enumerate(frame.layout.modules):
        left, right = frame.left[index], frame.right[index]
        if left.shape[1] > min(width, module.out_features):
            named[f"codec.left.{index}"] = left[:, width:].contiguous()
        if right.shape[0] > min(width, module.in_features):
            named[f"codec.right.{index}"] = right[width:].contiguous()
    return named


def with_directions(frame: Codec, tensors: Mapping[str, torch.Tensor]) -> Codec:
    """Return a seeded frame extended by what ``learned_directions`` gave."""
    left, right = list(frame.left), list(frame.right)
    for index in range(len(left)):
        if f"codec.left.{index}" in tensors:
            left[index] = torch.cat([left[index], tensors[f"codec.left.{index}"].float()], dim=1)
        if f"codec.right.{index}" in tensors:
            right[index] = torch.cat([right[index], tensors[f"codec.right.{index}"].float()])
    width = max(max(u.shape[1], v.shape[0]) for u, v in zip(left, right, strict=True))
    return Codec(frame.layout, tuple(left), tuple(right), width, frame.base_model)


def framed_adapter(frame: Codec, cores: torch.Tensor) -> Adapter:
    """Return the adapter of cores exactly, without any singular values: ``lora_A`` is V and ``lora_B`` is U C.

    Args:
        frame: the frame.
        cores: fp32 [modules, R, R].

    Returns:
        An adapter of rank R with scaling 1; a smaller module's factors are filled up with zeros.
    """
    factors: dict[str, Factors] = {}
    for index, module in enumerate(frame.layout.modules):
        left, right = frame.left[index], frame.right[index]
        missing = frame.width - right.shape[0]
        core = cores[index, : left.shape[1], : right.shape[0]].float()
        factors[module.name] = Factors(
            lora_a=torch.nn.functional.pad(right, (0, 0, 0, missing)),
            lora_b=torch.nn.functional.pad(left @ core, (0, missing)),
        )
    return Adapter(frame.base_model, float(frame.width), factors, fan_in_fan_out=frame.layout.fan_in_fan_out)


def extended_frame(frame: Codec, adapters: Sequence[Adapter], directions: int) -> Codec:
    """Return the frame with learned directions behind its own, for adapters that were not trained in it.

    On each side of each module the leading singular directions of what the frame does not span are added, over all
    adapters, weighted by their energy, of which every adapter has the same.

    Args:
        frame: a seeded frame.
        adapters: whatever ranks they have.
        directions: how many to add on each side, at most.

    Raises:
        CorruptFileError: if an adapter is of another base.
    """
    left, right, weights = list(frame.left), list(frame.right), balanced(adapters)
    for index, module in enumerate(frame.layout.modules):
        if not any(module.name in adapter.factors for adapter in adapters):
            continue
        rows, columns = spans(adapters, weights, module.name)
        if (rows.shape[1], columns.shape[1]) != (module.in_features, module.out_features):
            raise CorruptFileError(f"{module.name} of the adapter has another shape: it is of another base model")
        right[index] = torch.cat([right[index], _further(rows, right[index], directions)])
        left[index] = torch.cat([left[index], _further(columns, left[index].T, directions).T], dim=1)
    width = max(max(u.shape[1], v.shape[0]) for u, v in zip(left, right, strict=True))
    return Codec(frame.layout, tuple(left), tuple(right), width, frame.base_model)


def _further(rows: torch.Tensor, known: torch.Tensor, count: int) -> torch.Tensor:
    """Return the leading directions of what rows [n, size] have outside the span of orthonormal rows [r, size].

    At most ``count`` of them, [count, size], and none that carries less than a millionth of the rows' norm.
    """
    residual = rows - (rows @ known.T) @ known
    _, s, vh = torch.linalg.svd(residual - (residual @ known.T) @ known, full_matrices=False)
    carries = int((s > 1e-6 * float(rows.norm())).sum())
    found: torch.Tensor = vh[: min(count, carries)].contiguous()
    return found
