"""What a pass through a base takes, found without its weights: the pass is run on torch's meta device.

There tensors have shapes and dtypes and no data, so that the very code that trains an adapter runs in a second or two,
for a base of any size. Every tensor that it makes is counted while it lives, and every product by its FLOPs.
"""

import gc
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import AttentionInterface, AutoConfig, PreTrainedModel

from icmlora_cli.disk.files import is_object, read_json
from icmlora_cli.errors import CorruptFileError, UsageError
from icmlora_cli.lm.architectures import auto_class, only_decoders
from icmlora_cli.lm.batching import IGNORED, TokenBatch, answer_log_probs
from icmlora_cli.lm.devices import MicroBatch
from icmlora_cli.lm.load import LoadedBase, quiet_transformers
from icmlora_cli.registry.bases import Base

META = torch.device("meta")
FUSED = "icmlora_fused"  # the name under which transformers finds the attention of this module
PACKED_BITS = {4: 4.5, 8: 8.25}  # bits of a weight with the scales of its blocks of 64, as bitsandbytes keeps them


@dataclass(frozen=True)
class PassCost:
    """What one forward pass, or one forward and backward pass, takes.

    Args:
        activations: the most bytes that live at once of what the pass makes, gradients that it leaves not among them.
        gradients: the bytes that the pass leaves behind: the gradients of what is trained.
        flops: floating-point operations of its matrix products and its attention, a multiply and an add being two.
    """

    activations: int
    gradients: int
    flops: int


