"""The registry of the commands' tests, and an engine that answers with a tiny base."""

from collections.abc import Iterator

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import Base
from tests.cli.conftest import _template, empty, trained

__all__ = ["_template", "empty", "trained"]


@pytest.fixture
def tiny_engine(llama_base: Base, home: Home) -> Iterator[object]:
    """An engine of the tiny Llama alone, whose answers have four tokens at most."""
    pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")
    from icmlora_cli.serving.engine import EngineSettings, load_engine

    engine = load_engine(llama_base, home, settings=EngineSettings(queue=64, max_tokens=4), device="cpu")
    yield engine
    engine.close()
