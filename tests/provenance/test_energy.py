"""Energy from the counters of Linux's powercap, here files of the same form."""

from functools import partial
from pathlib import Path

import pytest

from icmlora_cli.provenance.energy import CostMeter, EnergyMeter, ShareMeter


def zone(root: Path, name: str, kind: str, count: str, most: int = 1000_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n", encoding="ascii")
    (folder / "energy_uj").write_text(f"{count}\n", encoding="ascii")
    (folder / "max_energy_range_uj").write_text(f"{most}\n", encoding="ascii")
    return folder / "energy_uj"


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", "5000000")
    second = zone(tmp_path, "intel-rapl:1", "package-1", "7000000")
    part = zone(tmp_path, "intel-rapl:0:0", "core", "1000000")
    whole = zone(tmp_path, "intel-rapl:2", "psys", "1000000")
    meter = EnergyMeter(tmp_path)
    assert meter.joules() == 0.0
    for path, count in ((first, "6500000"), (second, "7250000"), (part, "9000000"), (whole, "9000000")):
        path.write_text(count, encoding="ascii")
    assert meter.figures() == {"joules": 1.75}


def test_a_counter_that_starts_again(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", "900", most=1000)
    meter = EnergyMeter(tmp_path)
    for count in ("100", "900", "50"):
        counter.write_text(count, encoding="ascii")
        meter.sample()
    assert meter.joules() == (200 + 800 + 150) / 1e6


def test_what_is_not_told_is_not_made_up(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path / "none").figures() == {}
    assert EnergyMeter(tmp_path).figures() == {}
    zone(tmp_path, "intel-rapl:0", "package-0", "5")
    zone(tmp_path, "intel-rapl:1", "package-1", "not ours to read")
    assert EnergyMeter(tmp_path).figures() == {}  # half of it is not the whole
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("5", encoding="ascii")
    meter = EnergyMeter(tmp_path)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.joules() is None


def test_what_earlier_runs_took_is_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", "5000000")
    monkeypatch.setattr("icmlora_cli.provenance.energy.EnergyMeter", partial(EnergyMeter, tmp_path))
    meter = CostMeter()
    counter.write_text("6000000", encoding="ascii")
    alone = meter.figures()
    assert alone["joules"] == 1.0 and 0 <= alone["seconds"] < 60
    meter.resume({"seconds": 100.0, "joules": 2.5})
    assert meter.figures()["joules"] == 3.5 and 100 <= meter.figures()["seconds"] < 160
    meter.resume({"seconds": 100.0})  # that run could not read the counters
    assert set(meter.figures()) == {"seconds"}


def test_shares_of_what_is_taken_together_add_up_over_runs() -> None:
    meters = [ShareMeter() for _ in range(2)]
    meters[0].resume({"seconds": 10.0, "joules": 50.0})
    meters[1].resume({"seconds": 10.0})  # its energy was not known before
    for meter in meters:
        meter.add({"seconds": 4.0, "joules": 8.0}, 0.5)
        meter.sample()
        meter.add({"seconds": 1.0, "joules": 2.0}, 1.0)
    assert meters[0].figures() == {"seconds": 13.0, "joules": 56.0}
    assert meters[1].figures() == {"seconds": 13.0}
    alone = ShareMeter()
    alone.add({"seconds": 4.0}, 0.25)
    assert alone.figures() == {"seconds": 1.0}
