"""A broken manifest is one clear error that names the file and the key, and takes no listing down."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from icmlora_cli.disk import checksums
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.adapter import AdapterManifest
from icmlora_cli.manifests.base import BaseManifest
from icmlora_cli.manifests.generator import GeneratorManifest
from icmlora_cli.manifests.output import read_output
from icmlora_cli.manifests.remains import read_remains
from icmlora_cli.manifests.task import TaskManifest
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.workflows.registry import storage, verify
from tests.small_registry import SmallRegistry

KINDS = (
    ("tasks/say_cat/task.json", TaskManifest),
    ("adapters/tiny/say_cat/0123456789ab/manifest.json", AdapterManifest),
    ("generators/default/generator.json", GeneratorManifest),
)
FAULTS: tuple[tuple[int, Mapping[str, object], str], ...] = (
    (0, {"splits": {"validation": 0.1, "test": "x"}}, "task.json is broken at splits.test"),
    (0, {"splits": {"validation": 0.1, "test": 7}}, "task.json is broken at splits.test"),
    (0, {"counts": {"train": -1}}, "task.json is broken at counts.train"),
    (0, {"schema": "icmlora.task/9"}, "task.json is broken at schema"),
    (0, {"descriptions": []}, "task.json is broken at descriptions"),
    (1, {"figures": {"seconds": "long"}}, "manifest.json is broken at figures.seconds"),
    (1, {"figures": {"loss": float("nan")}}, "manifest.json is broken at figures.loss: input should be a finite"),
    (1, {"figures": {"loss": float("inf")}}, "manifest.json is broken at figures.loss"),
    (1, {"checkpoints": []}, "manifest.json is broken at checkpoints"),
    (1, {"about": []}, "manifest.json is broken at about"),
    (2, {"rank": 10**12}, "generator.json is broken at rank"),
    (2, {"base": {"name": "tiny"}}, "generator.json is broken at base.weight_hash"),
    (2, {"curve": [[1, {"kl": "x"}]]}, "generator.json is broken at curve.0.1.kl"),
    (2, {"unlicensed": True}, "generator.json is broken at unlicensed"),
)


def change(path: Path, values: Mapping[str, object]) -> None:
    """Write a manifest with other values and a checksum that is right, as an attacker or a wrong program would."""
    value = json.loads(path.read_text(encoding="utf-8"))
    checksums.write_manifest(path, value | dict(values))


@pytest.mark.parametrize(("which", "values", "message"), FAULTS)
def test_the_error_names_file_and_key(
    small: SmallRegistry, which: int, values: Mapping[str, object], message: str
) -> None:
    small.fill()
    name, kind = KINDS[which]
    path = small.home.root / name
    change(path, values)
    with pytest.raises(CorruptFileError) as found:
        kind.read(path)
    assert found.value.message.startswith(message) and found.value.where == str(path) and found.value.hint
    assert any(fault.path == path and fault.severe for fault in verify.run(small.home).faults)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": ' + b"[" * 100_000])
def test_what_is_no_json_object_is_told(small: SmallRegistry, which: int, data: bytes) -> None:
    small.fill()
    name, kind = KINDS[which]
    path = small.home.root / name
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=f"{path.name} (is not valid JSON|does not hold a JSON object)"):
        kind.read(path)
    assert read_remains(path).command is None


@pytest.mark.parametrize("key", ["name", "template", "counts", "examples_sha256"])
def test_a_missing_key_is_named(small: SmallRegistry, key: str) -> None:
    task = small.task("say_cat")
    value = json.loads((task.folder / "task.json").read_text(encoding="utf-8"))
    del value[key]
    checksums.write_manifest(task.folder / "task.json", value)
    with pytest.raises(CorruptFileError, match=rf"task\.json is broken at {key}: field required"):
        TaskManifest.read(task.folder / "task.json")


def test_listings_pass_over_what_is_broken(small: SmallRegistry) -> None:
    small.fill()
    home = small.home
    path = home.root / KINDS[1][0]
    change(path, {"figures": {"seconds": "long"}})
    records, broken = AdapterStore(home).scan()
    assert [record.task for record in records] == ["say_dog"] and broken == (path,)
    change(home.root / KINDS[2][0], {"tasks": 3})
    assert GeneratorStore(home).names() == ("default",)
    base = BaseStore(home).folder("tiny") / "base.json"
    change(base, {"bytes": "many"})
    assert BaseStore(home).all() == () and BaseStore(home).unreadable() == (base,)
    with pytest.raises(CorruptFileError, match=r"base\.json is broken at bytes"):
        BaseManifest.read(base)
    report = storage.run(home)
    assert len(report.adapters) == 1 and report.generators[0].tasks == 0


def test_an_output_of_an_unknown_kind_is_told(tmp_path: Path) -> None:
    path = tmp_path / "icmlora.json"
    path.write_text('{"schema": "icmlora.generated/7"}', encoding="utf-8")
    with pytest.raises(CorruptFileError, match=r"icmlora\.json is broken at schema: 'icmlora\.generated/7'"):
        read_output(tmp_path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(CorruptFileError, match=r"icmlora\.json is broken at schema: field required"):
        read_output(tmp_path)


def test_keys_that_this_version_does_not_know_are_kept(small: SmallRegistry) -> None:
    path = small.adapter("say_cat") / "manifest.json"
    change(path, {"later": {"a": 1}})
    held = AdapterManifest.read(path)
    assert held.content()["later"] == {"a": 1} and "later" not in AdapterManifest.known_keys()


def test_what_remains_is_told_of_a_manifest_that_is_half_broken(small: SmallRegistry) -> None:
    path = small.generator("default") / "generator.json"
    change(path, {"rank": "x", "figures": {"seconds": "long"}, "key": 3})
    held = read_remains(path)
    assert (held.made_by, held.seconds, held.key) == ("icmlora train --name default", None, None)
    change(path, {"figures": {"seconds": 5.0}})
    assert read_remains(path).seconds == 5.0
