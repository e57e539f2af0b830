"""Load a base model that is on this machine: frozen, in eval mode, on the best device, local files only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from icmlora_cli.disk.files import is_object, read_json
from icmlora_cli.errors import BaseUnavailableError, CorruptFileError
from icmlora_cli.lm.devices import MicroBatch, make_repeatable, pick_device, pick_dtype
from icmlora_cli.lm.load_options import LoadOptions, keep_differentiable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from icmlora_cli.lm.batching import RowBatch
    from icmlora_cli.lm.families import Family
    from icmlora_cli.lm.prompts import Encoded
    from icmlora_cli.registry.bases import Base
    from icmlora_cli.weights.foreign.check import BaseShapes

# quantisation method to the package that transformers reads it with
QUANTISERS = {
    "bitsandbytes": "bitsandbytes",
    "gptq": "gptqmodel optimum",
    "awq": "gptqmodel",
    "auto-round": "auto-round",
    "compressed-tensors": "compressed-tensors",
    "aqlm": "aqlm[gpu]",
    "hqq": "hqq",
    "quanto": "optimum-quanto",
    "torchao": "torchao",
    "eetq": "eetq",
    "fbgemm_fp8": "fbgemm-gpu",
}


PROCESSORS = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class LoadedBase:
    """A frozen base model, ready to run.

    Args:
        base: where it came from.
        model: the language model, in eval mode, no parameter of which requires a gradient.
        tokenizer: The tokenizer of the base, with a padding token.
        device: where the parameters are.
        dtype: The dtype of the floating-point parameters.
        micro_batch: How many rows a pass takes at most, as running out of memory has shown.
        processor: What prepares images for a base that reads them; None for others.
    """

    base: Base
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    micro_batch: MicroBatch
    processor: ProcessorMixin | None = None

    @cached_property
    def family(self) -> Family:
        """How the base reads rows."""
        from icmlora_cli.lm.families import family_of

        if self.processor is not None:
            from icmlora_cli.lm.images import image_family

            return image_family(self.model, self.tokenizer, self.processor, self.dtype)
        return family_of(self.model, self.tokenizer)

    def batch(self, rows: Sequence[Encoded], *, size: Callable[[int], int] = int) -> RowBatch:
        """Pad a few rows into one batch on the base's device.

        Args:
            rows: the rows.
            size: gives the size of the batch for the longest row and the longest answer, where it is to be larger.
        """
        return self.family.collate(rows, self.device, size=size)

    @cached_property
    def shapes(self) -> BaseShapes:
        """The shapes of the base's modules, by its configuration: an adapter that is trained may be on the model."""
        from icmlora_cli.lm.meta_model import base_shapes

        return base_shapes(self.base)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing progress bars and printing remarks; what was set before comes back."""
    from transformers.utils import logging as hf_logging

    verbosity = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def load_base(
    base: Base,
    *,
    device: str | None = None,
    dtype: str = "auto",
    options: LoadOptions | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> LoadedBase:
    """Load a base model from its folder; nothing is fetched.

    Args:
        base: a recorded base.
        device: see :func:`~icmlora_cli.lm.devices.pick_device`.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        options: packed weights, another attention, several devices; None loads the base as its files have it.
        on_note: Called with a sentence for the user where memory does not suffice for the rows of a pass.

    Raises:
        BaseUnavailableError: if it is quantised, or needs a package, and what reads it is not here.
        CorruptFileError: if a file is damaged, missing, or lacks weights of the architecture.
        UsageError: if the device or dtype is not there, or an option cannot be had here.
    """
    options = options or LoadOptions()
    options.check(device=device, packed=_quantisation(base))
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    make_repeatable(where)
    with quiet_transformers():
        model = _model(base, kind, where, options)
        processor = _processor(base, model)
        tokenizer = _tokenizer(base) if processor is None else processor.tokenizer
    model = model.eval()
    model.requires_grad_(False)
    keep_differentiable(model)
    if (head := model.get_output_embeddings()) is not None:
        head.register_forward_pre_hook(contiguous_input)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if options.device_map is not None:
        where = next(model.parameters()).device  # where its first layer reads tokens
    return LoadedBase(
        base=base,
        model=model,
        tokenizer=tokenizer,
        device=where,
        dtype=kind,
        micro_batch=MicroBatch(where, on_note),
        processor=processor,
    )


def contiguous_input(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Make the output head's input contiguous, as a hook before its forward pass.

    ``logits_to_keep`` hands the head a slice of the hidden states [B, T, hidden]. With a frozen weight, torch
    multiplies one that is not contiguous row by row, and reads the whole head for each row, forward and backward.
    """
    return tuple(item.contiguous() for item in args)


