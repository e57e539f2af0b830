"""The doctor: what is found, and advice that names a command."""

import shutil
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import Base, BaseStore
from icmlora_cli.workflows.doctor import Check, DoctorReport, run


def check(report: DoctorReport, name: str) -> Check:
    return next(found for found in report.checks if found.name == name)


def test_a_fresh_machine_is_fine_but_has_no_base(home: Home) -> None:
    report = run(home)
    assert report.ok
    default = check(report, "default base")
    assert not default.ok and not default.required
    assert default.mend == "icmlora base pull smollm2-135m"
    assert report.bases == ()
    assert not home.root.exists() and not home.cache.exists()


def test_devices_and_versions(home: Home) -> None:
    report = run(home)
    assert report.devices[-1].name == "cpu"
    assert report.devices[-1].memory > 0
    versions = dict(report.versions)
    assert {"python", "icmlora", "torch", "transformers", "peft", "typer", "safetensors"} <= versions.keys()
    assert all(versions.values())


def test_folders(home: Home) -> None:
    report = run(home)
    assert [(folder.label, folder.exists, folder.writable) for folder in report.folders] == [
        ("home", False, True),
        ("cache", False, True),
    ]
    assert all(folder.free > 0 for folder in report.folders)


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    report = run(Home(root=tmp_path / "file" / "home", cache=tmp_path / "cache"))
    assert not report.ok
    assert "ICMLORA_HOME" in str(check(report, "home folder").mend)
    assert check(report, "cache folder").ok


def test_bases_are_listed_and_a_damaged_one_is_told(
    tiny_bases: dict[str, Path], llama_base: Base, home: Home, tmp_path: Path
) -> None:
    from icmlora_cli.workflows.base.pull import pull

    copy = pull(str(shutil.copytree(tiny_bases["gpt2"], tmp_path / "copy")), home)
    report = run(home)
    assert set(report.bases) == {llama_base, copy}
    assert all(found.name != "base" for found in report.checks)
    (copy.path / "model.safetensors").unlink()
    (BaseStore(home).folder(llama_base.name) / "base.json").write_text("{")
    report = run(home)
    advice = [found for found in report.checks if found.name == "base"]
    assert len(advice) == 2 and report.ok
    assert all(found.mend is not None for found in advice)


@pytest.mark.parametrize("extra", ["parquet", "datasets"])
def test_extras_are_advice(extra: str, home: Home) -> None:
    found = check(run(home), f"extra {extra}")
    assert not found.required
    assert found.ok == (found.mend is None)


def test_busy_cores_are_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 9.0, 9.0))
    assert check(run(home), "cores").ok
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    busy = check(run(home), "cores")
    assert not busy.ok and not busy.required
    assert busy.detail.startswith("1000.0 of") and "several times as long" in str(busy.mend)
