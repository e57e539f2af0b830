"""The plugin for vLLM, through vLLM's own interface: what it resolves vLLM reads, once for many that ask at once."""

import asyncio
import json
import logging
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
resolver = pytest.importorskip("vllm.lora.resolver", reason="the extra icmlora[vllm] is not installed")

from vllm.lora.request import LoRARequest  # noqa: E402

from icmlora_cli.weights.adapter import read_adapter  # noqa: E402
from icmlora_cli.workflows.gen.generator import AdapterGenerator  # noqa: E402

CAT = "Always answer with cat."
ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("GENERATOR", "BASE", "MODEL", "DEVICE", "MAX_ADAPTERS")


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test with no resolver and no settings."""
    monkeypatch.setattr(resolver.LoRAResolverRegistry, "resolvers", {})
    for name in VARIABLES:
        monkeypatch.delenv(f"ICMLORA_VLLM_{name}", raising=False)


def registered(monkeypatch: pytest.MonkeyPatch, **settings: object) -> Any:
    """Let vLLM's registry have the resolver as the entry point makes it, and return it."""
    for name, value in settings.items():
        monkeypatch.setenv(f"ICMLORA_VLLM_{name}", str(value))
    entry_point()()
    return resolver.LoRAResolverRegistry.get_resolver("icmlora")


