"""Detection sets as tasks, the drawn set, and mean average precision beside pycocotools' own."""

import contextlib
import io
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import NotFoundError, SpecError
from icmlora_cli.tasks.boxes import Box, boxes_text, read_boxes
from icmlora_cli.tasks.detection import (
    DETECTION_METRICS,
    METRICS,
    average_precisions,
    matches,
    mean_average_precision,
)
from icmlora_cli.tasks.drawn import SHAPES, SIDE, draw_scene, drawn_tasks
from icmlora_cli.workflows import tasks
from tests import vision_base

pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def voc(folder: Path, count: int = 30) -> Path:
    (folder / "Annotations").mkdir(parents=True)
    (folder / "JPEGImages").mkdir()
    for number in range(count):
        (folder / "JPEGImages" / f"{number}.png").write_bytes(vision_base.image_bytes(number))
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{left}</xmin><ymin>3</ymin><xmax>{left + 9}</xmax>"
            "<ymax>12</ymax></bndbox></object>"
            for label, left in (("cat", 21), ("big dog", 1), ("cat", 1))
            if label == "cat" or number % 3
        )
        text = f"<annotation><filename>{number}.png</filename>{objects}</annotation>"
        (folder / "Annotations" / f"{number}.xml").write_text(text)
    return folder


def test_a_folder_of_voc_is_a_task_a_class(tmp_path: Path, home: Home) -> None:
    added = tasks.add(home, [f"voc:{voc(tmp_path / 'pets')}"]).tasks
    assert [task.name for task, _ in added] == ["pets-big_dog", "pets-cat"]
    dog, cat = (task for task, _ in added)
    assert (sum(dog.counts.values()), sum(cat.counts.values())) == (20, 30) and cat.metric == "map50_95"
    example = cat.examples("train")[0]
    first, second = read_boxes(example.output)  # from left to right; VOC's pixels count from 1
    assert first == Box("cat", (0.0, 2 * 1000 // 30, 10 * 1000 // 40, 12 * 1000 // 30))
    assert second.corners[0] == 20 * 1000 // 40


def test_all_faults_of_a_set_are_told_at_once(tmp_path: Path, home: Home) -> None:
    folder = voc(tmp_path / "pets")
    (folder / "Annotations" / "1.xml").write_text("<annotation>")
    (folder / "Annotations" / "2.xml").write_text("<annotation><filename>../x.png</filename></annotation>")
    with pytest.raises(SpecError) as caught:
        tasks.add(home, [f"voc:{folder}"])
    assert len(caught.value.faults) == 2 and all("not an annotation of VOC" in item for item in caught.value.faults)
    with pytest.raises(SpecError, match="nothing was added") as caught:
        (folder / "JPEGImages" / "4.png").unlink()
        for number in (1, 2):
            (folder / "Annotations" / f"{number}.xml").unlink()
        tasks.add(home, [f"voc:{folder}"])
    assert all("is missing" in item and "4.png" in item for item in caught.value.faults)
    with pytest.raises(SpecError) as caught:
        tasks.add(home, [f"voc:{tmp_path / 'nowhere'}"])
    assert "there is no XML file" in caught.value.faults[0]


def test_annotations_of_coco_are_a_task_a_class(tmp_path: Path, home: Home) -> None:
    (tmp_path / "images").mkdir()
    for number in range(30):
        (tmp_path / "images" / f"{number}.png").write_bytes(vision_base.image_bytes(number))
    value = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(30)],
        "annotations": [{"image_id": number, "category_id": 7, "bbox": [4, 3, 10, 9]} for number in range(30)],
        "categories": [{"id": 7, "name": "cat"}],
    }
    path = tmp_path / "val.json"
    path.write_text(json.dumps(value))
    ((task, _),) = tasks.add(home, [f"coco:{path}"]).tasks
    (box,) = read_boxes(task.examples("train")[0].output)
    assert task.name == "val-cat" and box == Box("cat", (100.0, 100.0, 350.0, 400.0))
    value["annotations"][0]["category_id"], value["annotations"][1]["image_id"] = 8, 99
    path.write_text(json.dumps(value))
    with pytest.raises(SpecError) as caught:
        tasks.add(home, [f"coco:{path}"])
    assert len(caught.value.faults) == 2


