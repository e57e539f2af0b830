"""Trains a small Florence-2 on the drawn detection set: a stand-in for the paper's base, where the hub is out of reach.

It has Florence-2's architecture and words (``<OD>``, 1,000 location tokens) with 2 million parameters, and reads
pictures of 96 x 96 pixels. It learns to find all shapes of a picture (``<OD>``), and those of one kind by name
(Florence-2's "Locate star in the image."), but for the shapes of ``HELD_OUT``, which it never sees. Then:

    icmlora task add 'drawn:*'
    icmlora harvest --base FOLDER --recipe harvest/detection --tasks @drawn

Stopped at any moment, the same command goes on where it was.
"""

import argparse
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    PreTrainedTokenizerFast,
)

from icmlora_cli.lm.load import quiet_transformers
from icmlora_cli.tasks.boxes import BINS, Box, boxes_text
from icmlora_cli.tasks.detection import matches, mean_average_precision
from icmlora_cli.tasks.drawn import GROUNDS, SHAPES, SIDE, SIZES, draw, drawn_tasks
from icmlora_cli.tasks.metrics import DETECTION_METRICS
from icmlora_cli.weights.training_state import load_state, save_state

HELD_OUT = ("crescent", "heart", "pentagon")
KNOWN = tuple(shape for shape in SHAPES if shape not in HELD_OUT)
STRIDE = 8  # pixels a place of the encoder stands for
NAMED = 0.3  # share of the rows that ask for one kind of shape
SEED = 0
ALL = "Locate the objects with category name in the image."  # what the processor makes of <OD>

Seen = tuple[torch.Tensor, tuple[Box, ...]]