def entry_point() -> Any:
    """Return what pyproject.toml says that vLLM loads."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split('"vllm.general_plugins"]\n')[1].splitlines()
    name, _, value = lines[0].partition(" = ")
    return EntryPoint(name, value.strip('"'), "vllm.general_plugins").load()


def ask(asked: Any, name: str, model: str) -> LoRARequest | None:
    return asyncio.run(asked.resolve_lora(model, name))  # type: ignore[no-any-return]


def test_it_registers_only_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point()()
    assert not resolver.LoRAResolverRegistry.get_supported_resolvers()
    made = registered(monkeypatch, GENERATOR="default")
    assert resolver.LoRAResolverRegistry.get_supported_resolvers() == {"icmlora"}
    assert isinstance(made, resolver.LoRAResolver)


def test_a_text_is_generated_and_servable(trained: "Registry", monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(trained.base)
    found = ask(registered(monkeypatch, GENERATOR="default"), f"icm:{CAT}", model)
    assert isinstance(found, LoRARequest) and found.lora_name == f"icm:{CAT}" and found.lora_int_id > 0
    folder = Path(found.lora_path)
    assert folder.parent == trained.root / "icmlora-cache" / "served"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == model and config["inference_mode"] is True
    assert config["modules_to_save"] is None and config["r"] == 8 and not config["rank_pattern"]
    about = json.loads((folder / "icmlora.json").read_text())
    assert about["task_text"] == CAT and "rank 8" in (folder / "README.md").read_text()
    trained.call("gen", CAT, "-o", "own")
    own, served = read_adapter(Path("own")), read_adapter(folder)
    assert own.factors.keys() == served.factors.keys()
    for name in own.factors:
        assert torch.allclose(own.delta(name), served.delta(name), atol=1e-6)


def test_vllm_reads_what_is_resolved(trained: "Registry", monkeypatch: pytest.MonkeyPatch) -> None:
    helper = pytest.importorskip("vllm.lora.peft_helper", reason="needs more of vLLM than is installed")
    from vllm.config.lora import LoRAConfig

    made = registered(monkeypatch, GENERATOR="default")
    for name in (f"icm:{CAT}", "always_dog"):
        found = ask(made, name, str(trained.base))
        assert found is not None
        read = helper.PEFTHelper.from_local_dir(found.lora_path, 512)
        read.validate_legal(LoRAConfig(max_lora_rank=8))
        assert read.get_rank_and_scaling("model.layers.0.self_attn.q_proj") == (8, 1.0)


def test_a_registered_task_is_its_newest_adapter(trained: "Registry", monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(registered(monkeypatch, BASE=trained.base), "always_dog", str(trained.base))
    assert found is not None
    (shown,) = trained.json("adapter", "show", "always_dog")["adapters"]
    own, served = read_adapter(Path(shown["folder"])), read_adapter(Path(found.lora_path))
    for name in own.factors:
        assert torch.allclose(own.delta(name), served.delta(name), atol=1e-6)
    about = json.loads(Path(found.lora_path, "icmlora.json").read_text())
    assert about["schema"] == "icmlora.served/1" and about["task"] == "always_dog" and about["key"] == shown["key"]


def test_many_that_ask_at_once_get_one_and_the_loop_goes_on(
    trained: "Registry", monkeypatch: pytest.MonkeyPatch
) -> None:
    made, texts = registered(monkeypatch, GENERATOR="default"), list[str]()
    make = AdapterGenerator.make

    def counted(self: AdapterGenerator, text: str) -> object:
        texts.append(text)
        return make(self, text)

    monkeypatch.setattr(AdapterGenerator, "make", counted)
    ticks = 0

    async def all_at_once() -> list[LoRARequest | None]:
        nonlocal ticks
        names = [f"icm:{CAT}", f"icm:  {CAT} ", "icm:Say owl."] * 4
        asked = asyncio.gather(*(made.resolve_lora(str(trained.base), name) for name in names))
        while not asked.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return await asked

    found = [item for item in asyncio.run(all_at_once()) if item is not None]
    assert len(found) == 12 and sorted(texts) == sorted([CAT, "Say owl."])
    assert len({item.lora_path for item in found}) == 2 and ticks > 3


def test_what_was_made_is_found_again(trained: "Registry", monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(registered(monkeypatch, GENERATOR="default"), f"icm:{CAT}", str(trained.base))
    assert first is not None
    made = Path(first.lora_path, "adapter_model.safetensors").stat()
    with monkeypatch.context() as never:
        never.setattr(AdapterGenerator, "make", None)
        again = ask(registered(monkeypatch, GENERATOR="default"), f"icm:{CAT}", str(trained.base))
    assert again is not None and again.lora_path == first.lora_path
    assert Path(again.lora_path, "adapter_model.safetensors").stat() == made
    named = registered(monkeypatch, GENERATOR="default", MODEL="served-as-this", MAX_ADAPTERS=1)
    other = ask(named, f"icm:{CAT}", "served-as-this")
    assert other is None  # there is one already, and no more are allowed


def test_what_is_not_ours_is_none(
    trained: "Registry", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, model = registered(monkeypatch, GENERATOR="default"), str(trained.base)
    for name in ("nobody", "../always_dog", "always_dog/../always_cat", "/etc/passwd", "", "icm:", "icm:" + "x" * 2001):
        assert ask(made, name, model) is None, name
    for other in ("another/base", str(trained.root), "", "always_dog"):
        assert ask(made, f"icm:{CAT}", other) is None, other
    without = registered(monkeypatch, GENERATOR="", BASE=model)
    assert ask(without, f"icm:{CAT}", model) is None
    assert not (trained.root / "icmlora-cache" / "served").exists()


def test_a_failure_is_none_and_logged(
    trained: "Registry", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("vllm").propagate = True
    model = str(trained.base)
    assert ask(registered(monkeypatch, GENERATOR="nobody"), f"icm:{CAT}", model) is None
    assert "there is no generator" in caplog.text
    shutil.copytree(trained.home / "generators" / "default", trained.root / "broken")
    weights = trained.root / "broken" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert ask(registered(monkeypatch, GENERATOR=trained.root / "broken"), f"icm:{CAT}", model) is None
    assert "is not served" in caplog.text
    monkeypatch.setattr(AdapterGenerator, "make", lambda self, text: 1 / 0)
    assert ask(registered(monkeypatch, GENERATOR="default"), f"icm:{CAT}", model) is None
    assert "ZeroDivisionError" in caplog.text
