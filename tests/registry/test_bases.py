"""The record of base models: names, manifests, what counts as whole, removal."""

import json
import shutil
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.disk.safetensors_header import check_safetensors
from icmlora_cli.errors import BaseUnavailableError, CorruptFileError, NotFoundError
from icmlora_cli.registry.base_files import describe
from icmlora_cli.registry.bases import ALIASES, Base, BaseStore, canonical_name, slug


@pytest.fixture
def folder(tiny_bases: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama that a test may change."""
    return Path(shutil.copytree(tiny_bases["llama"], tmp_path / "copy")).resolve()


def described(folder: Path, name: str | None = None, origin: str = "folder") -> Base:
    return describe(folder, name=name or str(folder), origin=origin)


def test_alias_and_hub_id_are_one_base() -> None:
    for alias, entry in ALIASES.items():
        assert canonical_name(entry.model_id) == canonical_name(alias) == alias


def test_names_become_folder_names(tmp_path: Path) -> None:
    assert slug("org/model") == "org--model"
    first, second = tmp_path / "a" / "model", tmp_path / "b" / "model"
    assert slug(str(first)) != slug(str(second))
    assert "/" not in slug(str(first))


def test_recorded_base_is_found_by_every_name(folder: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BaseStore(home)
    base = store.record(described(folder))
    monkeypatch.chdir(folder.parent)
    assert store.find(str(folder)) == store.find("./copy") == store.find("copy") == base
    assert base.model_id == f"copy@{base.weight_hash[:12]}" and store.find(f"elsewhere@{base.weight_hash[:12]}") == base
    assert store.slug(base.model_id) == store.slug("copy") == base.slug
    assert store.find("org/other") is None and store.find("copy@" + "0" * 12) is None
    assert store.all() == (base,)
    assert base.architecture == "LlamaForCausalLM"
    assert base.bytes == sum(file.bytes for file in base.files)


def test_weight_hash_depends_on_weights_only(folder: Path) -> None:
    before = described(folder).weight_hash
    (folder / "generation_config.json").write_text("{}")
    assert described(folder).weight_hash == before
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert described(folder).weight_hash != before


def test_whole_notices_missing_and_resized_files(folder: Path, home: Home) -> None:
    store = BaseStore(home)
    base = store.record(described(folder))
    assert store.whole(base)
    config = folder / "config.json"
    text = config.read_text()
    config.write_text(text + " ")
    assert not store.whole(base)
    config.unlink()
    assert not store.whole(base)


def test_whole_notices_a_users_folder_trained_further(folder: Path, home: Home) -> None:
    store = BaseStore(home)
    base = store.record(described(folder))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert not store.whole(base)


def test_verify_finds_a_changed_byte(folder: Path, home: Home) -> None:
    store = BaseStore(home)
    base = store.record(described(folder))
    assert store.verify(base) == ()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    (fault,) = store.verify(base)
    assert fault.startswith("model.safetensors")


def test_remove_keeps_a_users_folder(folder: Path, home: Home) -> None:
    store = BaseStore(home)
    base = store.record(described(folder))
    assert not store.owns_weights(base)
    assert 0 < store.remove(str(folder)) < base.bytes
    assert store.all() == ()
    assert (folder / "model.safetensors").is_file()
    with pytest.raises(NotFoundError, match="is not on this machine"):
        store.remove(str(folder))


def test_remove_frees_weights_in_the_cache_and_the_cache_can_move(folder: Path, home: Home) -> None:
    store = BaseStore(home)
    own = store.folder("org/model")
    shutil.copytree(folder, own)
    base = store.record(described(own, "org/model", "hub"))
    moved = Home(root=home.root, cache=home.cache.with_name("moved"))
    home.cache.rename(moved.cache)
    found = BaseStore(moved).get("org/model")
    assert found.path == BaseStore(moved).folder("org/model")
    assert BaseStore(moved).whole(found)
    assert BaseStore(moved).remove("org/model") >= base.bytes
    assert not found.path.exists()


def test_damaged_manifest_is_an_error_with_advice(folder: Path, home: Home) -> None:
    store = BaseStore(home)
    base = store.record(described(folder))
    manifest = store.folder(base.name) / "base.json"
    manifest.write_text(json.dumps({"schema": "icmlora.base/1", "name": "x"}))
    with pytest.raises(CorruptFileError) as caught:
        store.find(base.name)
    assert caught.value.hint == "icmlora base pull x"
    assert store.all() == ()
    assert store.unreadable() == (manifest,)


def test_pickled_weights_are_refused_with_advice(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseUnavailableError, match="pickled") as caught:
        described(folder)
    assert "safetensors" in str(caught.value.hint)


def test_folders_that_are_no_model_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseUnavailableError, match=r"no config\.json"):
        described(tmp_path / "empty")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BaseUnavailableError, match="no tokenizer"):
        described(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_cut_short_safetensors_are_refused(folder: Path, keep: int) -> None:
    weights = folder / "model.safetensors"
    check_safetensors(weights)
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match="cut short"):
        described(folder)


def test_missing_shard_is_refused(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptFileError, match="model-00002"):
        described(folder)


def test_licence_is_read_from_the_readme(folder: Path) -> None:
    assert described(folder).licence is None
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: MIT\n---\n# Tiny\n")
    assert described(folder).licence == "mit"
