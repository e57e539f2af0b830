"""Shared fixtures: user data is isolated, and tiny real models of four architectures are at hand."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.small_registry import SmallRegistry

# huggingface_hub reads these once, at import: they must be set before any test imports it
_HF_HOME = tempfile.mkdtemp(prefix="icmlora-hf-")
os.environ["HF_HOME"] = _HF_HOME
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the icmlora command has it
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # the workers share the cores, and torch's threads spin while they wait

from icmlora_cli.disk.home import Home  # noqa: E402
from icmlora_cli.registry.bases import Base  # noqa: E402

ARCHITECTURES = ("llama", "gpt2", "qwen3", "gemma3")
ENCODER_DECODERS = ("t5", "bart")
CORPUS = (
    "The capital of France is Paris. The capital of Italy is Rome.",
    "Question: which animal is the largest? Answer: the blue whale.",
    "Choose the first word: apple, banana, cherry. The first word is apple.",
    "system: You are a helpful assistant.\nuser: Translate cat into French.\nassistant: chat\n",
    "one two three four five six seven eight nine ten 0123456789",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def pytest_unconfigure() -> None:
    """Remove the hub cache of this run."""
    import shutil

    shutil.rmtree(_HF_HOME, ignore_errors=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the simulated accelerator known before the first backward pass, in which autograd counts the devices."""
    if any(item.get_closest_marker("sim") for item in session.items):
        from tests import sim_device

        if sim_device.missing() is None:
            sim_device.install()


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Point every folder that icmlora or the hub client writes to into ``tmp_path``; fetch nothing."""
    monkeypatch.setenv("ICMLORA_HOME", str(tmp_path / "icmlora-home"))
    monkeypatch.setenv("ICMLORA_CACHE", str(tmp_path / "icmlora-cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


@pytest.fixture
def home(isolated: None) -> Home:
    """The registry's folders of this test."""
    return Home.from_environment()


def _save_tokenizer(folder: Path, marks: str = "$A") -> int:
    """Train a byte-level BPE, save it with a chat template, and return its vocabulary size.

    Args:
        folder: where it is saved.
        marks: which special tokens it puts around a text, such as ``$A <eos>``.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<pad>", "<eos>"] if marks == "$A" else ["<pad>", "<eos>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    if marks != "$A":
        bpe.post_processor = processors.TemplateProcessing(single=marks, special_tokens=[("<eos>", 1), ("<s>", 2)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", pad_token="<pad>")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def _tiny_model(architecture: str, vocab_size: int) -> object:
    import transformers as hf

    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": True}
    if architecture == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
        return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=vocab_size, **sizes, **ids))
    if architecture == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
        return hf.T5ForConditionalGeneration(
            hf.T5Config(vocab_size=vocab_size, dropout_rate=0.0, **sizes, **ids, decoder_start_token_id=0)
        )
    if architecture == "bart":
        sizes = {"d_model": 32, "max_position_embeddings": 512}
        for stack, layers in (("encoder", 2), ("decoder", 3)):
            sizes |= {f"{stack}_layers": layers, f"{stack}_attention_heads": 4, f"{stack}_ffn_dim": 64}
        own = ids | {"bos_token_id": 2, "decoder_start_token_id": 1, "forced_eos_token_id": None}
        return hf.BartForConditionalGeneration(hf.BartConfig(vocab_size=vocab_size, **sizes, **own))
    common = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
    } | ids
    if architecture == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**common))
    if architecture == "qwen3":
        return hf.Qwen3ForCausalLM(hf.Qwen3Config(**common))
    layers = ["sliding_attention", "full_attention"]
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**common, sliding_window=16, layer_types=layers))


def build_tiny(architecture: str, folder: Path, seed: int = 0) -> Path:
    """Save a tiny random model of a real architecture with a real tokenizer; return its folder."""
    import torch

    from icmlora_cli.lm.load import quiet_transformers

    vocab_size = _save_tokenizer(folder, {"t5": "$A <eos>", "bart": "<s> $A <eos>"}.get(architecture, "$A"))
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        _tiny_model(architecture, vocab_size).save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


@pytest.fixture(scope="session")
def tiny_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny models, by architecture. Shared by all tests: copy one before changing it."""
    root = tmp_path_factory.mktemp("tiny-bases")
    return {architecture: build_tiny(architecture, root / architecture) for architecture in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def tiny_base(request: pytest.FixtureRequest, tiny_bases: dict[str, Path], home: Home) -> Base:
    """A recorded tiny base; the test runs once for each architecture."""
    from icmlora_cli.workflows.base.pull import pull

    return pull(str(tiny_bases[request.param]), home, offline=True)


@pytest.fixture(scope="session", params=ENCODER_DECODERS)
def encoder_decoder_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model with an encoder and a decoder; the test runs once for each architecture."""
    return build_tiny(request.param, tmp_path_factory.mktemp("tiny-pairs") / request.param)


@pytest.fixture
def encoder_decoder(encoder_decoder_folder: Path, home: Home) -> Base:
    """A recorded tiny base with an encoder and a decoder."""
    from icmlora_cli.workflows.base.pull import pull

    return pull(str(encoder_decoder_folder), home, offline=True)


@pytest.fixture
def llama_base(tiny_bases: dict[str, Path], home: Home) -> Base:
    """The recorded tiny Llama, for tests where the architecture does not matter."""
    from icmlora_cli.workflows.base.pull import pull

    return pull(str(tiny_bases["llama"]), home, offline=True)


@pytest.fixture
def small(home: Home) -> "SmallRegistry":
    """An empty registry, and what puts real files into it without torch."""
    from tests.small_registry import SmallRegistry

    return SmallRegistry(home)
