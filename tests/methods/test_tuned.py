"""Fine-tuning within a time, and one LoRA for all tasks."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.quick_tune import tune_for
from icmlora_cli.lm.trainers import LoraTrainer
from icmlora_cli.methods.method import UnavailableError
from icmlora_cli.methods.tuned import TunedMethod
from icmlora_cli.weights.adapter import read_adapter
from icmlora_cli.weights.compare import compare
from icmlora_cli.workflows.evaluate.methods import methods_of
from icmlora_cli.workflows.evaluate.scores import nll_on_shots

if TYPE_CHECKING:
    from tests.methods.conftest import Room

MakeRoom = Callable[..., "Room"]
RECIPE = HarvestRecipe(steps=60, learning_rate=5e-2, rank=2)


class Clock:
    """Ticks by itself, a second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_it_stops_when_the_time_is_up_and_has_learned_the_examples(make_room: MakeRoom) -> None:
    room = make_room(generator=False)
    context, loaded = room.context(2), room.evaluation.loaded
    rows = encode_task(loaded.family, context.task, context.shots)
    trainer = LoraTrainer(loaded, RECIPE)
    short = tune_for(trainer, rows, seconds=0.0, clock=Clock())
    long = tune_for(trainer, rows, seconds=60.0, clock=Clock())
    trainer.close()
    assert (short.steps, long.steps) == (1, 60) and long.seconds == 60.0
    before, after = nll_on_shots(loaded, context, short.adapter), nll_on_shots(loaded, context, long.adapter)
    assert after < before - 0.2
    method = TunedMethod(loaded, RECIPE, lambda context: 0.0, "tuned", "", "0 s")
    served = method.serve(context)
    assert served.about["steps"] == 1 and served.adapter is not None
    assert compare(served.adapter, short.adapter).all.error < 1e-5
    with pytest.raises(UnavailableError):
        method.serve(type(context)(context.task, ()))


def test_as_long_as_generation_takes_is_measured(make_room: MakeRoom) -> None:
    room = make_room()
    method = {item.name: item for item in methods_of(room.evaluation)}["tuned-same-time"]
    assert isinstance(method, TunedMethod)
    seconds = method.seconds(room.context(0))
    assert 0.0 < seconds < 30.0
    served = method.serve(room.context(0))
    assert isinstance(served.about["steps"], int) and served.about["steps"] >= 1


def test_the_multi_task_lora_learns_all_tasks_and_is_trained_once(make_room: MakeRoom) -> None:
    room = make_room(generator=False, multi_task_steps=40)
    method = {item.name: item for item in methods_of(room.evaluation)}["multi-task"]
    loaded = room.evaluation.loaded
    steps: list[int] = []
    object.__setattr__(method, "on_step", steps.append)
    served = method.serve(room.context(0))
    assert served.about == {"steps": 40, "tasks": 2} and steps == list(range(1, 41))
    again = method.serve(room.context(1))
    assert len(steps) == 40  # kept, not trained again
    assert served.adapter is not None and again.adapter is not None
    assert compare(served.adapter, again.adapter).all.error < 1e-6
    (folder,) = (room.home.root / "baselines").glob("*/multi-task-*")
    assert compare(read_adapter(folder), served.adapter).all.error < 1e-6
    assert not (folder / "state.safetensors").exists()
    nothing = TunedMethod(loaded, RECIPE, lambda context: 0.0, "tuned", "", "0 s")
    for index in (0, 1):
        context = room.context(index)
        untrained = nothing.serve(context).adapter
        assert untrained is not None
        assert nll_on_shots(loaded, context, served.adapter) < nll_on_shots(loaded, context, untrained)