def words() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of the descriptions' words, with BART's special tokens and the locations."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for task in drawn_tasks().values() for text in task.descriptions]
    bpe.train_from_iterator([*texts, *(f" {shape} {shape}" for shape in SHAPES), ALL], trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    made.add_tokens([f"<loc_{index}>" for index in range(BINS)], special_tokens=True)
    return made


def build() -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """Return the untrained model and its processor."""
    tokenizer = words()
    images = CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    images.image_seq_length = (SIDE // STRIDE) ** 2 + 1
    text = BartConfig(
        vocab_size=len(tokenizer),
        d_model=128,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=384,
        decoder_ffn_dim=384,
        dropout=0.0,
        max_position_embeddings=512,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    vision = {
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [32, 96],
        "num_heads": [2, 3],
        "num_groups": [2, 3],
        "window_size": 6,
        "projection_dim": 128,
        "max_temporal_embeddings": 4,
        "max_position_embeddings": 24,
        "drop_path_rate": 0.0,
    }
    torch.manual_seed(SEED)
    config = Florence2Config(text_config=text.to_dict(), vision_config=vision, image_token_id=tokenizer.image_token_id)
    return Florence2ForConditionalGeneration(config), Florence2Processor(image_processor=images, tokenizer=tokenizer)


def seen(number: int) -> Seen:
    """Return a picture, uint8 [3, H, W], and its boxes; the number alone decides it."""
    rng = random.Random(f"icmlora stand-in {SEED} {number}")
    wanted = [(rng.choice(KNOWN), rng.choice(list(SIZES))) for _ in range(rng.randint(1, 4))]
    image, shapes = draw(rng, rng.choice(GROUNDS), wanted)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1), tuple(box for box, _ in shapes)


class Rows:
    """Makes batches as the processor would, without opening a file for each picture.

    Args:
        processor: the base's processor.
    """

    def __init__(self, processor: Florence2Processor) -> None:
        """Encode the prompts once."""
        self.tokenizer, images = processor.tokenizer, processor.image_processor
        self.mean, self.std = (torch.tensor(value)[:, None, None] for value in (images.image_mean, images.image_std))
        self.places = [self.tokenizer.image_token_id] * processor.num_image_tokens

    def prompt(self, shape: str | None) -> list[int]:
        """Return the prompt that asks for all shapes, or for one kind."""
        text = ALL if shape is None else f"Locate {shape} in the image."
        return self.places + list(self.tokenizer.encode(text))

    def batch(self, rows: Sequence[tuple[Seen, str | None]]) -> dict[str, torch.Tensor]:
        """Return the model's inputs and labels for pictures, each with the shape that is asked for."""
        prompts = [self.prompt(shape) for _, shape in rows]
        answers = [
            self.tokenizer.encode(
                boxes_text([box for box in boxes if shape in (None, box.label)], (SIDE, SIDE)), add_special_tokens=True
            )
            for (_, boxes), shape in rows
        ]
        pixels = torch.stack([image for (image, _), _ in rows]).float() / 255
        ids, labels = (_padded(items, fill) for items, fill in ((prompts, 1), (answers, -100)))
        return {
            "input_ids": ids,
            "attention_mask": (ids != 1).long(),
            "pixel_values": (pixels - self.mean) / self.std,
            "labels": labels,
        }


class Places(torch.nn.Module):
    """Says, while the base learns, which shape each place of the encoder lies in, and where that shape's box is.

    An answer of a few boxes alone teaches a small model very slowly where in a picture to look: the decoder gets each
    number through attention to places that do not know yet what they show. This second loss, that of a dense detector
    (FCOS, Tian et al., ICCV 2019) in the words of the answer, teaches the places; the head is dropped in the end.

    Args:
        embedding: of the base's words.
    """

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        """Make the head, which is untrained."""
        super().__init__()
        self.kind = torch.nn.Linear(embedding.embedding_dim, 1 + len(KNOWN))
        self.corners = torch.nn.Linear(embedding.embedding_dim, 4 * embedding.embedding_dim)
        self.embedding = [embedding]  # in a list, since it is the base's and not this module's
        centres = torch.arange(SIDE // STRIDE) * STRIDE + STRIDE / 2
        self.middles = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).flatten(0, 1)

    def forward(
        self, states: torch.Tensor, boxes: Sequence[Sequence[Box]], words: PreTrainedTokenizerFast
    ) -> torch.Tensor:
        """Return the loss of the encoder's states [B, L, D], of which the first is of the whole picture."""
        states = states[:, 1 : 1 + len(self.middles)]
        kinds = torch.zeros(states.shape[:2], dtype=torch.long)
        corners = torch.zeros(*states.shape[:2], 4, dtype=torch.long)
        for row, items in enumerate(boxes):
            for box in items:
                ends = torch.tensor(box.corners)
                inside = ((self.middles > ends[:2]) & (self.middles < ends[2:])).all(-1)
                kinds[row, inside] = 1 + KNOWN.index(box.label)
                corners[row, inside] = torch.tensor(
                    words.encode(boxes_text([box], (SIDE, SIDE)), add_special_tokens=False)[-4:]
                )
        shown = kinds > 0
        queries = self.corners(states[shown]).unflatten(-1, (4, -1))
        logits = queries @ self.embedding[0].weight.T
        loss = torch.nn.functional.cross_entropy(self.kind(states).flatten(0, 1), kinds.flatten())
        return loss + torch.nn.functional.cross_entropy(logits.flatten(0, 1), corners[shown].flatten())


def _padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def drawn_batch(rows: Rows, step: int, size: int) -> tuple[dict[str, torch.Tensor], list[tuple[Box, ...]]]:
    """Return the batch of a step, which its number decides: new pictures, some of which are asked for one kind.

    With it come all boxes of each picture.

    Args:
        rows: makes batches.
        step: the step.
        size: rows of a batch.
    """
    rng = random.Random(f"icmlora stand-in batch {SEED} {step}")
    pictures = [seen(step * size + number) for number in range(size)]
    batch = rows.batch([(one, rng.choice(one[1]).label if rng.random() < NAMED else None) for one in pictures])
    return batch, [boxes for _, boxes in pictures]


@torch.inference_mode()
def precision(model: Florence2ForConditionalGeneration, rows: Rows, count: int) -> dict[str, float]:
    """Return the mean average precision on pictures that are not trained on."""
    written, expected = [], []
    for start in range(0, count, 16):
        pictures = [seen(-1 - number) for number in range(start, min(count, start + 16))]
        batch = rows.batch([(one, None) for one in pictures])
        labels = batch.pop("labels")
        begin = torch.tensor([[2, 0]] * len(pictures))
        out = model.generate(**batch, decoder_input_ids=begin, max_new_tokens=labels.shape[1] + 8, do_sample=False)
        for ids, (_, boxes) in zip(out[:, 2:].tolist(), pictures, strict=True):
            written.append(rows.tokenizer.decode([item for item in ids if item > 2]))
            expected.append(boxes_text(boxes, (SIDE, SIDE)))
    found = matches(written, expected)
    return {name: mean_average_precision(found, name) for name in DETECTION_METRICS}


def train(out: Path, *, steps: int, batch_size: int, rate: float, check: int) -> None:
    """Train the base, and save it with its processor.

    Args:
        out: the folder; beside it the state of the training is kept until it is done.
        steps: how many steps.
        batch_size: rows of a step.
        rate: the peak learning rate.
        check: how many steps between two checks, at which the state is saved.
    """
    with quiet_transformers():
        model, processor = build()
    rows, places = Rows(processor), Places(model.get_input_embeddings())
    modules = torch.nn.ModuleDict({"model": model, "places": places})
    parameters = dict(modules.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=rate, betas=(0.9, 0.98), weight_decay=0.05)
    state, identity = out.with_name(f"{out.name}.training.safetensors"), f"stand-in {steps} {batch_size} {rate}"
    resumed = load_state(state, parameters, optimizer, identity=identity) if state.is_file() else None
    first = 0 if resumed is None else resumed.step
    numbers = sum(item.numel() for item in model.parameters())
    print(f"{numbers:,} parameters; steps {first} to {steps}", flush=True)
    started, losses = time.monotonic(), list[tuple[float, float]]()
    for step in range(first, steps):
        share = (step + 1) / steps
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 300) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        model.train()
        batch, boxes = drawn_batch(rows, step, batch_size)
        out_of = model(**batch)
        of_places = places(out_of.encoder_last_hidden_state, boxes, processor.tokenizer)
        optimizer.zero_grad(set_to_none=True)
        (out_of.loss + of_places).backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        losses.append((float(out_of.loss.detach()), float(of_places.detach())))
        if (step + 1) % check == 0 or step + 1 == steps:
            save_state(state, parameters, optimizer, step=step + 1, identity=identity)
            model.eval()
            found = precision(model, rows, 64)
            said = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            of_answers, of_places = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            seconds = time.monotonic() - started
            print(f"step {step + 1}: loss {of_answers:.3f} + {of_places:.3f}, {said}, {seconds:,.0f} s", flush=True)
            losses.clear()
    model.eval()
    with quiet_transformers():
        model.save_pretrained(out)
        processor.save_pretrained(out)
    state.unlink(missing_ok=True)
    print(f"written: {out}")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the base")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--check", type=int, default=250, help="steps between two checks")
    options = parser.parse_args()
    train(
        options.out,
        steps=options.steps,
        batch_size=options.batch_size,
        rate=options.rate,
        check=options.check,
    )


if __name__ == "__main__":
    main()
