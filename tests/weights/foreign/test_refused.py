"""Malformed and hostile adapters: each gives its own clear error, and nothing of it is run or believed."""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from icmlora_cli.errors import CorruptFileError, IcmloraError, NotFoundError, UnsupportedAdapterError, WrongBaseError
from icmlora_cli.weights.foreign.check import check_name
from icmlora_cli.weights.foreign.config import read_settings

if TYPE_CHECKING:
    from tests.weights.foreign.conftest import Tiny

MODULE = "model.layers.0.self_attn.q_proj"
KEY = f"base_model.model.{MODULE}.lora_A.weight"
OTHER = KEY.replace("lora_A", "lora_B")
WEIGHTS, CONFIG, PICKLE = "adapter_model.safetensors", "adapter_config.json", "adapter_model.bin"
Change = Callable[[Path], None]


def config(**values: object) -> Change:
    def change(folder: Path) -> None:
        known = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(known | values))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def apply(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS)

    return apply


def renamed(**names: str) -> Change:
    """Give the two factors other names."""

    def change(found: dict[str, torch.Tensor]) -> None:
        found[names["a"]], found[names["b"]] = found.pop(KEY), found.pop(OTHER)

    return tensors(change)


def text(name: str, value: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(value.encode() if isinstance(value, str) else value) and None


def header(value: object, body: bytes = b"") -> Change:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return text(WEIGHTS, struct.pack("<Q", len(raw)) + raw + body)


def truncated(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-40])


def zipped(folder: Path) -> None:
    torch.save({KEY: torch.ones(2, 32)}, folder / WEIGHTS)
    assert zipfile.is_zipfile(folder / WEIGHTS)


def only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / PICKLE)
    (folder / WEIGHTS).unlink()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.mark,)


