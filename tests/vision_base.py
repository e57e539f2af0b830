"""Tiny random models that read images, with real processors and tokenizers, and small images; they need Pillow."""

import io
from pathlib import Path

from tests.conftest import CORPUS


def tokenizer(image_token: str = "<image>"):  # type: ignore[no-untyped-def]
    """A byte-level BPE with BART's special tokens and Florence-2's locations."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": image_token},
    )  # fmt: skip
    made.add_tokens([f"<loc_{index}>" for index in range(1000)], special_tokens=True)
    return made


def _image_processor(size: int):  # type: ignore[no-untyped-def]
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"height": size, "width": size}, do_center_crop=False)


def florence(folder: Path, size: int = 32) -> Path:
    """Save a tiny random Florence-2 that reads images of ``size`` pixels; return its folder."""
    import torch
    from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration, Florence2Processor

    from icmlora_cli.lm.load import quiet_transformers

    words, images = tokenizer(), _image_processor(size)
    images.image_seq_length = (size // 8) ** 2 + 1
    text = BartConfig(
        vocab_size=len(words), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=256,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    vision = {
        "depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
        "patch_prenorm": [False, True], "embed_dim": [16, 32], "num_heads": [2, 4], "num_groups": [2, 4],
        "window_size": 4, "projection_dim": 32, "max_temporal_embeddings": 10, "max_position_embeddings": 20,
        "drop_path_rate": 0.0,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        config = Florence2Config(text_config=text.to_dict(), vision_config=vision, image_token_id=words.image_token_id)
        Florence2ForConditionalGeneration(config).save_pretrained(folder)
        Florence2Processor(image_processor=images, tokenizer=words).save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    """Save a tiny random LLaVA, which is a decoder alone that reads images; return its folder."""
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    from icmlora_cli.lm.load import quiet_transformers

    words = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=256, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        config = LlavaConfig(
            vision_config=vision, text_config=text, image_token_id=words.image_token_id, vision_feature_layer=-1
        )
        LlavaForConditionalGeneration(config).save_pretrained(folder)
        processor = LlavaProcessor(
            image_processor=_image_processor(16), tokenizer=words, patch_size=8, image_token="<image>",
            vision_feature_select_strategy="default", num_additional_image_tokens=1,
        )  # fmt: skip
        processor.save_pretrained(folder)
    return folder


def image_bytes(number: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """A small PNG: a coloured square on grey, at a place of its own."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, (90, 90, 90))
    left, top = number * 7 % (size[0] - 12), number * 5 % (size[1] - 12)
    colour = (number * 53 % 256, number * 97 % 256, number * 29 % 256)
    ImageDraw.Draw(image).rectangle((left, top, left + 10, top + 10), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
