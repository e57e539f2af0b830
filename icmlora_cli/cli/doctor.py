"""``icmlora doctor``: check what this machine has, and say what to type where something is missing."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from icmlora_cli.cli.options import Json, Quiet
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.workflows.doctor import Check, DoctorReport


def doctor(as_json: Json = False, quiet: Quiet = False) -> None:
    """Check devices, versions, folders and base models.

    It says what to type where something is missing. The exit code is 1 if something required is missing.
    """
    with session("doctor", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.doctor import run

        report = run(Home.from_environment())
        out.result(_as_dict(report))
        if not quiet:
            _facts(out, report)
        out.table(
            ("check", "state", "found"),
            [(check.name, _state(check), check.detail) for check in report.checks],
        )
        for check in report.checks:
            if check.mend is not None:
                out.note(f"{check.name}: {check.mend}")
        if not report.ok:
            raise typer.Exit(1)


def _facts(out: Out, report: "DoctorReport") -> None:
    out.table(
        ("device", "what", "memory GB", "bfloat16"),
        [
            (device.name, device.description, f"{device.memory / 1e9:.1f}", "yes" if device.bf16 else "no")
            for device in report.devices
        ],
    )
    out.table(("package", "version"), [(name, version or "not installed") for name, version in report.versions])
    if report.bases:
        out.table(
            ("base", "MB", "from"),
            [(base.name, f"{base.bytes / 1e6:.1f}", base.origin) for base in report.bases],
        )


def _state(check: "Check") -> str:
    if check.ok:
        return "ok"
    return "FAILED" if check.required else "warning"


def _as_dict(report: "DoctorReport") -> dict[str, object]:
    return {
        "ok": report.ok,
        "devices": [asdict(device) for device in report.devices],
        "versions": {name: version or None for name, version in report.versions},
        "folders": [asdict(folder) | {"path": str(folder.path)} for folder in report.folders],
        "bases": [
            {"name": base.name, "path": str(base.path), "origin": base.origin, "bytes": base.bytes}
            for base in report.bases
        ],
        "checks": [asdict(check) for check in report.checks],
    }
