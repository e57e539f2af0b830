"""Benchmarks of training run from one end to the other on a tiny base, and print their tables."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.tasks.drawn import drawn_tasks
from icmlora_cli.workflows.base.pull import pull

ROOT = Path(__file__).resolve().parents[2]
EPISODES = """
data: {frame_width: 4, basis: frame, vectors: {layer: 0.5, pooling: tokens, shots: 2, draws: 1}}
network: {latent_dim: 4, hidden_dim: 16, code_dim: 8, reader: attention, reader_dim: 8, condition_dim: 8}
episodes: {builtin: catalog, builtin_examples: 9, phrasings: 0, max_tokens: 120, contrast_tasks: 4}
"""


def printed(script: str, *arguments: str | Path) -> str:
    """Run a benchmark, and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(script: str, *arguments: str | Path) -> dict[str, list[float]]:
    """Run a benchmark, and return the numbers of the rows that it prints by their first column."""
    rows = re.findall(r"^\| ([^|]+) \| ([-\d. |]+) \|$", printed(script, *arguments), re.MULTILINE)
    return {name: [float(cell) for cell in cells.split(" | ")] for name, cells in rows}


def test_episodes(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(EPISODES, encoding="utf-8")
    options = ("--recipe", tmp_path / "recipe.yaml", "--steps", "5", "--rows", "4", "--device", "cpu")
    rows = table("episodes.py", "--base", tiny_bases["llama"], *options)
    assert rows["the base alone"][1] == 1.0 and rows["episodes"][0] > 0
    parts = {name: values for name, values in rows.items() if name not in ("the base alone", "episodes")}
    assert abs(sum(share for _, share in parts.values()) - 1) < 0.02
    working = ("forward through the base", "backward through the base", "backward through the generator", "optimiser")
    assert all(parts[name][0] > 0 for name in working)
    assert parts["tokenisation"] == [0, 0]


def test_harvest(tiny_bases: dict[str, Path]) -> None:
    options = ("--steps", "2", "--tasks", "pick_last_of_3", "past_word", "--methods", "trainer:2", "2")
    rows = table("harvest.py", "--base", tiny_bases["llama"], *options)
    assert list(rows) == ["Trainer and PEFT, 2 processes", "icmlora, N = 2", "PEFT's mixed batch", "icmlora"]
    assert all(value > 0 for name in rows for value in rows[name][:3])


def test_a_stand_in_for_a_base_that_reads_images(tmp_path: Path, home: Home) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("pycocotools")
    folder = tmp_path / "standin"
    said = printed("standin_base.py", "--out", folder, "--steps", "3", "--batch-size", "2", "--check", "2")
    checks = re.findall(r"^step (\d): loss ([\d.]+) \+ ([\d.]+), map50_95 ", said, re.MULTILINE)
    assert [step for step, *_ in checks] == ["2", "3"]
    assert all(0 < float(loss) < 20 for _, *losses in checks for loss in losses)
    assert [path.name for path in tmp_path.iterdir()] == ["standin"]
    example = drawn_tasks()["star"].examples(1, 0)[0]
    loaded = load_base(pull(str(folder), home, offline=True), device="cpu")
    row = loaded.family.row(example.input, example.output, example.picture)
    assert score_rows(loaded, [row]).mean_nll > 0
