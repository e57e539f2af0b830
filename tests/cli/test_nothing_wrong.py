"""Nothing wrong is written: adapters that do not fit their base, or hold numbers that are not finite, get no file."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file, save_file

from icmlora_cli.disk import checksums, files
from icmlora_cli.disk.home import Home
from icmlora_cli.manifests.generator import GeneratorManifest
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import BaseStore

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

FORMS: tuple[tuple[str, ...], ...] = ((), ("--merge",), ("--format", "gguf"), ("--format", "gguf", "--merge"))


def refused(registry: "Registry", *arguments: object, match: str) -> None:
    """Run a command that must fail with one clear error, and leave nothing behind."""
    before = sorted(path.name for path in registry.root.iterdir())
    error = registry.json(*arguments, code=1)["error"]
    assert error["kind"] in {"CorruptFileError", "TrainingDivergedError"} and match in error["message"], error
    assert error["where"] and error["hint"], error
    assert sorted(path.name for path in registry.root.iterdir()) == before


def edit_generator(name: str | None = None, value: float | None = None) -> None:
    """Give the generator another name for a module, or a number, and seal it again."""
    folder = Home.from_environment().generators / "default"
    manifest = checksums.read_checked(folder / "generator.json", GeneratorManifest.known_keys())
    if name is not None:
        layout = files.as_object(manifest["layout"])
        modules = layout["modules"]
        assert isinstance(modules, list)
        modules[0][0] = name
    if value is not None:
        tensors = load_file(folder / "generator.safetensors")
        tensors["module_scale"].fill_(value)
        save_file(tensors, folder / "generator.safetensors", metadata={"format": "pt"})
        manifest["sha256"] = files.sha256_file(folder / "generator.safetensors")
    manifest.pop(checksums.KEY, None)
    checksums.write_manifest(folder / "generator.json", manifest)


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_gen_writes_no_adapter_of_another_base(trained: "Registry", form: tuple[str, ...]) -> None:
    edit_generator(name="model.layers.0.self_attn.query")
    refused(trained, "gen", "Say cat.", "-o", "out", *form, match="has no module model.layers.0.self_attn.query")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38], ids=str)
@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_gen_writes_no_number_that_is_not_finite(trained: "Registry", form: tuple[str, ...], value: float) -> None:
    edit_generator(value=value)
    refused(trained, "gen", "Say cat.", "-o", "out", *form, match="is not finite")


def test_export_checks_against_the_base(trained: "Registry") -> None:
    home = Home.from_environment()
    (base,) = BaseStore(home).all()
    record = next(item for item in AdapterStore(home).all() if item.task == "always_cat")
    config = files.read_json(base.path / "config.json")
    other = trained.root / "other"
    other.mkdir()
    files.write_json(other / "config.json", {**config, "hidden_size": 96, "num_attention_heads": 4, "head_dim": 24})
    to_gguf = ("adapter", "export", "always_cat", "--format", "gguf", "-o", "out.gguf", "--base", "other")
    refused(trained, *to_gguf, match="in the base and")
    assert record.last.is_dir() and not Path("out.gguf").exists()
    trained.call("adapter", "export", "always_cat", "-o", "out")