def _model(base: Base, dtype: torch.dtype, device: torch.device, options: LoadOptions) -> PreTrainedModel:
    from safetensors import SafetensorError
    from transformers import AutoConfig

    from icmlora_cli.lm.architectures import auto_class

    arguments = options.arguments(device, dtype, packed=_quantisation(base) is not None)
    try:
        kind = auto_class(AutoConfig.from_pretrained(base.path, local_files_only=True))
        model, report = kind.from_pretrained(
            base.path, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True, **arguments
        )
    except ImportError as error:
        raise (_quantised(base, error) or _lacking(base, error)) from error
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise (_quantised(base, error) or _corrupt(base, str(error))) from error
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would leave them random
        raise _corrupt(base, f"{len(missing)} weights are missing, {missing[0]} the first of them")
    return model if "device_map" in arguments else model.to(device)


def _lacking(base: Base, error: ImportError) -> BaseUnavailableError:
    return BaseUnavailableError(
        f"base model {base.name} needs a package that is not installed: {_first_line(error)}",
        where=str(base.path),
        hint="install it, or give another model with --base",
    )


def _quantisation(base: Base) -> str | None:
    """Return how a base is quantised, by its configuration; None where it is not."""
    config = base.path / "config.json"
    settings = read_json(config).get("quantization_config") if config.is_file() else None
    return str(settings.get("quant_method") or "unknown")[:40] if is_object(settings) else None


def _quantised(base: Base, error: Exception) -> BaseUnavailableError | None:
    """Return the error for a quantised base that could not be loaded; None where the base is not quantised."""
    method = _quantisation(base)
    if method is None:
        return None
    package = QUANTISERS.get(method)
    return BaseUnavailableError(
        f"base model {base.name} is quantised ({method}), and cannot be loaded here: {_first_line(error)}",
        where=str(base.path / "config.json"),
        hint=(f"pip install {package}; or " if package else "") + "give the same model in bf16 with --base",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _tokenizer(base: Base) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged tokenizer.json
        raise _corrupt(base, f"its tokenizer cannot be read: {error}") from error


def _processor(base: Base, model: PreTrainedModel) -> ProcessorMixin | None:
    """Return what prepares images for a base; None where it reads none, or its folder has no such files."""
    from transformers import AutoProcessor

    from icmlora_cli.lm.architectures import reads_images

    there = any((base.path / name).is_file() for name in PROCESSORS)
    if not there or not reads_images(model.config):
        return None
    try:
        return AutoProcessor.from_pretrained(base.path, local_files_only=True)
    except ImportError as error:
        raise BaseUnavailableError(
            f"base model {base.name} needs a package to read images: {_first_line(error)}",
            where=str(base.path),
            hint="pip install 'icmlora[vision]'",
        ) from error
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged tokenizer.json
        raise _corrupt(base, f"its processor cannot be read: {error}") from error


def _corrupt(base: Base, reason: str) -> CorruptFileError:
    first = reason.strip().splitlines()[0] if reason.strip() else "unreadable"
    return CorruptFileError(
        f"base model {base.name} cannot be loaded: {first}",
        where=str(base.path),
        hint=f"icmlora base show {base.name} --verify, then: icmlora base remove {base.name} && "
        f"icmlora base pull {base.name}",
    )
