"""Start-up of ``icmlora --help`` as a ratio to ``python -c "import typer"``: medians of 15 runs, alternating."""

import statistics
import subprocess
import sys
import time

RUNS = 15
COMMANDS = {
    "import typer": [sys.executable, "-c", "import typer"],
    "icmlora --help": [sys.executable, "-m", "icmlora_cli", "--help"],
}


def seconds(command: list[str]) -> float:
    """Return the wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print both medians and their ratio."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name}: {median * 1000:.0f} ms")
    print(f"ratio: {medians['icmlora --help'] / medians['import typer']:.2f}")


if __name__ == "__main__":
    main()
