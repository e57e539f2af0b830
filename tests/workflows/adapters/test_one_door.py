"""Every command that takes a PEFT folder refuses what an import refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UnsupportedAdapterError, WrongBaseError
from icmlora_cli.lm.load import load_base
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.serving.engine import load_engine
from icmlora_cli.workflows.adapters.export import run as export
from icmlora_cli.workflows.adapters.facts import difference
from icmlora_cli.workflows.finetune import read_parent
from icmlora_cli.workflows.merge.merge import find_shares
from icmlora_cli.workflows.merge.merge import run as merge
from tests.peft_made import saved_by_peft

Opens = Callable[[Path, Base, Home, Path], object]
DOORS: dict[str, Opens] = {
    "serve": lambda folder, base, home, _: load_engine(base, home, adapters={"x": folder}, device="cpu"),
    "finetune": lambda folder, base, _home, _: read_parent(folder, base),
    "merge": lambda folder, base, home, out: merge(find_shares([(str(folder), 1.0)], home), out, base),
}
WITHOUT_A_BASE: dict[str, Opens] = {
    "diff": lambda folder, _base, home, _: difference(AdapterStore(home), str(folder), str(folder)),
    "export": lambda folder, base, home, out: export(
        str(folder), out.with_suffix(".gguf"), home, form="gguf", base=str(base.path)
    ),
}


@pytest.fixture
def pissa(llama_base: Base, tmp_path: Path) -> Path:
    model = load_base(llama_base, device="cpu").model
    return saved_by_peft(model, tmp_path / "pissa", target_modules=["q_proj"], init_lora_weights="pissa")


@pytest.mark.parametrize("command", [*DOORS, *WITHOUT_A_BASE])
def test_a_start_that_altered_the_base(command: str, pissa: Path, llama_base: Base, home: Home, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapterError, match="a base that pissa altered"):
        (DOORS | WITHOUT_A_BASE)[command](pissa, llama_base, home, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("command", list(DOORS))
def test_another_bases_adapter(command: str, llama_base: Base, home: Home, tmp_path: Path) -> None:
    model = load_base(llama_base, device="cpu").model
    folder = saved_by_peft(
        model, tmp_path / "other", target_modules=["q_proj"], base_model_name_or_path="meta-llama/Llama-3.1-8B"
    )
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(f'"{model.name_or_path}"', '"meta-llama/Llama-3.1-8B"'))
    with pytest.raises(WrongBaseError, match=r"is for meta-llama/Llama-3\.1-8B"):
        DOORS[command](folder, llama_base, home, tmp_path / "out")
