"""Where the memory of a device does not suffice, fewer rows go through at once; the result is the same."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.train import TrainRecipe, VectorRecipe
from icmlora_cli.errors import DeviceMemoryError
from icmlora_cli.generator.checkpoint import load_generator
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.compare import compare
from icmlora_cli.workflows import finetune
from icmlora_cli.workflows.evaluate import evaluate
from icmlora_cli.workflows.evaluate.evaluate import EvalRequest
from icmlora_cli.workflows.finetune import FinetuneRequest
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenOptions, GenRequest
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import OnProgress, Progress, silent
from icmlora_cli.workflows.train import train
from tests.sim.conftest import HARVEST, Place, make_place
from tests.sim.test_workflows import EPISODES, TOKEN
from tests.sim_device import SimDevice
from tests.train_recipes import varied

pytestmark = pytest.mark.sim

T = TypeVar("T")
Run = Callable[[Place, OnProgress], T]


@pytest.fixture(scope="module")
def twice(sim: SimDevice, tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Place]:
    """Two registries of a tiny Llama on ``sim:0``: one for runs with plenty of memory, one for runs with little."""
    rich, poor = (make_place("sim:0", tiny_bases["llama"], tmp_path_factory.mktemp(name)) for name in ("rich", "poor"))
    return rich, poor


def with_little_memory(sim: SimDevice, twice: tuple[Place, Place], share: float, run: "Run[T]") -> tuple[T, T, str]:
    """Run something with plenty of memory, and with a share of what that took; return the results and what was said."""
    rich, poor = twice
    with sim.limited(1 << 40):
        wanted = run(rich, silent)
        peak = sim.peak
    notes: list[Progress] = []
    with sim.limited(int(share * peak)):
        found = run(poor, notes.append)
        assert sim.refusals > 0
    return wanted, found, "; ".join(item.label for item in notes if item.stage == "device")


def nearly(one: Adapter, two: Adapter) -> bool:
    return compare(one, two).all.error < 1e-3


def test_harvest(sim: SimDevice, twice: tuple[Place, Place]) -> None:
    recipe = HARVEST.model_copy(update={"batch_size": 16, "steps": 3})

    def run(place: Place, on_progress: OnProgress) -> Adapter:
        done = harvest.run(place.seen[:1], place.base, recipe, place.home, device="sim:0", on_progress=on_progress)
        return read_adapter(done.records[0].last)

    wanted, found, said = with_little_memory(sim, twice, 0.6, run)
    assert nearly(wanted, found)
    assert "does not suffice for 16 rows at once: 8 (training)" in said


def test_finetune(sim: SimDevice, twice: tuple[Place, Place]) -> None:
    def run(place: Place, on_progress: OnProgress) -> Adapter:
        recipe = finetune.DEFAULTS.model_copy(update={"steps": 3, "batch_size": 16})
        request = FinetuneRequest(place.examples(16), recipe)
        out = place.folder / "tuned"
        return read_adapter(finetune.run(out, request, place.base, device="sim:0", on_progress=on_progress).folder)

    wanted, found, said = with_little_memory(sim, twice, 0.6, run)
    assert nearly(wanted, found) and "(training)" in said


TRAININGS: dict[str, tuple[TrainRecipe, str]] = {
    "token": (varied(TOKEN, batch_size=256), "generator"),
    "neighbours": (varied(TOKEN, batch_size=256, prior="neighbours", prior_share=0.3), "generator"),
    "p-diff": (varied(TOKEN, batch_size=256, arch="p-diff"), "generator"),
    "episodes": (varied(TOKEN, episodes=EPISODES.model_copy(update={"rows": 16})), "episodes"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_train(sim: SimDevice, twice: tuple[Place, Place], name: str) -> None:
    recipe, work = TRAININGS[name]

    def run(place: Place, on_progress: OnProgress) -> dict[tuple[int, str], float]:
        done = train.run(place.seen, place.base, recipe, place.home, name=name, device="sim:0", on_progress=on_progress)
        curve = load_generator(done.folder).manifest.curve
        return {(row[0], loss): value for row in curve for loss, value in row[1].items()}

    wanted, found, said = with_little_memory(sim, twice, 0.6, run)
    assert wanted and found == pytest.approx(wanted, rel=1e-2, abs=1e-3)
    assert f"({work})" in said


def test_a_batch_whose_rows_are_normalised_together_is_not_cut(sim: SimDevice, twice: tuple[Place, Place]) -> None:
    recipe = varied(TOKEN, batch_size=256, arch="conv1d")

    def run(place: Place, on_progress: OnProgress) -> None:
        train.run(place.seen, place.base, recipe, place.home, name="conv1d", device="sim:0", on_progress=on_progress)

    with pytest.raises(DeviceMemoryError, match=r"the fewest rows that go together \(generator\)") as caught:
        with_little_memory(sim, twice, 0.6, run)
    assert "batch_size" in str(caught.value.hint)


def test_eval(sim: SimDevice, twice: tuple[Place, Place]) -> None:
    recipe = EvalRecipe(methods=("base", "in-context", "harvested"), limit=6, resamples=100, outputs=1)

    def run(place: Place, on_progress: OnProgress) -> dict[tuple[str, str, str], float]:
        result = evaluate.run(
            place.tasks[:1], place.base, EvalRequest(recipe), place.home, device="sim:0", on_progress=on_progress
        ).result
        return {
            (item.task, item.method, name): figure.value
            for item in result.scores
            for name, figure in item.figures.items()
        }

    wanted, found, said = with_little_memory(sim, twice, 0.6, run)
    assert wanted and found == pytest.approx(wanted, rel=1e-3)
    assert "(passages)" in said or "(scoring)" in said


def test_gen(sim: SimDevice, twice: tuple[Place, Place]) -> None:
    recipe = varied(
        TOKEN, reader="attention", reader_dim=8, condition_dim=8,
        vectors=VectorRecipe(pooling="tokens", draws=2, shots=2),
    )  # fmt: skip
    for place in twice:
        train.run(place.seen, place.base, recipe, place.home, name="reads", device="sim:0")

    def run(place: Place, on_progress: OnProgress) -> Adapter:
        options = GenOptions(examples=place.examples(6), samples=2, explain=True)
        request = GenRequest(place.home.generators / "reads", options=options)
        out = place.folder / "made"
        generate.run("Say owl.", out, request, place.base, place.home, device="sim:0", on_progress=on_progress)
        return read_adapter(out)

    wanted, found, said = with_little_memory(sim, twice, 0.6, run)
    assert nearly(wanted, found)
    assert "(scoring)" in said or "(tuning)" in said


def test_scoring_and_reading_go_on_with_what_was_learned_of_the_memory(
    sim: SimDevice, twice: tuple[Place, Place]
) -> None:
    place, notes = twice[0], list[str]()
    loaded = load_base(place.base, device="sim:0", on_note=notes.append)
    rows = encode_task(loaded.family, place.tasks[0], place.tasks[0].examples("train"))
    wanted = score_rows(loaded, rows)
    with sim.limited(1 << 40):
        score_rows(loaded, rows)
        peak = sim.peak
    with sim.limited(peak // 3):
        assert score_rows(loaded, rows).nll == pytest.approx(wanted.nll, rel=1e-4)
        assert notes and loaded.micro_batch.rows["scoring"] <= len(rows) // 2
        said = len(notes)
        refused = sim.refusals
        score_rows(loaded, rows)
        assert (len(notes), sim.refusals) == (said, refused)


def test_when_one_row_does_not_fit_an_error_says_so(sim: SimDevice, twice: tuple[Place, Place]) -> None:
    place = twice[0]
    loaded = load_base(place.base, device="sim:0")
    rows = encode_task(loaded.family, place.tasks[0], place.tasks[0].examples("train"))
    with (
        sim.limited(1000),
        pytest.raises(DeviceMemoryError, match="sim:0 does not suffice for the fewest rows") as caught,
    ):
        score_rows(loaded, rows)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError) and "--device cpu" in str(caught.value.hint)
    assert score_rows(loaded, rows).nll  # with memory it goes on
