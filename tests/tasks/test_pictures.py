"""Tasks whose examples have images: all faults at once, and images in the registry, known by their bytes."""

import hashlib
import json
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, SpecError
from icmlora_cli.registry.task_record import IMAGE, IMAGES
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.registry.upkeep.checks import task_flaws
from icmlora_cli.tasks.boxes import Box, boxes_text, read_boxes
from icmlora_cli.tasks.sources import read_examples
from icmlora_cli.workflows import tasks
from icmlora_cli.workflows.registry import export, import_archive
from tests import vision_base
from tests.small_registry import flip

pytest.importorskip("PIL.Image", reason="Pillow is not installed")

PLACES = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(PLACES):
        (tmp_path / f"{number}.png").write_bytes(vision_base.image_bytes(number))
    return tmp_path


def write(folder: Path, rows: list[str]) -> Path:
    path = folder / "task.yaml"
    lines = "".join(f"  - {row}\n" for row in rows)
    path.write_text(f"name: squares\ndescription: Find the square.\nexamples:\n{lines}", encoding="utf-8")
    return path


def good(number: int) -> str:
    return f"{{image: {number}.png, input: <OD>, boxes: [{{label: square, box: [1, 2, {10 + number}, 20]}}]}}"


def test_images_are_kept_with_the_task_and_decide_its_part(folder: Path, home: Home) -> None:
    path = write(folder, [good(number) for number in range(PLACES)])
    ((task, state),) = tasks.add(home, [str(path)]).tasks
    assert state == "added" and task.template == IMAGE and sum(task.counts.values()) == PLACES
    again = TaskStore(home).get("squares")
    examples = [item for part in ("train", "validation", "test") for item in again.examples(part)]  # type: ignore[arg-type]
    assert {item.input for item in examples} == {"<OD>"}
    for number in range(PLACES):
        data = vision_base.image_bytes(number)
        (found,) = (item for item in examples if item.picture.sha256 == hashlib.sha256(data).hexdigest())
        assert found.picture.read() == data and found.picture.source.parent == again.folder / IMAGES
        bins = (1 * 1000 // 40, 2 * 1000 // 30, (10 + number) * 1000 // 40, 20 * 1000 // 30)
        assert found.output == "square" + "".join(f"<loc_{item}>" for item in bins)
    assert tasks.add(home, [str(path)]).tasks[0][1] == "unchanged"
    (folder / "0.png").write_bytes(vision_base.image_bytes(99))
    changed = tasks.validate([path])[0].tasks[0]
    assert changed.data_hash != task.data_hash


def test_all_faults_of_the_images_are_told_at_once(folder: Path, home: Home) -> None:
    (folder / "broken.png").write_bytes(vision_base.image_bytes(1)[:80])
    (folder / "notes.png").write_text("no image")
    rows = [
        good(0),
        "{image: gone.png, output: x}",
        "{image: broken.png, output: x}",
        "{image: notes.png, output: x}",
        "{image: 1.png, boxes: [{label: square, box: [1, 2, 41, 20]}, {label: square, box: [9, 2, 5, 20]}]}",
    ]
    with pytest.raises(SpecError) as caught:
        tasks.add(home, [str(write(folder, rows))])
    told = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 4
    assert "example 2 (gone.png): the image 'gone.png' is missing" in told
    assert "example 3 (broken.png): the image 'broken.png' is broken" in told
    assert "example 4 (notes.png): the image 'notes.png'" in told
    assert "the box [1, 2, 41, 20] of 'square' is not within the image of 40 x 30 pixels" in told
    assert "the box [9, 2, 5, 20] of 'square' is empty" in told


def test_an_answer_is_said_once(folder: Path) -> None:
    both = "{image: 0.png, output: x, boxes: [{label: a, box: [1, 2, 3, 4]}]}"
    with pytest.raises(SpecError) as caught:
        tasks.validate([write(folder, [both, "{image: 1.png}"])])
    assert len(caught.value.faults) == 2 and all("say the answer once" in fault for fault in caught.value.faults)


def test_rows_of_a_file_name_images_beside_it(folder: Path, home: Home) -> None:
    rows = [{"image": f"{number}.png", "input": "<OD>", "output": "x"} for number in range(PLACES)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_examples(folder / "rows.jsonl")
    assert found.rule == "image" and all(item.picture and item.picture.name.endswith(".png") for item in found.examples)
    of_boxes = [{"image": "0.png", "boxes": [{"label": "a", "box": [0, 0, 40, 30]}]}]
    (folder / "boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_boxes))
    (only,) = read_examples(folder / "boxes.jsonl").examples
    assert only.content[:2] == ["<OD>", "a<loc_0><loc_0><loc_999><loc_999>"]
    text = "examples: {path: rows.jsonl, image: image, input: <VQA>, output: output}"
    path = folder / "columns.yaml"
    path.write_text(f"name: squares\ndescription: Find it.\n{text}\n")
    task = tasks.add(home, [str(path)]).tasks[0][0]
    assert {item.input for item in task.examples("train")} == {"<VQA>"}


def test_an_image_that_is_damaged_or_missing_is_a_flaw(folder: Path, home: Home) -> None:
    task = tasks.add(home, [str(write(folder, [good(number) for number in range(PLACES)]))]).tasks[0][0]
    assert task_flaws(task.folder, "squares") == []
    first, second, *_ = sorted((task.folder / IMAGES).iterdir())
    flip(first)
    second.unlink()
    (task.folder / IMAGES / "stray.txt").write_text("x")
    assert [flaw.kind for flaw in task_flaws(task.folder, "squares")] == ["unlisted", "missing", "changed"]
    example = next(item for part in ("train", "test") for item in task.examples(part) if item.picture)  # type: ignore[arg-type]
    flip(task.folder / IMAGES / example.picture.name, bit=3)
    with pytest.raises(CorruptFileError, match="image"):
        example.picture.read()


def test_they_go_through_an_archive_and_a_task_file(folder: Path, home: Home, tmp_path: Path) -> None:
    task = tasks.add(home, [str(write(folder, [good(number) for number in range(PLACES)]))]).tasks[0][0]
    export.run(home, tmp_path / "all.icmlora")
    other = Home(tmp_path / "other", home.cache)
    import_archive.run(other, tmp_path / "all.icmlora")
    moved = TaskStore(other).get("squares")
    assert moved.data_hash == task.data_hash and task_flaws(moved.folder, "squares") == []
    written = tasks.export(TaskStore(home), ["squares"], tmp_path / "out" / "squares.yaml")
    third = Home(tmp_path / "third", home.cache)
    assert tasks.add(third, [str(written.file)]).tasks[0][0].data_hash == task.data_hash


def test_boxes_are_written_as_florence_2_quantises_them() -> None:
    transformers = pytest.importorskip("transformers.models.florence2.processing_florence2")
    import torch

    words = vision_base.tokenizer()
    theirs = transformers.Florence2PostProcessor(config={}, tokenizer=words)
    boxes = [Box("cat", (0.0, 0.5, 63.9, 48.0)), Box("big dog", (10.2, 3.3, 12.7, 20.1))]
    text = boxes_text(boxes, (64, 48))
    for mine, box in zip(read_boxes(text), boxes, strict=True):
        wanted = theirs.quantize(torch.tensor([box.corners]), (64, 48))[0].tolist()
        assert mine == Box(box.label, tuple(map(float, wanted)))
    assert [box.label for box in read_boxes("x<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>")] == ["x", "x"]
    assert read_boxes("nothing <loc_1><loc_2>") == []
