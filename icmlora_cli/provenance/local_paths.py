"""Finding absolute paths in texts that are about to be published, and shortening each to its last part."""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping

from icmlora_cli.disk.files import as_object, is_object

_ROOT = r"(?:/(?![/\s])|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\|file:/)"
_ALONE = re.compile(rf"{_ROOT}.*[^/\\].*", re.DOTALL)
_START = re.compile(rf"(?:^|(?<=[\s'\"`=(\[,;]))/?{_ROOT}", re.MULTILINE)
_CLOSING = {"'": "'", '"': '"', "`": "`", "(": ")", "[": "]"}
_WORD = r"[^\s'\"`)\],;/\\]+"
_NAMED = re.compile(rf"/?{_ROOT}{_WORD}(?: {_WORD}){{0,3}}[/\\]+[^\s/\\]")
_PARTS = re.compile(r"[^/\\]+")


def is_local(text: str) -> bool:
    """Tell whether a text is an absolute path of any system: ``/home/me``, ``~/x``, one on a drive, a file URL."""
    return _ALONE.fullmatch(text.strip()) is not None


def names_path(text: str) -> bool:
    """Tell whether a text holds an absolute path of two parts or more; the first part may hold spaces."""
    return any(_NAMED.match(text, start.start()) is not None for start in _START.finditer(text))


def _last(path: str) -> str:
    parts = _PARTS.findall(path)
    return parts[-1] if parts else path


def shortened(text: str) -> str:
    """Return a text with each absolute path replaced by its last part.

    Names of folders can hold anything but a separator, so the end of a path within a sentence cannot be known. If the
    path follows a quote or bracket, it is taken to end at the last one on its line that closes it, otherwise at the end
    of the line. That may remove too much, but never publishes the name of somebody's folder.
    """
    pieces, position = [], 0
    while (start := _START.search(text, position)) is not None:
        line_end = text.find("\n", start.end())
        end = len(text) if line_end < 0 else line_end
        closing = _CLOSING.get(text[start.start() - 1]) if start.start() else None
        if closing and (last := text.rfind(closing, start.end(), end)) > 0:
            end = last
        pieces += [text[position : start.start()], _last(text[start.start() : end])]
        position = end
    return "".join([*pieces, text[position:]])


def shortened_command(text: str) -> str:
    """Return a command line with each absolute path cut to its last part, in ``--option=PATH`` and ``-oPATH`` too."""
    try:
        words = shlex.split(text)
    except ValueError:
        return shortened(text)
    cut = [shortened_word(word) for word in words]
    return text if cut == words else shlex.join(cut)


def shortened_word(word: str) -> str:
    """Return a word of a command line, whose absolute path is cut to its last part; see ``shortened_command``."""
    if re.match("-[A-Za-z]", word) and is_local(word[2:]):
        return word[:2] + _last(word[2:])
    option, equals, value = word.partition("=")
    if option.startswith("-") and equals and is_local(value):
        return f"{option}={_last(value)}"
    return _last(word) if is_local(word) else word


def strings(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each string within a JSON value.

    Args:
        value: the JSON value.
        key: the keys that lead to the value, joined by dots.

    Yields:
        The keys that lead to the string, joined by dots, and the string.
    """
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, key)
    else:
        for name, inner in as_object(value).items():
            yield from strings(inner, f"{key}.{name}" if key else str(name))


def without_paths(value: object) -> object:
    """Return a JSON value in which each string that is an absolute path, as a whole, is cut to its last part.

    Strings that hold a path among other words are left as they are: a model's chat template may.
    """
    if isinstance(value, str):
        return _last(value) if is_local(value) and names_path(value) else value
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    return {name: without_paths(inner) for name, inner in value.items()} if is_object(value) else value


def clean(value: object, spared: Collection[str] = ()) -> object:
    """Return a JSON value in whose strings absolute paths are shortened, and in whose ``command`` each word is.

    Args:
        value: the JSON value.
        spared: the keys whose values are left as they are, such as a task text.
    """
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, list | tuple):
        return [clean(inner, spared) for inner in value]
    return clean_object(value, spared) if is_object(value) else value


def clean_object(value: Mapping[str, object], spared: Collection[str] = ()) -> dict[str, object]:
    """Return a JSON object whose values are as ``clean`` returns them."""
    return {
        name: inner
        if name in spared
        else (shortened_command(inner) if name == "command" and isinstance(inner, str) else clean(inner, spared))
        for name, inner in value.items()
    }
