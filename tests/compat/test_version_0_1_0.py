"""What version 0.1.0 wrote is still read: a registry as an archive, and the folders of gen, finetune, export, merge.

The base was the tiny Llama of ``tests.conftest``, which is made again here, under the name that it had then.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from icmlora_cli.disk import checksums, files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import PushRefusedError
from icmlora_cli.generator.checkpoint import load_generator
from icmlora_cli.manifests.base import BaseManifest
from icmlora_cli.manifests.generator import GeneratorManifest
from icmlora_cli.manifests.output import Exported, Finetuned, Generated, read_output
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.base_files import describe
from icmlora_cli.registry.bases import Base, BaseStore
from icmlora_cli.registry.generators import GeneratorStore, bundled
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.serving.sources import AdapterSources
from icmlora_cli.weights.adapter import read_adapter
from icmlora_cli.workflows import finetune
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenRequest
from icmlora_cli.workflows.merge import merge
from icmlora_cli.workflows.push import plan
from icmlora_cli.workflows.registry import import_archive, verify
from tests.conftest import build_tiny

WRITTEN = Path(__file__).parent / "0.1.0"
NAME = "/models/tiny"  # what the base was called
WEIGHT_HASH = "8d46fd1949d44677890dabff286d12441e46e1ea70cd84debfecda6f8ae08100"


@pytest.fixture
def base(home: Home, tmp_path: Path) -> Base:
    folder = build_tiny("llama", tmp_path / "tiny")
    base = BaseStore(home).record(describe(folder, name=NAME, model_id=NAME, origin="folder"))
    assert base.weight_hash == WEIGHT_HASH
    return base


@pytest.fixture
def registry(home: Home, base: Base) -> Home:
    import_archive.run(home, WRITTEN / "all.tar.zst")
    return home


def test_its_registry_is_imported_and_whole(registry: Home, base: Base) -> None:
    assert TaskStore(registry).names() == ("say_cat", "say_dog")
    records = AdapterStore(registry).all()
    assert [record.task for record in records] == ["say_cat", "say_cat", "say_dog"]
    (imported,) = [record for record in records if record.imported is not None]
    assert imported.about.licence == "other" and imported.imported is not None and imported.imported.files[0].sha256
    assert GeneratorStore(registry).manifest("small").base.weight_hash == base.weight_hash
    assert [fault for fault in verify.run(registry).faults if fault.severe] == []


def test_its_manifests_are_written_again_byte_for_byte(registry: Home) -> None:
    for record in AdapterStore(registry).all():
        path = record.folder / "manifest.json"
        before = path.read_bytes()
        AdapterStore(registry).record(record)
        assert path.read_bytes() == before
    path = registry.generators / "small" / "generator.json"
    whole = GeneratorManifest.read(path)
    assert files.json_bytes(checksums.with_checksum(whole.content())) == path.read_bytes()
    for folder in ("gen", "merged", "tuned", "exported"):
        path = WRITTEN / folder / "icmlora.json"
        assert files.json_bytes(read_output(path.parent).content()) == path.read_bytes()
    path = WRITTEN / "base" / "base.json"
    assert files.json_bytes(checksums.with_checksum(BaseManifest.read(path).content())) == path.read_bytes()
    path = bundled() / "generator.json"
    assert files.json_bytes(checksums.with_checksum(GeneratorManifest.read(path).content())) == path.read_bytes()


def test_its_generator_generates_what_it_did(registry: Home, base: Base, tmp_path: Path) -> None:
    out = tmp_path / "out"
    generate.run("Say cat.", out, GenRequest(registry.generators / "small", seed=3), base, registry, device="cpu")
    made, before = read_adapter(out), read_adapter(WRITTEN / "gen")
    for name in before.factors:
        assert torch.allclose(made.delta(name), before.delta(name), rtol=1e-3, atol=1e-6)
    now, then = (json.loads((folder / "icmlora.json").read_text(encoding="utf-8")) for folder in (out, WRITTEN / "gen"))
    assert list(now) == list(then) and now["generator"] == then["generator"] and now["sources"] == then["sources"]


def test_its_adapter_folders_are_read(registry: Home, base: Base, tmp_path: Path) -> None:
    kinds = (Generated, Finetuned, Exported)
    for folder, kind in zip(("gen", "tuned", "exported"), kinds, strict=True):
        parent = finetune.read_parent(WRITTEN / folder, base)
        assert isinstance(parent.held, kind) and parent.held.base.weight_hash == WEIGHT_HASH
        with pytest.raises(PushRefusedError, match="its base is '/models/tiny'"):  # read so far, and for nobody else
            plan.plan(str(WRITTEN / folder), registry)
    assert read_output(WRITTEN / "merged").merged is True
    merged = merge.run(merge.find_shares([(str(WRITTEN / "gen"), 0.5)], registry), tmp_path / "merged", base)
    assert merged.adapters[0].licence == "other"


def test_its_generated_adapter_is_trained_on(registry: Home, base: Base, tmp_path: Path) -> None:
    shutil.copyfile(WRITTEN / "few.jsonl", tmp_path / "few.jsonl")
    parent = WRITTEN / "gen"
    recipe = finetune.DEFAULTS.model_copy(update={"steps": 2})
    request = finetune.FinetuneRequest(tmp_path / "few.jsonl", recipe, parent)
    finetune.run(tmp_path / "tuned", request, base, device="cpu")
    held = read_output(tmp_path / "tuned")
    before = read_output(WRITTEN / "tuned")
    assert isinstance(held, Finetuned) and isinstance(before, Finetuned) and held.parent == before.parent
    assert list(held.content()) == list(before.content())


def test_its_adapters_are_served(registry: Home, base: Base) -> None:
    sources = AdapterSources(base, registry, load_generator(registry.generators / "small"))
    assert sources.tasks() == ("say_cat", "say_dog")
    assert sources.find("say_dog") is not None and sources.find("icm:Say cat.") is not None
