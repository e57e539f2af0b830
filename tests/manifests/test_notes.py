"""Notes are written as they always were."""

import json
from pathlib import Path

from icmlora_cli.manifests.notes import QuarantineNote, ScoreTime, Timings


def test_the_keys_of_timings(tmp_path: Path) -> None:
    row = ScoreTime(task="a", method="base", seconds={"score": 1.5, "serve": 0})
    Timings(schema="icmlora.timings/2", unit="seconds", scores=(row,)).write(tmp_path / "timings.json")
    assert json.loads((tmp_path / "timings.json").read_text(encoding="utf-8")) == {
        "schema": "icmlora.timings/2",
        "unit": "seconds",
        "scores": [{"task": "a", "method": "base", "score": 1.5, "serve": 0}],
    }


def test_a_note_comes_back(tmp_path: Path) -> None:
    note = QuarantineNote(schema="icmlora.quarantine/1", was="tasks/a", why="damaged", when="2026")
    note.write(tmp_path / "why.json")
    assert QuarantineNote.read(tmp_path / "why.json") == note
    assert list(json.loads((tmp_path / "why.json").read_text(encoding="utf-8"))) == ["schema", "was", "why", "when"]
