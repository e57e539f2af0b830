"""Small tokenizers of the classes that models have: real vocabularies of their kinds, made here."""

from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AddedToken,
    BertTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

WORDS = ("Paris", "Rome", "return", "city", "the", "in")
CHARACTERS = [chr(code) for code in range(33, 127)]
SPACE = "\u2581"  # SentencePiece's


def _bpe(start: list[str], space: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a vocabulary and merges in which the words, with and without a space before them, are one token each."""
    pieces, merges = list(dict.fromkeys([*start, space, *CHARACTERS])), list[tuple[str, str]]()
    for word in WORDS:
        for spelled in (space + word, word):
            grown = spelled[0]
            for letter in spelled[1:]:
                merges.append((grown, letter))
                grown += letter
                pieces.append(grown)
    return {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}, list(dict.fromkeys(merges))


def _sentencepiece(specials: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    return _bpe([*specials, *(f"<0x{byte:02X}>" for byte in range(256))], SPACE)


def _bytes(end: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    return _bpe([end, *sorted(pre_tokenizers.ByteLevel.alphabet())], "\u0120")


def llama() -> PreTrainedTokenizerBase:
    """Return Llama 2's kind: BPE over SentencePiece's symbols, bytes for what it lacks, a space before every text."""
    vocabulary, merges = _sentencepiece(["<unk>", "<s>", "</s>"])
    return LlamaTokenizer(vocab=vocabulary, merges=merges, pad_token="</s>")


def mistral() -> PreTrainedTokenizerBase:
    """Return the kind of Mistral's ``tokenizer.json``: the space comes from a normalizer."""
    vocabulary, merges = _sentencepiece(["<unk>", "<s>", "</s>"])
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    made.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **specials)


def phi3() -> PreTrainedTokenizerBase:
    """Return Phi-3's kind: Llama's, with tokens for turns that swallow the white space after them."""
    made = llama()
    turns = [AddedToken(item, rstrip=True, special=True) for item in ("<|user|>", "<|assistant|>", "<|end|>")]
    made.add_special_tokens({"additional_special_tokens": turns})
    made.chat_template = (
        "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}<|assistant|>\n"
    )
    return made


def gemma() -> PreTrainedTokenizerBase:
    """Return Gemma's kind: SentencePiece's symbols without a space before the text."""
    vocabulary, merges = _sentencepiece(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    return GemmaTokenizer(vocab=vocabulary, merges=merges)


def t5() -> PreTrainedTokenizerBase:
    """Return T5's kind: a unigram model; line ends are spaces to it."""
    words = [(SPACE + word, -2.0) for word in WORDS] + [(word, -3.0) for word in WORDS]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (SPACE, -4.0), *words]
    known = {piece for piece, _ in pieces}
    return T5Tokenizer(vocab=pieces + [(item, -6.0) for item in CHARACTERS if item not in known], extra_ids=0)


def gpt2() -> PreTrainedTokenizerBase:
    """Return GPT-2's byte-level BPE."""
    vocabulary, merges = _bytes("<|endoftext|>")
    return GPT2Tokenizer(vocab=vocabulary, merges=merges, pad_token="<|endoftext|>")


def gpt2_with_prefix() -> PreTrainedTokenizerBase:
    """Return byte-level BPE that puts a space before every text."""
    vocabulary, merges = _bytes("<|endoftext|>")
    return GPT2Tokenizer(vocab=vocabulary, merges=merges, pad_token="<|endoftext|>", add_prefix_space=True)


def qwen2() -> PreTrainedTokenizerBase:
    """Return Qwen2's byte-level BPE."""
    vocabulary, merges = _bytes("<|endoftext|>")
    return Qwen2Tokenizer(vocab=vocabulary, merges=merges)


def bert() -> PreTrainedTokenizerBase:
    """Return BERT's WordPiece, which knows no white space but that between words."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *CHARACTERS, *(f"##{item}" for item in CHARACTERS)]
    return BertTokenizer(vocab={piece: at for at, piece in enumerate(dict.fromkeys(pieces))}, do_lower_case=False)


Build = Callable[[], PreTrainedTokenizerBase]
SENTENCEPIECE: dict[str, Build] = {"llama": llama, "mistral": mistral, "phi3": phi3}
BYTE_LEVEL: dict[str, Build] = {"gpt2": gpt2, "qwen2": qwen2}
LOSSLESS = {**SENTENCEPIECE, "gemma": gemma, **BYTE_LEVEL, "gpt2-prefix": gpt2_with_prefix}
ALL = {**LOSSLESS, "t5": t5, "bert": bert}
