"""Detection sets as tasks, one a class: folders in the form of PASCAL VOC, and annotations in the form of COCO.

VOC (Everingham et al., IJCV 2010): a folder of XML files, one an image, with ``filename`` and for each ``object`` its
``name`` and ``bndbox``; images lie beside the files, or in ``JPEGImages`` beside ``Annotations``. Its pixels count
from 1, and a box's last pixel is part of it. COCO (Lin et al., ECCV 2014): a JSON file with ``images``,
``annotations`` (``bbox`` is left, top, width and height) and ``categories``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict, ValidationError

from icmlora_cli.config.user_files import read_text
from icmlora_cli.errors import SpecError, UsageError
from icmlora_cli.tasks.source_specs import BoxSpec, ImageExampleSpec
from icmlora_cli.tasks.task_file import TaskSpec

METRIC = "map50_95"
MOST = 1 << 22  # characters of an XML file

Found = dict[str, dict[str, list[BoxSpec]]]
"""Label to the path of each image that shows it, to its boxes there."""


def voc_tasks(folder: Path) -> tuple[TaskSpec, ...]:
    """Return the tasks of a folder in the form of VOC, one for each class.

    Args:
        folder: the folder of the XML files, or the one with ``Annotations`` and ``JPEGImages``.

    Raises:
        SpecError: If a file is broken; all of them are listed.
        UsageError: If there is no such folder, or no XML file in it.
    """
    inner = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    paths = sorted(inner.glob("*.xml"))
    if not paths:
        raise UsageError(f"there is no XML file in {str(folder)!r}", where=str(inner.absolute()), hint="voc:FOLDER")
    found: Found = {}
    faults: list[str] = []
    for path in paths:
        try:
            root = ElementTree.fromstring(read_text(path)[:MOST])
            image = _voc_image(path, root)
            for label, box in _voc_boxes(root):
                found.setdefault(label, {}).setdefault(str(image), []).append(BoxSpec(label=label, box=box))
        except (ElementTree.ParseError, ValueError) as error:
            faults.append(f"{path}:1: not an annotation of VOC: {str(error).splitlines()[0][:120]}")
    if faults:
        raise SpecError.counted(f"{folder} has", faults, where=str(folder))
    return _tasks(found, folder.resolve().name, f"a folder in the form of VOC, {folder.resolve().name}")


def _voc_image(path: Path, root: ElementTree.Element) -> Path:
    name = (root.findtext("filename") or "").strip()
    if not name or Path(name).name != name:
        raise ValueError("it names no image in <filename>")
    beside = path.parent / name
    return beside if beside.is_file() else path.parent.parent / "JPEGImages" / name


def _voc_boxes(root: ElementTree.Element) -> list[tuple[str, tuple[float, float, float, float]]]:
    boxes = []
    for item in root.iter("object"):
        label, box = (item.findtext("name") or "").strip(), item.find("bndbox")
        if not label or box is None:
            raise ValueError("an <object> lacks <name> or <bndbox>")
        left, top, right, bottom = (float(box.findtext(key) or "") for key in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append((label, (left - 1, top - 1, right, bottom)))
    return boxes


class _CocoPart(BaseModel):
    model_config = ConfigDict(frozen=True)


class _CocoImage(_CocoPart):
    id: int
    file_name: str


class _CocoBox(_CocoPart):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _CocoCategory(_CocoPart):
    id: int
    name: str


class _Coco(_CocoPart):
    images: tuple[_CocoImage, ...]
    annotations: tuple[_CocoBox, ...]
    categories: tuple[_CocoCategory, ...]


def coco_tasks(path: Path) -> tuple[TaskSpec, ...]:
    """Return the tasks of annotations in the form of COCO, one for each class; boxes of crowds are left out.

    Args:
        path: the JSON file; its images lie beside it, or in the folder ``images`` there.

    Raises:
        SpecError: If the file is of another form; all faults are listed.
        UsageError: If there is no such file.
    """
    try:
        read = _Coco.model_validate_json(read_text(path))
    except ValidationError as error:
        faults = [
            f"{path}:1: {'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg']}" for item in error.errors()
        ]
        raise SpecError.counted(f"{path} has", faults, where=str(path)) from error
    images: Mapping[int, str] = {item.id: item.file_name for item in read.images}
    labels: Mapping[int, str] = {item.id: item.name for item in read.categories}
    faults = [
        f"{path}:1: annotation {number} is of an image or a category that the file does not have"
        for number, item in enumerate(read.annotations, start=1)
        if item.image_id not in images or item.category_id not in labels
    ]
    if faults:
        raise SpecError.counted(f"{path} has", faults, where=str(path))
    found: Found = {}
    for item in read.annotations:
        if not item.iscrowd:
            label, name = labels[item.category_id], images[item.image_id]
            beside = path.parent / name
            image = beside if beside.is_file() else path.parent / "images" / name
            left, top, width, height = item.bbox
            box = BoxSpec(label=label, box=(left, top, left + width, top + height))
            found.setdefault(label, {}).setdefault(str(image), []).append(box)
    return _tasks(found, path.stem, f"annotations in the form of COCO, {path.name}")


def described(label: str) -> tuple[str, ...]:
    """Return descriptions of the task to find a class, the main one first."""
    return (
        f"Find every {label} in the image.",
        f"Detect all {label} objects in the image.",
        f"Where is each {label} in the image?",
        f"Draw a box around every {label}.",
    )


def _tasks(found: Found, name: str, source: str) -> tuple[TaskSpec, ...]:
    family = _name(name)
    return tuple(
        TaskSpec(
            name=f"{family}-{_name(label)}"[:100],
            descriptions=described(label),
            examples=tuple(
                ImageExampleSpec(image=str(Path(image).absolute()), boxes=_ordered(boxes))
                for image, boxes in sorted(of_images.items())
            ),
            template="image",
            metric=METRIC,
            family=family,
            source=source,
        )
        for label, of_images in sorted(found.items())
    )


def _ordered(boxes: Sequence[BoxSpec]) -> tuple[BoxSpec, ...]:
    return tuple(sorted(boxes, key=lambda item: item.box))


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:60] or "set"