def entry(shape: tuple[int, ...], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def too_large(found: dict[str, torch.Tensor]) -> None:
    for name in found:
        found[name] = torch.full_like(found[name], 1e30)


FAULTS: dict[str, tuple[Change, type[IcmloraError], str]] = {
    "truncated": (truncated, CorruptFileError, r"has [\d,]+ bytes, and its header describes"),
    "empty": (text(WEIGHTS, b""), CorruptFileError, "too few for a header"),
    "header bomb": (text(WEIGHTS, struct.pack("<Q", 1 << 40) + b"{}"), CorruptFileError, "claims a header of"),
    "header past the end": (text(WEIGHTS, struct.pack("<Q", 5000) + b"{}"), CorruptFileError, "fewer than its header"),
    "header no JSON": (header(b"{" * 5000), CorruptFileError, "the header of .* is broken"),
    "header twice": (header(b'{"a": {}, "a": {}}'), CorruptFileError, "a name is there twice"),
    "header a list": (header([1, 2]), CorruptFileError, "not a JSON object"),
    "entry broken": (header({KEY: {"dtype": "F32"}}), CorruptFileError, "the entry of .* is broken"),
    "overlapping": (
        header({KEY: entry((2, 4), 0, 32), OTHER: entry((4, 2), 16, 48)}, bytes(48)),
        CorruptFileError,
        "are not where its shape",
    ),
    "fp8": (header({KEY: entry((2, 4), 0, 8, "F8_E4M3")}, bytes(8)), UnsupportedAdapterError, "dtype F8_E4M3"),
    "NaN": (tensors(lambda found: found[KEY].fill_(float("nan"))), CorruptFileError, "NaN or infinity"),
    "too large": (tensors(too_large), CorruptFileError, "too large for fp32"),
    "missing B": (tensors(lambda found: found.pop(OTHER)), CorruptFileError, "has no lora_B: half of a pair"),
    "missing A": (tensors(lambda found: found.pop(KEY)), CorruptFileError, "has no lora_A: half of a pair"),
    "no tensors": (tensors(lambda found: found.clear()), CorruptFileError, "holds no tensors"),
    "flattened": (
        tensors(lambda found: found.update({KEY: torch.zeros(0), OTHER: torch.zeros(0)})),
        CorruptFileError,
        "both should be matrices",
    ),
    "ranks differ": (
        tensors(lambda found: found.update({KEY: torch.ones(3, 32)})),
        CorruptFileError,
        "their ranks differ",
    ),
    "rank not of the config": (config(r=3), CorruptFileError, "have rank 4, and adapter_config.json says 3"),
    "wrong shape": (
        tensors(lambda found: found.update({KEY: torch.ones(4, 48)})),
        WrongBaseError,
        "the base's is 32 x 32",
    ),
    "wrong module": (
        renamed(
            a=KEY.replace("model.layers.0", "transformer.h.0"), b=OTHER.replace("model.layers.0", "transformer.h.0")
        ),
        WrongBaseError,
        "the base has no module transformer.h.0",
    ),
    "traversal": (
        renamed(a=KEY.replace(MODULE, "../../etc/passwd"), b=OTHER.replace(MODULE, "../../etc/passwd")),
        CorruptFileError,
        "does not name a module",
    ),
    "pickle": (only_pickle, UnsupportedAdapterError, "a Python pickle, which can run code"),
    "zip in disguise": (zipped, UnsupportedAdapterError, "is a zip archive"),
    "pickle in disguise": (
        text(WEIGHTS, pickle.dumps({"a": 1}, 4)),
        UnsupportedAdapterError,
        "a Python pickle under another",
    ),
    "gguf in disguise": (
        text(WEIGHTS, b"GGUF\x03\x00\x00\x00" + bytes(64)),
        UnsupportedAdapterError,
        "llama.cpp adapter",
    ),
    "kohya": (
        renamed(a="lora_unet_x.lora_down.weight", b="lora_unet_x.lora_up.weight"),
        UnsupportedAdapterError,
        "a Kohya or ComfyUI LoRA",
    ),
    "diffusers": (
        renamed(a="unet.to_q.lora_A.weight", b="unet.to_q.lora_B.weight"),
        UnsupportedAdapterError,
        "a LoRA of an image model",
    ),
    "mlx": (
        renamed(a="model.layers.0.q.lora_a", b="model.layers.0.q.lora_b"),
        UnsupportedAdapterError,
        "an MLX adapter",
    ),
    "no prefix": (renamed(a="q.lora_A.weight", b="q.lora_B.weight"), CorruptFileError, "does not begin with"),
    "variant": (
        tensors(lambda found: found.update({KEY.replace("lora_A.weight", "lora_diag"): torch.ones(4)})),
        UnsupportedAdapterError,
        "a variant of LoRA",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), NotFoundError, "there is no adapter_model.safetensors"),
    "rank 10^9": (config(r=10**9), CorruptFileError, "r is 1000000000: a LoRA's rank is"),
    "rank pattern 10^9": (config(rank_pattern={"q_proj": 10**9}), CorruptFileError, "rank_pattern: .* 1 to 16384"),
    "rank a text": (config(r="many"), CorruptFileError, "r is many, not a finite number"),
    "alpha NaN": (config(lora_alpha=float("nan")), CorruptFileError, "lora_alpha is nan"),
    "slow expression": (config(alpha_pattern={"(a{300}){300}": 3}), CorruptFileError, "too large a one"),
    "broken expression": (config(alpha_pattern={"[": 3}), CorruptFileError, "no regular expression"),
    "config no JSON": (text(CONFIG, "{"), CorruptFileError, "not valid JSON"),
    "config too deep": (text(CONFIG, '{"a":' + "[" * 100_000), CorruptFileError, "nested too deep|not valid JSON"),
    "config bomb": (text(CONFIG, " " * (5 << 20) + "{}"), CorruptFileError, "at most 4,194,304 are read"),
    "no peft_type": (config(peft_type=None), CorruptFileError, "names no peft_type"),
    "LoHa": (config(peft_type="LOHA"), UnsupportedAdapterError, "is a LOHA adapter"),
    "mlx config": (text(CONFIG, '{"fine_tune_type": "lora"}'), UnsupportedAdapterError, "MLX adapter, not PEFT"),
    "PiSSA": (
        config(init_lora_weights="pissa_niter_4"),
        UnsupportedAdapterError,
        "relative to a base that pissa altered",
    ),
    "aLoRA": (config(alora_invocation_tokens=[1, 2]), UnsupportedAdapterError, "alora_invocation_tokens is set"),
    "saved module missing": (config(modules_to_save=["lm_head"]), CorruptFileError, "modules_to_save names lm_head"),
    "modules_to_save a number": (
        config(modules_to_save=3),
        CorruptFileError,
        "modules_to_save is not a list",
    ),
    "DoRA without magnitudes": (config(use_dora=True), CorruptFileError, "has no lora_magnitude_vector"),
}


