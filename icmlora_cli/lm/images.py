"""How a base that reads images reads a row: by its own processor, which takes one image and a text."""

import io
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from icmlora_cli.errors import UsageError
from icmlora_cli.lm.batching import IGNORED, RowBatch
from icmlora_cli.lm.devices import upload
from icmlora_cli.lm.families import DecoderFamily, EncoderDecoderFamily, Family, OpenPrompts
from icmlora_cli.lm.prompts import Encoded, text_ids
from icmlora_cli.tasks.examples import Picture

KEPT_BYTES = 1 << 28  # of prepared images that are kept in memory
TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")  # which say of each token whether it stands for an image


class PictureReader:
    """Prepares images for a base, and writes prompts with the places that they take.

    Args:
        processor: the base's processor.
        dtype: the dtype in which the base reads images.
    """

    def __init__(self, processor: ProcessorMixin, dtype: torch.dtype) -> None:
        """Start with no image in memory."""
        self.processor: Any = processor  # transformers has no types
        self.dtype = dtype
        self.types: set[str] = set()
        self._kept: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()
        self._bytes = 0

    def prompt_ids(self, text: str, picture: Picture) -> tuple[int, ...]:
        """Return the token ids of a prompt about an image.

        Args:
            text: the prompt, with the image's place where the processor wants it written.
            picture: the image.

        Raises:
            UsageError: if the processor refuses the prompt, or makes more of it than is known here.
        """
        try:
            made = self.processor(text=[text], images=[_opened(picture)], return_tensors="pt")
        except (ValueError, TypeError, IndexError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"the base's processor refuses the prompt {text[:80]!r} about an image: {first}",
                hint="write the input as the base wants it, such as <OD> alone for Florence-2",
            ) from error
        ids = made["input_ids"]
        for name in TOKEN_TYPES:
            if name in made:
                if not torch.equal(made[name].bool(), ids == self.processor.image_token_id):
                    raise UsageError(f"the base's processor gives {name} of a kind that icmlora does not know")
                self.types.add(name)
        return tuple(ids[0].tolist())

    def inputs(self, rows: Sequence[Encoded], ids: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
        """Return what the base reads of the rows' images, as the model's arguments.

        Args:
            rows: the rows, all of them with an image.
            ids: their token ids, int64 [B, T].
            device: where the tensors are put.

        Raises:
            UsageError: if some rows have no image, or the prepared images are of shapes that do not go together.
        """
        pictures = [row.picture for row in rows if row.picture is not None]
        if len(pictures) < len(rows):
            raise UsageError(
                "some rows of a pass have an image, and others have none",
                hint="harvest and train tasks with images apart from the others: --tasks",
            )
        every = [self._prepared(picture) for picture in pictures]
        try:
            whole = {name: torch.cat([item[name] for item in every]) for name in every[0]}
        except RuntimeError as error:
            raise UsageError(
                "the base prepares images of different sizes as tensors that do not go together",
                hint="batch_size: 1 in the recipe, or images of one size",
            ) from error
        types = {name: (ids == self.processor.image_token_id).long() for name in sorted(self.types)}
        return {name: upload(item, device) for name, item in (whole | types).items()}

    def _prepared(self, picture: Picture) -> dict[str, torch.Tensor]:
        """Return the tensors of one image, from memory where they are there."""
        if picture.sha256 in self._kept:
            self._kept.move_to_end(picture.sha256)
            return self._kept[picture.sha256]
        prepare = self.processor.image_processor
        made = prepare(images=[_opened(picture)], return_tensors="pt")
        found = {
            name: item.to(self.dtype) if item.is_floating_point() else item
            for name, item in made.items()
            if name in prepare.model_input_names
        }
        self._kept[picture.sha256] = found
        self._bytes += _size(found)
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return found


def _opened(picture: Picture) -> object:
    from PIL import Image

    with Image.open(io.BytesIO(picture.read())) as image:
        return image.convert("RGB")


def _size(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(item.numel() * item.element_size() for item in tensors.values())


def _has_pictures(rows: Sequence[Encoded]) -> bool:
    return any(row.picture is not None for row in rows)


@dataclass(frozen=True)
class ImageEncoderDecoderFamily(EncoderDecoderFamily):
    """An encoder that reads an image and a prompt, as Florence-2's.

    Args:
        images: prepares images.
    """

    images: PictureReader = field(kw_only=True)

    def row(self, prompt: str, answer: str, picture: Picture | None = None) -> Encoded:
        """Return a prompt about an image for the encoder, and its answer for the decoder.

        Raises:
            UsageError: if the processor refuses the prompt.
        """
        plain = super().row(prompt, answer)
        if picture is None:
            return plain
        return Encoded(self.images.prompt_ids(prompt, picture), plain.answer_ids, apart=True, picture=picture)

    def written(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Return what tokens say, with location tokens, which are special ones to the tokenizer."""
        tokenizer = self.tokenizer
        ends = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, *self.start}
        return str(tokenizer.decode([item for item in ids if item not in ends], skip_special_tokens=False))

    def _inputs(self, rows: Sequence[Encoded], device: torch.device, longest: int) -> dict[str, torch.Tensor]:
        inputs = super()._inputs(rows, device, longest)
        return inputs | (self.images.inputs(rows, inputs["input_ids"], device) if _has_pictures(rows) else {})


@dataclass(frozen=True)
class PictureBatch:
    """Images, prompts and answers for a decoder alone, padded on the right.

    Its models count positions in ways of their own, which padding on the left would put wrong.

    Args:
        inputs: the model's arguments: ``input_ids`` and ``attention_mask``, int64 [B, T], and what is read of images.
        places: int64 [B, K], the positions before each token of the answers, which predict them.
        labels: int64 [B, K], the answers at the row's start, ``IGNORED`` after them.
        first: the first of these positions.
    """

    inputs: Mapping[str, torch.Tensor]
    places: torch.Tensor
    labels: torch.Tensor
    first: int

    def place(self, tokens: int) -> slice:
        """Return where in its row of ``labels`` an answer of so many tokens is: at the start."""
        return slice(0, tokens)

    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        """Run the model and return its logits of each answer token, [B, K, vocabulary], and of no other position."""
        count = self.inputs["input_ids"].shape[1] - self.first
        logits: torch.Tensor = model(**self.inputs, use_cache=False, logits_to_keep=count).logits  # (B, count, ...)
        index = self.places - self.first
        return logits.gather(1, index[..., None].expand(-1, -1, logits.shape[2]))


@dataclass(frozen=True)
class ImageDecoderFamily(DecoderFamily):
    """A decoder alone that reads an image before the prompt.

    Args:
        images: prepares images.
    """

    images: PictureReader = field(kw_only=True)

    def row(self, prompt: str, answer: str, picture: Picture | None = None) -> Encoded:
        """Return a prompt about an image, by the processor's chat template where it has one, and its answer.

        Raises:
            UsageError: if the processor refuses the prompt.
        """
        if picture is None:
            return super().row(prompt, answer)
        processor = self.images.processor
        if getattr(processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            turn = [{"role": "user", "content": content}]
            prompt = str(processor.apply_chat_template(turn, add_generation_prompt=True))
        else:
            prompt = f"{processor.image_token}{prompt}"
        end = self.tokenizer.eos_token_id
        answer_ids = (*text_ids(self.tokenizer, answer.strip()), *(() if end is None else (int(end),)))
        return Encoded(self.images.prompt_ids(prompt, picture), answer_ids, picture=picture)

    def collate(self, rows: Sequence[Encoded], device: torch.device, *, size: Callable[[int], int] = int) -> RowBatch:
        """Pad rows without images on the left, and rows with images on the right."""
        if not _has_pictures(rows):
            return super().collate(rows, device, size=size)
        longest, count = size(max(row.length for row in rows)), size(max(len(row.answer_ids) for row in rows))
        ids = torch.full((len(rows), longest), int(self.tokenizer.pad_token_id), dtype=torch.long)
        mask, places = torch.zeros_like(ids), torch.zeros(len(rows), count, dtype=torch.long)
        labels = torch.full((len(rows), count), IGNORED, dtype=torch.long)
        first = min(len(row.prompt_ids) for row in rows) - 1
        for at, row in enumerate(rows):
            start, tokens = len(row.prompt_ids), len(row.answer_ids)
            ids[at, : row.length] = torch.tensor(row.prompt_ids + row.answer_ids)
            mask[at, : row.length] = 1
            labels[at, :tokens] = torch.tensor(row.answer_ids, dtype=torch.long)
            places[at] = first  # of positions that are ignored
            places[at, :tokens] = torch.arange(start - 1, start - 1 + tokens)
        inputs = {"input_ids": upload(ids, device), "attention_mask": upload(mask, device)}
        inputs |= self.images.inputs(rows, ids, device)
        return PictureBatch(inputs, upload(places, device), upload(labels, device), first)

    def prompts(self, rows: Sequence[Encoded], device: torch.device) -> OpenPrompts:
        """Pad a few prompts on the left, with what is read of their images."""
        whole = super().prompts(rows, device)
        if not _has_pictures(rows):
            return whole
        extra = self.images.inputs(rows, whole.inputs["input_ids"], device)
        return OpenPrompts({**whole.inputs, **extra}, whole.width, whole.before)

    def states(self, rows: Sequence[Encoded], device: torch.device, share: float) -> list[torch.Tensor]:
        """Return the states of all tokens of each row."""
        if not _has_pictures(rows):
            return super().states(rows, device, share)
        batch = self.collate(rows, device)
        assert isinstance(batch, PictureBatch)
        with torch.inference_mode():
            layers = self.model(**batch.inputs, use_cache=False, output_hidden_states=True).hidden_states
        return [layers[self.place(share)][at, : row.length] for at, row in enumerate(rows)]


def image_family(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, processor: ProcessorMixin, dtype: torch.dtype
) -> Family:
    """Return how a base that reads images reads rows.

    Args:
        model: the base.
        tokenizer: its tokenizer.
        processor: its processor.
        dtype: the dtype in which it reads images.
    """
    images = PictureReader(processor, dtype)
    if model.config.is_encoder_decoder:
        return ImageEncoderDecoderFamily(tokenizer, model, images=images)
    return ImageDecoderFamily(tokenizer, model, images=images)
