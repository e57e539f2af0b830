"""Whole processes as ratios: ``icmlora --help`` to a bare Typer app, ``icmlora gen`` to import, load and one forward.

Medians of alternating runs. ``gen`` needs the base smollm2-135m in the cache, and uses the generator that comes with
icmlora, or the one named ``default``. ``--against FOLDER`` times another checkout of icmlora beside this one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BARE = """
import typer
app = typer.Typer()

@app.command()
def hello(name: str = "x") -> None:
    "Say hello."

@app.command()
def bye(name: str = "x") -> None:
    "Say bye."

app()
"""
FORWARD = """
import sys, torch, peft
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import BaseStore
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = next(base.path for base in BaseStore(Home.from_environment()).all() if base.name == "smollm2-135m")
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
with torch.inference_mode():
    model(**tokenizer("Task: Write the last word.", return_tensors="pt"))
"""


def seconds(command: list[str], checkout: Path) -> float:
    """Return the wall time of one run with the icmlora of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def medians(commands: dict[str, tuple[list[str], Path]], runs: int) -> dict[str, float]:
    """Return the median wall time of each command, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command, checkout in commands.values():
        seconds(command, checkout)  # not counted: the first one reads files into memory
    for _ in range(runs):
        for name, (command, checkout) in commands.items():
            times[name].append(seconds(command, checkout))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--against", type=Path, help="another checkout, timed beside this one")
    options = parser.parse_args()
    python, text = sys.executable, "Write the last of the three words."
    checkouts = {"": ROOT} | ({" there": options.against.resolve()} if options.against else {})
    with tempfile.TemporaryDirectory() as out:
        helps = {f"icmlora --help{end}": ([python, "-m", "icmlora_cli", "--help"], at) for end, at in checkouts.items()}
        gens = {
            f"icmlora gen{end}": ([python, "-m", "icmlora_cli", "gen", text, "-o", f"{out}/x", "--force"], at)
            for end, at in checkouts.items()
        }
        for name, command, compared in (
            ("bare Typer app", [python, "-c", BARE, "--help"], helps),
            ("import, load, one forward", [python, "-c", FORWARD], gens),
        ):
            found = medians({name: (command, ROOT)} | compared, options.runs)
            for key, value in found.items():
                print(f"{key}: {value * 1000:.0f} ms, {value / found[name]:.2f} x {name}")


if __name__ == "__main__":
    main()
