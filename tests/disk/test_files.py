"""Files are whole or not there, whatever happens while they are written."""

import errno
import hashlib
from pathlib import Path

import pytest
from safetensors import SafetensorError

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, OutOfSpaceError
from icmlora_cli.registry.generators import GeneratorStore


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(files.TEMPORARY)]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.write_text(target, "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutOfSpaceError, match=r"a\.txt"):
        files.write_with(target, fail)
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_failed_folder_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with files.new_folder(target) as folder:
        (folder / "weights").write_text("old")
    with pytest.raises(ZeroDivisionError), files.new_folder(target) as folder:
        (folder / "weights").write_text("half")
        _ = 1 / 0
    assert (target / "weights").read_text() == "old"
    with files.new_folder(target) as folder:
        (folder / "other").write_text("new")
    assert [path.name for path in target.iterdir()] == ["other"]
    assert leftovers(tmp_path) == []


def test_many_files_are_written_with_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {f"{number}.png": bytes([number]) * number for number in range(40)}
    synced, sync = list[str](), files.sync_file
    monkeypatch.setattr(files, "sync_file", lambda path: (synced.append(path.name), sync(path)))
    with files.new_folder(tmp_path / "task") as folder:
        files.write_all(folder / "images", contents.items())
    assert {path.name: path.read_bytes() for path in (tmp_path / "task" / "images").iterdir()} == contents
    assert sorted(synced) == sorted(contents)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(OutOfSpaceError, match="images"), files.new_folder(tmp_path / "other") as folder:
        files.write_all(folder / "images", contents.items())
    assert [path.name for path in tmp_path.iterdir()] == ["task"]


def test_safetensors_says_full_in_its_own_way(tmp_path: Path) -> None:
    def rust(path: Path) -> None:
        raise SafetensorError(f"I/O error: No space left on device (os error {errno.ENOSPC})")

    with pytest.raises(OutOfSpaceError, match=r"a\.safetensors"):
        files.write_with(tmp_path / "a.safetensors", rust)
    assert leftovers(tmp_path) == []


def test_other_os_errors_stay_themselves(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write_with(tmp_path / "a", lambda path: (tmp_path / "no" / "b").write_text("x") and None)


def test_hashes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    files.write_bytes(tmp_path / "a", data)
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    assert files.sha256_json({"b": 1, "a": 2}) == files.sha256_json({"a": 2, "b": 1})


@pytest.mark.parametrize("text", ["{", "[1]", "\ufffd"])
def test_json_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CorruptFileError, match=r"a\.json"):
        files.read_json(tmp_path / "a.json")


def test_what_a_killed_training_left_is_no_generator(home: Home) -> None:
    for name in ("good", f"{files.TEMPORARY}123-good"):
        files.write_json(home.generators / name / "generator.json", {})
    assert GeneratorStore(home).names() == ("good",)


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    def private(path: Path) -> None:
        path.touch(mode=0o600)

    files.write_with(tmp_path / "a", private)
    files.write_text(tmp_path / "b", "x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    (tmp_path / "c").touch()
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "c").stat().st_mode


def test_what_is_written_goes_through_a_link_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "disk" / "model").mkdir(parents=True)
    (tmp_path / "disk" / "file").write_text("old")
    for name in ("model", "file", "dangling"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    for name in ("model", "dangling"):
        with files.new_folder(tmp_path / name) as folder:
            (folder / "a").write_text("new")
    files.write_text(tmp_path / "file", "new")
    files.write_with(tmp_path / "file", lambda path: path.write_text("newer") and None)
    assert all((tmp_path / name).is_symlink() for name in ("model", "file", "dangling"))
    assert (
        (tmp_path / "disk" / "model" / "a").read_text() == (tmp_path / "disk" / "dangling" / "a").read_text() == "new"
    )
    assert (tmp_path / "disk" / "file").read_text() == "newer"
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["dangling", "file", "model"]
    files.delete_folder(tmp_path / "model")
    assert (tmp_path / "disk" / "model" / "a").exists() and not (tmp_path / "model").is_symlink()
