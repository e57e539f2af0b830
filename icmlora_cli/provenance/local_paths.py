"""Paths of this machine in what is about to leave it: found, and shortened to their last name."""

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
    """Tell whether text begins as an absolute path of any system: ``/home/me``, ``~/x``, a drive, a file URL."""
    return _ALONE.fullmatch(text.strip()) is not None


def names_path(text: str) -> bool:
    """Tell whether an absolute path of two parts or more stands somewhere in text; its first part may hold spaces."""
    return any(_NAMED.match(text, found.start()) is not None for found in _START.finditer(text))


def _last(path: str) -> str:
    parts = _PARTS.findall(path)
    return parts[-1] if parts else path


def shortened(text: str) -> str:
    """Return text with each absolute path replaced by its last part.

    Names of folders can hold anything but a separator, so that nobody can tell where a path ends within a sentence. It
    is taken to end at the last quote or bracket that closes one before it, else at the end of its line: rather too much
    is left out than the name of somebody's folder let out.
    """
    kept, at = [], 0
    while (found := _START.search(text, at)) is not None:
        line_end = text.find("\n", found.end())
        end = len(text) if line_end < 0 else line_end
        closing = _CLOSING.get(text[found.start() - 1]) if found.start() else None
        if closing and (last := text.rfind(closing, found.end(), end)) > 0:
            end = last
        kept += [text[at : found.start()], _last(text[found.start() : end])]
        at = end
    return "".join([*kept, text[at:]])


def shortened_command(text: str) -> str:
    """Return a command line with each absolute path, also in ``--option=PATH`` and ``-oPATH``, cut to its last part."""
    try:
        words = shlex.split(text)
    except ValueError:
        return shortened(text)
    cut = [shortened_word(word) for word in words]
    return text if cut == words else shlex.join(cut)


def shortened_word(word: str) -> str:
    """Return a word of a command line; of an absolute path, also in ``--option=PATH`` and ``-oPATH``, the last part."""
    if re.match("-[A-Za-z]", word) and is_local(word[2:]):
        return word[:2] + _last(word[2:])
    option, equals, value = word.partition("=")
    if option.startswith("-") and equals and is_local(value):
        return f"{option}={_last(value)}"
    return _last(word) if is_local(word) else word


def strings(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each string in a JSON value after the keys that lead to it, joined by dots."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, key)
    else:
        for name, inner in as_object(value).items():
            yield from strings(inner, f"{key}.{name}" if key else str(name))


def clean(value: object, spared: Collection[str] = ()) -> object:
    """Return a JSON value whose strings name no absolute path; the value of a ``command`` is cut by its words.

    Args:
        value: the JSON value.
        spared: keys whose values are left as they are, such as what a user asked for in words.
    """
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, list):
        return [clean(inner, spared) for inner in value]
    return clean_object(value, spared) if is_object(value) else value


def clean_object(value: Mapping[str, object], spared: Collection[str] = ()) -> dict[str, object]:
    """Return what ``clean`` does of a JSON object."""
    return {
        name: inner
        if name in spared
        else (shortened_command(inner) if name == "command" and isinstance(inner, str) else clean(inner, spared))
        for name, inner in value.items()
    }
