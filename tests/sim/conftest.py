"""The simulated accelerator, and the same registry twice: made on it, and made on the CPU."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from tests import sim_device
from tests.conftest import ARCHITECTURES
from tests.sim_device import SimDevice

HARVEST = HarvestRecipe(steps=4, batch_size=4, learning_rate=3e-2, keep=1, rank=2, validate_on=2)
SEEN, UNSEEN = ("cat", "dog"), ("owl",)


@dataclass(frozen=True)
class Place:
    """A registry with tasks and their harvested adapters, all made on one device.

    Args:
        device: The device, as ``--device`` names it.
        base: The base.
        home: The registry.
        tasks: Two tasks to learn, and an unseen one.
        folder: A folder to write in.
    """

    device: str
    base: Base
    home: Home
    tasks: tuple[Task, ...]
    folder: Path

    @property
    def seen(self) -> tuple[Task, ...]:
        return self.tasks[: len(SEEN)]

    def examples(self, count: int = 6) -> Path:
        """Write a file of examples; return its path."""
        path = self.folder / f"examples-{count}.jsonl"
        rows = [f'{{"input": "thing {index}", "output": "cat"}}\n' for index in range(count)]
        path.write_text("".join(rows), encoding="utf-8")
        return path


@dataclass(frozen=True)
class Both:
    """The two places, which must come to the same results."""

    sim: Place
    cpu: Place

    def __iter__(self) -> Iterator[Place]:
        return iter((self.sim, self.cpu))


@pytest.fixture(scope="module")
def sim() -> Iterator[SimDevice]:
    """The simulated accelerator, which is the best device of this process for as long as a module's tests run."""
    if (reason := sim_device.missing()) is not None:
        pytest.skip(reason)
    with sim_device.in_use() as device:
        yield device


def register(home: Home, word: str, split: str) -> Task:
    rows = [{"input": " ".join(["thing"] * (1 + at % 4)) + f" {at}", "output": word} for at in range(40)]
    texts = [f"Always answer with {word}.", f"Write {word}."]
    spec = TaskSpec.model_validate(
        {"name": f"say_{word}", "descriptions": texts, "examples": rows, "split": split, "family": "say"}
    )
    return TaskStore(home).add(spec, [Example(**row) for row in rows])[0]


def make_place(device: str, model: Path, root: Path) -> Place:
    from icmlora_cli.workflows.base.pull import pull
    from icmlora_cli.workflows.harvest import harvest

    home = Home(root / "home", root / "cache")
    base = pull(str(model), home, offline=True)
    tasks = tuple(
        register(home, word, split) for words, split in ((SEEN, "train"), (UNSEEN, "unseen")) for word in words
    )
    harvest.run(tasks, base, HARVEST, home, device=device)
    return Place(device, base, home, tasks, root)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def both(
    request: pytest.FixtureRequest,
    sim: SimDevice,
    tiny_bases: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Both:
    """The same registry made on ``sim:0`` and on the CPU, for each architecture."""
    places = (
        make_place(device, tiny_bases[request.param], tmp_path_factory.mktemp(f"{request.param}-{name}"))
        for name, device in (("sim", "sim:0"), ("cpu", "cpu"))
    )
    return Both(*places)
