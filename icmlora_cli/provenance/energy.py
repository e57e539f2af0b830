"""What a computation took: seconds, and joules where the operating system counts them."""

import time
from collections.abc import Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
RANGE = "max_energy_range_uj"  # the file with the value, in microjoules, at which a counter starts again at zero


class EnergyMeter:
    """Adds up the energy of the processor packages since it was made, by the counters of Linux's powercap (RAPL).

    Every process on the packages counts, not only this one; GPUs and the rest of the machine do not count. The counters
    start again at zero after some tens of minutes, so ``sample`` has to be called every few minutes.

    Args:
        root: the folder of the counters.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        """Read the counters for the first time."""
        zones = sorted(root.glob("*:[0-9]*")) if root.is_dir() else []
        packages = [zone for zone in zones if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")]
        self._last = {zone: count for zone in packages if (count := _number(zone / "energy_uj")) is not None}
        self._whole = bool(packages) and len(self._last) == len(packages)
        self._microjoules = 0

    def sample(self) -> None:
        """Add the energy that was taken since the last sample."""
        for zone, before in self._last.items():
            now = _number(zone / "energy_uj")
            if now is None:
                self._whole = False
                return
            self._microjoules += now - before if now >= before else now - before + (_number(zone / RANGE) or 0)
            self._last[zone] = now

    def joules(self) -> float | None:
        """Return the joules of all packages since the meter was made; None if a counter cannot be read."""
        self.sample()
        return self._microjoules / 1e6 if self._whole else None

    def figures(self) -> dict[str, float]:
        """Return ``joules`` as a manifest's figures hold it; an empty mapping if the energy is not known."""
        joules = self.joules()
        return {} if joules is None else {"joules": joules}


class CostMeter:
    """Adds up the seconds and joules of a computation, over the runs that it took."""

    def __init__(self) -> None:
        """Start the clock and the energy counters; earlier runs are added later."""
        self._energy, self._started = EnergyMeter(), time.monotonic()
        self._earlier: Mapping[str, float] = {"seconds": 0.0, "joules": 0.0}

    def resume(self, earlier: Mapping[str, float]) -> None:
        """Add what earlier runs took.

        Args:
            earlier: what ``figures`` returned when the state was saved that this run continues.
        """
        self._earlier = earlier

    def sample(self) -> None:
        """Add the energy since the last sample; this has to be called every few minutes, as ``EnergyMeter`` says."""
        self._energy.sample()

    def figures(self) -> dict[str, float]:
        """Return ``seconds``, and ``joules`` if they are known for all runs."""
        figures = {"seconds": time.monotonic() - self._started} | self._energy.figures()
        return {name: value + self._earlier[name] for name, value in figures.items() if name in self._earlier}


class ShareMeter(CostMeter):
    """Adds up a computation's shares of what it takes together with others, which another meter measures."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self._shares: dict[str, float] = {"seconds": 0.0}

    def add(self, cost: Mapping[str, float], share: float) -> None:
        """Add a share of a cost.

        Args:
            cost: seconds, and joules where they are known.
            share: the part of it that counts here, 0 to 1.
        """
        for name, value in cost.items():
            self._shares[name] = self._shares.get(name, 0.0) + share * value

    def sample(self) -> None:
        """Do nothing: the other meter reads the counters."""

    def figures(self) -> dict[str, float]:
        """Return ``seconds``, and ``joules`` if they are known for all runs."""
        return {name: value + self._earlier[name] for name, value in self._shares.items() if name in self._earlier}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):  # newer kernels let only the superuser read the counters
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None
