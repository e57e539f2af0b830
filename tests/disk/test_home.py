"""Where the registry is: one clear error for each place that it cannot be."""

from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError


@pytest.mark.parametrize("variable", ["ICMLORA_HOME", "ICMLORA_CACHE"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "set, and empty"),
        ("~no-such-user-at-all/x", "a user that does not exist"),
        ("some/where", "another folder wherever a command runs"),
        ("{file}", "is no folder"),
    ],
)
def test_a_place_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ICMLORA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ICMLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(variable, value.format(file=tmp_path / "file"))
    with pytest.raises(UsageError, match=said) as caught:
        Home.from_environment()
    assert variable in caught.value.message and caught.value.hint is not None


def test_a_place_that_is_not_there_yet_and_one_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICMLORA_HOME", str(tmp_path / "new" / "home"))
    monkeypatch.setenv("ICMLORA_CACHE", "~/cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    home = Home.from_environment()
    assert (home.root, home.cache) == (tmp_path / "new" / "home", tmp_path / "cache")
