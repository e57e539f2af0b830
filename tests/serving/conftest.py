"""The registry of the commands' tests, an engine that answers with a tiny base, and a playground on that registry."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import Base
from tests.cli.conftest import Registry, _template, empty, trained

__all__ = ["_template", "empty", "trained"]


@pytest.fixture
def tiny_engine(llama_base: Base, home: Home) -> Iterator[object]:
    """An engine of the tiny Llama alone, whose answers have four tokens at most."""
    pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")
    from icmlora_cli.serving.engine import EngineSettings, load_engine

    engine = load_engine(llama_base, home, settings=EngineSettings(queue=64, max_tokens=4), device="cpu")
    yield engine
    engine.close()


@pytest.fixture
def playground(trained: Registry) -> Iterator[object]:
    """A playground with the tiny registry's generator and a made-up evaluation."""
    pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")
    from icmlora_cli.registry.generators import GeneratorStore
    from icmlora_cli.serving.engine import EngineSettings, load_engine
    from icmlora_cli.serving.play.playground import Playground
    from icmlora_cli.workflows.base.pull import resolve

    home = Home(trained.home, trained.root / "icmlora-cache")
    folder = GeneratorStore(home).find("default")
    base, settings = resolve(str(trained.base), home), EngineSettings(queue=4)
    engine = load_engine(base, home, generator=folder, settings=settings, device="cpu")
    samples = runpy.run_path(str(Path(__file__).parents[1] / "report" / "samples.py"))
    yield Playground(engine, home, samples["sample"]())
    engine.close()
