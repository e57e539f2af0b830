"""A base of 8B is planned for from its config.json alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import BaseUnavailableError, SpecError, UsageError
from icmlora_cli.registry.bases import Base
from icmlora_cli.workflows.plan.phases import PlanOptions
from icmlora_cli.workflows.plan.plan import run
from icmlora_cli.workflows.plan.sources import kind_of, read_size

GB = 10**9
OPTIONS = PlanOptions(
    tasks=50, tokens=64, answer=8, device_memory=80 * GB, dtype="bfloat16", tflops=989.0, utilisation=0.3
)
LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
PARAMETERS = 8_030_261_248  # of Llama 3.1 8B, as its model card's files have them


@pytest.fixture
def config_only(tmp_path: Path) -> Path:
    folder = tmp_path / "llama-8b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return folder


def recipe_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / f"recipe-{len(list(tmp_path.glob('recipe-*')))}.yaml"
    path.write_text(text)
    return path


def test_an_8b_base_on_paper(config_only: Path, home: Home) -> None:
    plan = run([Path("harvest/frame"), Path("train/llama-8b")], str(config_only), OPTIONS, home)
    assert (plan.architecture, plan.parameters, plan.modules) == ("LlamaForCausalLM", PARAMETERS, 64)
    assert not list(home.cache.glob("bases/*")) and plan.fits
    harvest, train, gen = plan.phases
    assert [phase.name for phase in plan.phases] == ["harvest", "train", "gen"]
    assert harvest.weights == train.weights == gen.weights == pytest.approx(2 * PARAMETERS, rel=1e-4)
    assert harvest.numbers == 64 * 16 * 16
    # forward and backward are two products of each weight with each token, but for the embedding and most logits
    products = PARAMETERS - 2 * 128256 * 4096
    step = 4 * products * 12 * 64
    assert harvest.flops == pytest.approx(50 * (100 * step + 64 * step / 2 / 12), rel=0.05)
    assert harvest.hours == pytest.approx(harvest.flops / (989e12 * 0.3) / 3600)
    assert train.rows == 48 and train.optimiser == 12 * train.numbers and train.readings > 0
    assert gen.flops == pytest.approx(2 * products * 64, rel=0.1)


def test_what_fits_is_told_by_rows(config_only: Path, home: Home, tmp_path: Path) -> None:
    (config_only / "config.json").write_text(json.dumps(LLAMA_8B | {"num_hidden_layers": 3}))
    small = replace(OPTIONS, device_memory=5 * GB)
    plan = run([recipe_file(tmp_path, "batch_size: 64\n")], str(config_only), small, home)
    harvest = plan.phases[0]
    assert not harvest.fits and not plan.fits and 1 < harvest.most_rows < 64
    fitting = recipe_file(tmp_path, f"batch_size: {harvest.most_rows}\n")
    assert run([fitting], str(config_only), small, home).phases[0].fits
    over = recipe_file(tmp_path, f"batch_size: {round(1.2 * harvest.most_rows)}\n")
    assert not run([over], str(config_only), small, home).phases[0].fits
    none = run([fitting], str(config_only), replace(OPTIONS, device_memory=3 * GB), home).phases[0]
    assert none.most_rows == 0 and not none.fits


def test_a_recorded_base_and_every_architecture_of_generator(tiny_base: Base, home: Home, tmp_path: Path) -> None:
    options = replace(OPTIONS, tokens=32, dtype="float32")
    for arch in ("token", "conv1d", "p-diff"):
        plan = run([recipe_file(tmp_path, f"network: {{arch: {arch}}}\n")], tiny_base.name, options, home)
        assert plan.fits and all(phase.flops > 0 and phase.bytes > phase.weights > 0 for phase in plan.phases)
        assert plan.harvest == "harvest/default"


def test_faults_are_told(config_only: Path, home: Home, tmp_path: Path, llama_base: Base) -> None:
    with pytest.raises(UsageError, match="both recipes of harvest"):
        run([Path("harvest/frame"), Path("harvest/default")], str(config_only), OPTIONS, home)
    with pytest.raises(UsageError, match="a recipe of eval has nothing"):
        run([Path("eval/quick")], str(config_only), OPTIONS, home)
    with pytest.raises(UsageError, match="not the whole name") as caught:
        run([Path("llama-8b")], str(config_only), OPTIONS, home)
    assert caught.value.hint == "icmlora plan harvest/llama-8b train/llama-8b"
    with pytest.raises(SpecError):
        run([recipe_file(tmp_path, "rank: 4\nbatch_size: many\n")], str(config_only), OPTIONS, home)
    with pytest.raises(UsageError, match="longer than what the base reads: 512"):
        run([Path("harvest/frame")], llama_base.name, replace(OPTIONS, tokens=513), home)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseUnavailableError, match=r"no config\.json") as missing:
        run([Path("harvest/frame")], str(tmp_path / "empty"), OPTIONS, home)
    assert "config.json" in str(missing.value.hint)
    with pytest.raises(BaseUnavailableError, match=r"no config\.json of nobody/nothing"):
        run([Path("harvest/frame")], "nobody/nothing", OPTIONS, home, offline=True)


def test_kinds_and_sizes(tmp_path: Path) -> None:
    assert kind_of(Path("train/llama-8b")) == "train" and kind_of(Path("harvest/demo")) == "harvest"
    assert kind_of(recipe_file(tmp_path, "data: {basis: frame}\nseed: 1\n")) == "train"
    assert kind_of(recipe_file(tmp_path, "steps: 3\nseed: 1\n")) == "harvest"
    assert [read_size(text) for text in ("80GB", "24 GiB", "1000", "1.5mb")] == [80 * GB, 24 * 2**30, 1000, 1_500_000]
    for text in ("", "0GB", "80 giraffes", "-3GB"):
        with pytest.raises(UsageError, match="is no size"):
            read_size(text)