@pytest.fixture
def good(llama: "Tiny", write_lora: Callable[..., Path], tmp_path: Path) -> Path:
    rng = torch.Generator().manual_seed(0)
    pair = {KEY: torch.randn(4, 32, generator=rng), OTHER: torch.randn(32, 4, generator=rng)}
    return write_lora(tmp_path / "lora", pair, r=4, target_modules=[MODULE])


def test_each_fault_gives_its_own_error(llama: "Tiny", good: Path, tmp_path: Path) -> None:
    """One test for all, as the folder is the same: a failure names its fault."""
    llama.take(good)
    kept = {path.name: path.read_bytes() for path in good.iterdir()}
    told: dict[str, str] = {}
    for fault, (change, kind, pattern) in FAULTS.items():
        for path in good.iterdir():
            path.unlink()
        for name, data in kept.items():
            (good / name).write_bytes(data)
        change(good)
        with pytest.raises(IcmloraError, match=pattern) as caught:
            llama.take(good)
        assert type(caught.value) is kind, fault
        assert caught.value.where and caught.value.hint and caught.value.exit_code == 1, fault
        told[fault] = caught.value.message
    assert len(told) >= 20 and len(set(told.values())) == len(told)


def test_a_pickle_is_read_only_where_it_is_allowed_and_holds_tensors_alone(
    llama: "Tiny", good: Path, tmp_path: Path
) -> None:
    wanted, _ = llama.take(good)
    only_pickle(good)
    adapter, _ = llama.take(good, allow_pickle=True)
    assert torch.equal(adapter.factors[MODULE].lora_a, wanted.factors[MODULE].lora_a)
    torch.save({KEY: torch.ones(1, 1).expand(10**9, 10**9)}, good / PICKLE)  # 4 bytes that claim to be 4 exabytes
    with pytest.raises(UnsupportedAdapterError, match="not stored whole"):
        llama.take(good, allow_pickle=True)
    (good / PICKLE).write_bytes(b"")
    with pytest.raises(CorruptFileError, match="is damaged"):
        llama.take(good, allow_pickle=True)
    mark = tmp_path / "ran"
    torch.save({KEY: Evil(str(mark))}, good / PICKLE)
    with pytest.raises(CorruptFileError, match="holds more than tensors"):
        llama.take(good, allow_pickle=True)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("named", "fits"),
    [
        ("", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("/data/models/smollm2-135m-instruct/", True),
        ("C:\\models\\SmolLM2-135M-Instruct", True),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", False),
        ("HuggingFaceTB/SmolLM2-135M", False),
    ],
)
def test_the_bases_name_is_compared(good: Path, named: str, fits: bool) -> None:
    config(base_model_name_or_path=named)(good)
    names = ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct")
    if fits:
        check_name(read_settings(good), names, str(good))
        return
    with pytest.raises(WrongBaseError, match="is for HuggingFaceTB") as caught:
        check_name(read_settings(good), names, str(good))
    assert "--any-base-name" in str(caught.value.hint)