class _Counted(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, while they live, and the operations' FLOPs.

    The FLOPs are those of torch's ``FlopCounterMode``, which itself keeps tensors alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # torch.OpOverload, which has no types
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        for item in tree_leaves((args, kwargs)):
            if isinstance(item, torch.Tensor):
                self._count(item.untyped_storage(), made=False)  # what was there before, of which a view may be made
        result: object = func(*args, **(kwargs or {}))
        flops = flop_registry.get(func.overloadpacket)
        if flops is not None:
            self.flops += int(flops(*args, **(kwargs or {}), out_val=result))
        for item in tree_leaves(result):
            if isinstance(item, torch.Tensor):
                self._count(item.untyped_storage(), made=True)
        return result

    def _count(self, storage: torch.UntypedStorage, *, made: bool) -> None:
        key = id(storage)
        if key in self._storages:
            return
        size = storage.nbytes() if made else 0
        self.now += size
        self.peak = max(self.peak, self.now)

        def free(_: object) -> None:
            self._storages.pop(key, None)
            self.now -= size

        self._storages[key] = weakref.ref(storage, free)


def pass_cost(run: Callable[[], object]) -> PassCost:
    """Return what running a function on meta tensors takes.

    Args:
        run: the pass; what it returns is dropped before what is left behind is counted.
    """
    with _Counted() as counted:
        result = run()
        del result
        gc.collect()  # what checkpointing leaves in cycles
        left = counted.now
    return PassCost(counted.peak - left, left, counted.flops)


def _fused_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,  # what the attention of each architecture is given besides
) -> tuple[torch.Tensor, None]:
    """Attend as torch's fused kernels do, which keep no [T, T] matrix of a head; on meta, torch would choose another.

    Args:
        module: the attention, whose groups say how many heads share a key.
        query: [B, heads, T, D].
        key: [B, groups, T, D].
        value: [B, groups, T, D].
        attention_mask: bool [B, 1, T, T], True where there is something to see.
        scaling: the factor of the products; None takes 1 / sqrt(D).
    """
    heads, bias = query.shape[1], None
    if key.shape[1] != heads:  # as transformers does where there is a mask
        key, value = (item.repeat_interleave(heads // key.shape[1], dim=1) for item in (key, value))
    if attention_mask is not None:
        bias = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill(~attention_mask, float("-inf"))
        bias = bias.expand(-1, heads, -1, -1)
    keeps = torch.is_grad_enabled() and query.requires_grad
    out = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, keeps, 0.0, bias is None, scale=scaling
    )[0]
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(FUSED, _fused_attention)


def meta_base(folder: Path, name: str, *, dtype: torch.dtype) -> LoadedBase:
    """Return a base without memory for its weights, as ``load_base`` returns one with them; it has no tokenizer.

    Args:
        folder: the folder with its ``config.json``; no other file is read.
        name: the base's name, for messages.
        dtype: the dtype of its floating-point parameters.

    Raises:
        CorruptFileError: if the configuration cannot be read.
        UsageError: if the base has an encoder.
    """
    try:
        with quiet_transformers(), META:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            model = auto_class(config).from_config(config, dtype=dtype, attn_implementation=FUSED)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFileError(
            f"the configuration of base model {name} cannot be read: {str(error).strip().splitlines()[0]}",
            where=str(folder / "config.json"),
            hint="give --base a folder with the config.json of a causal language model",
        ) from error
    only_decoders(model, name, "the estimate of what a pass takes")
    base = Base(name, name, None, folder, "", "folder", None, 0, type(model).__name__)
    return LoadedBase(base, model.eval().requires_grad_(False), None, META, dtype, MicroBatch(META))


def parameters_of(model: PreTrainedModel) -> int:
    """Return how many numbers the parameters of a model have; tied embeddings count once."""
    parameters: Iterable[torch.nn.Parameter] = model.parameters()
    return sum(item.numel() for item in parameters)


def weight_bytes(loaded: LoadedBase, *, bits: int | None = None) -> int:
    """Return the bytes of a base's parameters and buffers on its device.

    Args:
        loaded: the base, with no adapter on it.
        bits: to how many bits linear layers, but for the output head, are packed as the base is loaded: 4 or 8; None
            leaves them as they are in the base's own files.
    """
    model: torch.nn.Module = loaded.model
    stored = _stored_bits(loaded.base.path / "config.json") if bits is None else bits
    total = sum(item.numel() * item.element_size() for item in (*model.parameters(), *model.buffers()))
    if stored not in PACKED_BITS:
        return total
    head = loaded.model.get_output_embeddings()
    linear = [item for item in model.modules() if isinstance(item, torch.nn.Linear) and item is not head]
    packed = sum(item.weight.numel() for item in linear)
    return total - packed * loaded.dtype.itemsize + int(packed * PACKED_BITS[stored] / 8)


def _stored_bits(config: Path) -> int | None:
    """Return to how many bits a base's own files pack linear layers, by its configuration; None where they do not."""
    settings = read_json(config).get("quantization_config")
    if not is_object(settings):
        return None
    bits = settings.get("bits")
    if isinstance(bits, int):
        return bits
    return 4 if settings.get("load_in_4bit") else 8


def meta_rows(loaded: LoadedBase, *, rows: int, tokens: int, answer: int) -> TokenBatch:
    """Return a batch on the meta device, whose rows count as padded, which takes the most memory.

    Args:
        loaded: the base.
        rows: the number of rows.
        tokens: the tokens of each row, its answer and its padding among them.
        answer: how many of them are the answer's.

    Raises:
        UsageError: if the answer leaves no room for a prompt, or the base reads fewer tokens at once.
    """
    if answer >= tokens:
        raise UsageError(
            f"rows of {tokens} tokens have no room for answers of {answer}", hint="more --tokens, or fewer --answer"
        )
    ids = torch.zeros(rows, tokens, dtype=torch.long, device=META)
    mask = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool, device=META)  # one of [B, T] would be looked into
    labels = torch.zeros(rows, answer, dtype=torch.long, device=META)
    return TokenBatch(ids, mask, ids.clone(), labels)


def training_cost(model: torch.nn.Module, batch: TokenBatch) -> PassCost:
    """Return what a forward and a backward pass of a batch take, as ``finetune`` runs them.

    Args:
        model: the base with what is trained, on the meta device; its gradients are dropped again.
        batch: the rows.
    """

    def run() -> None:
        log_probs, _ = answer_log_probs(model, batch)
        loss = -log_probs.sum() / (batch.labels != IGNORED).sum()
        loss.backward()

    cost = pass_cost(run)
    model.zero_grad(set_to_none=True)
    return cost


def reading_cost(model: torch.nn.Module, batch: TokenBatch) -> PassCost:
    """Return what a forward pass of a batch takes, without gradients."""

    def run() -> object:
        with torch.no_grad():
            return answer_log_probs(model, batch)

    return pass_cost(run)
