"""Finding generators: by name, by folder, and the bundled one until a default is trained."""

import json
from pathlib import Path

import pytest

from icmlora_cli.disk import temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import NotFoundError
from icmlora_cli.provenance import local_paths
from icmlora_cli.registry import generators
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.registry.upkeep import checks
from icmlora_cli.registry.upkeep.findings import REPAIR
from icmlora_cli.report.card_check import check_card

MOST = 5_000_000  # bytes that a wheel may carry of it


def test_the_bundled_generator_is_whole_small_and_names_no_path_of_a_machine() -> None:
    folder = generators.bundled()
    assert checks.generator_flaws(folder) == []
    assert sum(path.stat().st_size for path in folder.iterdir()) < MOST
    check_card(folder / generators.CARD)
    about = json.loads((folder / generators.CONFIG).read_text(encoding="utf-8"))
    assert about["base"]["name"] == "smollm2-135m" and about["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert local_paths.clean(about, ()) == about


def test_it_takes_the_place_of_a_default_that_is_not_there(home: Home) -> None:
    store, folder = GeneratorStore(home), generators.bundled()
    assert store.find("default") == store.find("bundled") == store.find(str(folder)) == folder
    with pytest.raises(NotFoundError, match="no generator 'mine'"):
        store.find("mine")
    own = home.generators / "default"
    own.mkdir(parents=True)
    (own / generators.CONFIG).write_text("{}", encoding="utf-8")
    assert store.find("default") == own and store.find("bundled") == folder


def test_a_default_that_was_set_aside_is_mended_and_not_replaced(home: Home) -> None:
    home.generators.mkdir(parents=True)
    aside = temporary.beside(home.generators / "default", "old")
    aside.mkdir()
    (aside / generators.CONFIG).write_text("{}", encoding="utf-8")
    with pytest.raises(NotFoundError) as found:
        GeneratorStore(home).find("default")
    assert found.value.hint == REPAIR


def test_a_copy_without_one_says_so(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generators, "__file__", str(tmp_path / "registry" / "generators.py"))
    with pytest.raises(NotFoundError, match="no generator 'default'"):
        GeneratorStore(home).find("default")
    with pytest.raises(NotFoundError, match="no bundled generator"):
        generators.bundled()