def test_the_drawn_set_is_the_same_for_the_same_seed_and_its_boxes_are_exact(home: Home) -> None:
    from PIL import Image

    assert len(drawn_tasks()) == 72
    ((task, _),) = tasks.add(home, ["drawn:small_star"]).tasks
    assert task.name == "find_small_star" and task.metric == "map50_95" and sum(task.counts.values()) == 480
    first, second = (drawn_tasks()["small_star"].examples(3, 0) for _ in range(2))
    assert first == second != drawn_tasks()["small_star"].examples(3, 1)
    assert all({box.label for box in read_boxes(item.output)} == {"star"} for item in first)
    for shape in SHAPES:  # a shape alone: its box holds all that is not ground, and nothing smaller does
        scene = draw_scene(random.Random(0), "plain", [(shape, "large")])
        image = Image.open(io.BytesIO(scene.picture.read())).convert("RGB")
        ground = image.getpixel((0, 0))
        mask = Image.new("1", (SIDE, SIDE))
        mask.putdata([pixel != ground for pixel in image.get_flattened_data()])
        assert tuple(map(float, mask.getbbox())) == scene.shapes[0][0].corners
    with pytest.raises(NotFoundError, match="there is no drawn task"):
        tasks.add(home, ["drawn:zebra"])


def test_the_precision_is_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    rng = random.Random(0)

    def some(near: list[Box]) -> list[Box]:
        moved = [Box(box.label, tuple(value + rng.randint(-2, 2) for value in box.corners)) for box in near]  # type: ignore[arg-type]
        extra = [Box(rng.choice("ab"), (5.0, 5.0, 30.0, 40.0)) for _ in range(rng.randint(0, 1))]
        return [box for box in moved if rng.random() < 0.8] + extra

    wanted = []
    for _ in range(40):
        corners = [(left := rng.randint(0, 60), top := rng.randint(0, 60), left + 30, top + 25) for _ in range(2)]
        wanted.append([Box(rng.choice("ab"), tuple(map(float, item))) for item in corners])  # type: ignore[arg-type]
    found = [some(boxes) for boxes in wanted]
    size = (1000, 1000)
    texts = [[boxes_text(boxes, size) for boxes in rows] for rows in (found, wanted)]
    marks = matches(texts[0], texts[1])

    def data(rows: list[str], **more: float) -> dict[str, object]:
        boxes = [(image, box) for image, text in enumerate(rows, start=1) for box in read_boxes(text)]
        return {
            "images": [{"id": number} for number in range(1, 41)],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [
                {
                    "id": number, "image_id": image, "category_id": "ab".index(box.label) + 1, "iscrowd": 0,
                    "bbox": [*box.corners[:2], *(box.corners[at + 2] - box.corners[at] for at in (0, 1))],
                    "area": 1.0, **more,
                }
                for number, (image, box) in enumerate(boxes, start=1)
            ],
        }  # fmt: skip

    truth, answers = coco.COCO(), coco.COCO()
    truth.dataset, answers.dataset = data(texts[1]), data(texts[0], score=1.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        answers.createIndex()
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    for metric, value in zip(DETECTION_METRICS, evaluation.stats[:3], strict=True):
        assert mean_average_precision(marks, metric) == pytest.approx(float(value), abs=1e-9)
    assert 0.1 < float(evaluation.stats[0]) < 0.9
    draws = np.random.default_rng(0).integers(40, size=(150, 40))
    draws[0] = next(image for image, text in enumerate(texts[1]) if "b" not in text)  # has nothing of one label
    resampled = average_precisions(marks, draws)
    for row, draw in zip(resampled, draws.tolist(), strict=True):
        alone = tuple(marks[image] for image in draw)
        assert [row[METRICS[metric]].mean() for metric in METRICS] == [
            pytest.approx(mean_average_precision(alone, metric), abs=1e-9) for metric in METRICS
        ]


def test_a_metric_of_boxes_needs_boxes(tmp_path: Path, home: Home) -> None:
    rows = "".join(f"- {{input: a{number}, output: b}}\n" for number in range(30))
    path = tmp_path / "t.yaml"
    path.write_text(f"name: t\ndescription: x\nmetric: map50\nexamples:\n{rows}")
    with pytest.raises(SpecError) as caught:
        tasks.add(home, [str(path)])
    assert "map50 is of boxes, and 30 of 30 answers hold none" in caught.value.faults[0]


def test_what_is_no_box_counts_as_nothing() -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    marks = matches(["nonsense", "cat<loc_1><loc_2><loc_30><loc_40>"], ["cat<loc_1><loc_2><loc_30><loc_40>"] * 2)
    assert mean_average_precision(marks, "map50") == pytest.approx(0.5049, abs=1e-3)
    assert mean_average_precision(matches(["x"], ["dog<loc_1><loc_2><loc_30><loc_40>"]), "map50") == 0.0
    assert math.isnan(mean_average_precision(matches(["x"], ["y"]), "map50"))
