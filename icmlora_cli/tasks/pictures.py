"""Images of examples, checked as they are read. They need Pillow, of the extra ``icmlora[vision]``."""

import base64
import hashlib
import io
import warnings
from pathlib import Path

from icmlora_cli.errors import IcmloraError
from icmlora_cli.tasks.conversations import BadRowError
from icmlora_cli.tasks.examples import Picture

MOST_BYTES = 1 << 26  # of one image's file
SHOWN = 256  # pixels of the longer side of an image in a report
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}


def check_pillow() -> None:
    """Check that Pillow is installed.

    Raises:
        IcmloraError: If it is not.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise IcmloraError(
            "images need Pillow, which is not installed", hint="pip install 'icmlora[vision]'"
        ) from error


def picture_of(value: object, folder: Path) -> tuple[Picture, tuple[int, int]]:
    """Return an image, whole and in a known format, and its width and height in pixels.

    Args:
        value: a path, relative to the folder; the bytes of an image; an image of Pillow; or what a dataset gives for
            one, a mapping with ``bytes`` or ``path``.
        folder: where relative paths start.

    Raises:
        BadRowError: If there is no such file, or it is no image that can be read.
        IcmloraError: If Pillow is not installed.
    """
    check_pillow()
    from PIL import Image

    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        value = buffer.getvalue()
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    source: bytes | Path
    if isinstance(value, bytes):
        source = data = value
        name = "the image"
    elif isinstance(value, str) and value.strip():
        source, name = folder / value, f"the image {value[:120]!r}"
        data = _file_bytes(source, name)
    else:
        raise BadRowError("the image is neither a path nor an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                form, size = image.format, image.size
                image.load()
    except Exception as error:  # its readers raise many kinds for broken files
        raise BadRowError(f"{name} is broken, or no image: {_first_line(error)}") from error
    if form not in FORMATS:
        raise BadRowError(f"{name} is a {form} file; write it as {', '.join(FORMATS)}")
    return Picture(hashlib.sha256(data).hexdigest(), FORMATS[form], source), size


def thumbnail(picture: Picture) -> tuple[str, int, int]:
    """Return an image of at most ``SHOWN`` pixels a side as a data URI, and the whole one's width and height.

    Raises:
        CorruptFileError: If its file is missing or holds something else.
        IcmloraError: If Pillow is not installed.
    """
    check_pillow()
    from PIL import Image

    with Image.open(io.BytesIO(picture.read())) as image:
        width, height = image.size
        small = image.convert("RGB")
    small.thumbnail((SHOWN, SHOWN))
    buffer = io.BytesIO()
    form = "PNG" if max(width, height) <= SHOWN else "JPEG"
    small.save(buffer, format=form)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{data}", width, height


def _file_bytes(path: Path, name: str) -> bytes:
    if not path.is_file():
        raise BadRowError(f"{name} is missing (looked for at {path.absolute()})")
    if path.stat().st_size > MOST_BYTES:
        raise BadRowError(f"{name} has more than {MOST_BYTES >> 20} MiB")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRowError(f"{name} cannot be read: {error.strerror}") from error


def _first_line(error: Exception) -> str:
    # Pillow names the object that it read from, whose address is different every time
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(" <_io.")[0][:120]
