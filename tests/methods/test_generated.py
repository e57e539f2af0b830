"""The methods of a generator: what each is told, and that being told otherwise changes what comes out."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch

from icmlora_cli.methods.controls import NoiseMethod, SwappedText, words_in_common
from icmlora_cli.methods.generated import BestOfMethod, GeneratedMethod, random_text
from icmlora_cli.methods.method import UnavailableError
from icmlora_cli.methods.prompting import BaseMethod, DescribedMethod, InContextMethod
from icmlora_cli.weights.compare import compare, norm
from icmlora_cli.workflows.evaluate.methods import methods_of
from icmlora_cli.workflows.evaluate.scores import nll_on_shots

if TYPE_CHECKING:
    from tests.methods.conftest import Room

MakeRoom = Callable[..., "Room"]


def test_generated_from_the_right_text_is_near_the_oracle_and_from_the_wrong_one_is_not(make_room: MakeRoom) -> None:
    room = make_room()
    by_name = {method.name: method for method in methods_of(room.evaluation)}
    for index in (0, 1):
        own, other = room.library.adapters()[index], room.library.adapters()[1 - index]
        context = room.context(index)
        right = by_name["generated"].serve(context).adapter
        shots = by_name["generated-shots"].serve(context).adapter
        swapped = by_name["swapped-text"].serve(context)
        assert right is not None and shots is not None and swapped.adapter is not None
        assert compare(right, own).all.error < 0.3 and compare(shots, own).all.error < 0.3
        if swapped.about["text"] == room.tasks[1 - index].descriptions[0]:
            assert compare(swapped.adapter, other).all.error < 0.3
        assert compare(swapped.adapter, own).all.error > 2 * compare(right, own).all.error


def test_texts_of_the_controls(make_room: MakeRoom) -> None:
    room = make_room(generator=False)
    context = room.context(0)
    assert random_text(context) == random_text(context) != random_text(room.context(1))
    assert len(random_text(context).split()) == 8
    texts = {"always_cat": "Always answer with cat.", "twin": "Always answer with a cat.", "far": "Translate it."}
    assert words_in_common(texts["always_cat"], texts["twin"]) == pytest.approx(4 / 5)
    assert SwappedText(texts, {}).other(context) == "far"  # not the twin, which is no wrong text
    assert SwappedText(texts | {"kin": "Add one."}, {"kin": None}).other(context) in ("far", "kin")
    alone = SwappedText({"always_cat": texts["always_cat"]}, {})
    assert alone.other(context) is None
    with pytest.raises(UnavailableError, match="no other task"):
        alone(context)


def test_examples_are_read_leaving_one_out(make_room: MakeRoom) -> None:
    room = make_room(generator=False)
    reader, shots = room.evaluation.reader(), room.context(0).shots
    words, shown = reader.readings(None, shots)
    assert words is None and shown is not None and len(shots) == 4
    first = reader.demonstrations(list(shots[1:]), shots[0].input)
    last = reader.demonstrations(list(shots[:3]), shots[3].input)
    middle = [reader.demonstrations([*shots[:i], *shots[i + 1 :]], shots[i].input) for i in (1, 2)]
    wanted = torch.stack([first, *middle, last]).mean(0)
    assert torch.allclose(shown[0], wanted, atol=1e-6) and len(shown) == 1
    assert torch.equal(reader.examples_vector(shots), shown[0])
    assert reader.readings("Say cat.", shots[:1])[1] is None


def test_the_best_of_k_is_the_one_that_scores_best_on_the_examples(make_room: MakeRoom) -> None:
    room = make_room()
    source = room.evaluation.source()
    assert source is not None
    context = room.context(0)
    by_name = {method.name: method for method in methods_of(room.evaluation)}
    served = by_name["best-of"].serve(context)
    scores = served.about["nll_on_shots"]
    assert isinstance(scores, list) and len(scores) == 3 and served.about["sample"] == scores.index(min(scores))
    spread = served.about["spread"]
    assert isinstance(spread, float) and 0 < spread < 2
    assert served.adapter is not None
    assert nll_on_shots(room.evaluation.loaded, context, served.adapter) == pytest.approx(min(scores), abs=1e-3)
    mean = source.make(context.text, context.shots)
    assert nll_on_shots(room.evaluation.loaded, context, mean) == pytest.approx(scores[0], abs=1e-3)

    def last(context: object, adapter: object) -> float:
        calls.append(adapter)
        return -len(calls)

    calls: list[object] = []
    assert BestOfMethod(source, last, 3, 7).serve(context).adapter is calls[2]
    with pytest.raises(UnavailableError):
        BestOfMethod(source, last, 3, 7).serve(type(context)(context.task, context.shots[:1]))
    with pytest.raises(UnavailableError):
        GeneratedMethod(source, with_shots=True).serve(type(context)(context.task, ()))


def test_noise_has_the_norm_of_the_harvested_adapters_and_not_their_direction(make_room: MakeRoom) -> None:
    room = make_room(generator=False)
    method = NoiseMethod(room.library, 0)
    one, two = room.library.adapters()
    noise = method.serve(room.context(0)).adapter
    assert noise is not None
    module = next(iter(one.factors))
    wanted = (float(one.delta(module).norm()) + float(two.delta(module).norm())) / 2
    assert float(noise.delta(module).norm()) == pytest.approx(wanted, rel=1e-4)
    assert norm(noise) == pytest.approx((norm(one) + norm(two)) / 2, rel=0.1)
    assert abs(compare(noise, one).all.cosine) < 0.3
    again, other = method.serve(room.context(0)).adapter, method.serve(room.context(1)).adapter
    assert again is not None and compare(again, noise).all.error < 1e-6
    assert other is not None and compare(other, noise).all.error > 0.5


def test_prompting_methods_merge_nothing(make_room: MakeRoom) -> None:
    context = make_room(generator=False).context(0)
    base, told, shown = (method.serve(context) for method in (BaseMethod(), DescribedMethod(), InContextMethod()))
    assert base.adapter is told.adapter is shown.adapter is None
    assert (base.described, told.described, shown.described) == (False, True, False)
    assert (base.shots, told.shots, shown.shots) == ((), (), context.shots) and len(context.shots) == 4
    train = set(context.task.examples("train"))
    assert set(context.shots) <= train and not train & set(context.task.examples("test"))
    with pytest.raises(UnavailableError):
        InContextMethod().serve(type(context)(context.task, ()))


def test_without_a_generator_its_methods_are_left_out(make_room: MakeRoom) -> None:
    names = {method.name for method in methods_of(make_room(generator=False).evaluation)}
    assert "harvested" in names and not names & {"generated", "best-of", "swapped-text", "tuned-same-time", "conv1d"}


def test_a_prompt_that_has_the_description_anyway_needs_no_described_method(make_room: MakeRoom) -> None:
    names = {method.name for method in methods_of(make_room(generator=False, protocol="described").evaluation)}
    assert "described" not in names and "base" in names


def test_companions_are_trained_on_the_same_harvest_or_say_how(make_room: MakeRoom) -> None:
    room = make_room(methods=["conv1d", "generated"], train_baselines=False)
    conv1d, _ = methods_of(room.evaluation)
    with pytest.raises(UnavailableError, match=r"icmlora train --recipe train/conv1d --name default\.conv1d"):
        conv1d.serve(room.context(0))
    room = make_room(methods=["conv1d", "generated"])
    conv1d, generated = methods_of(room.evaluation)
    made, ours = conv1d.serve(room.context(0)).adapter, generated.serve(room.context(0)).adapter
    assert made is not None and ours is not None and compare(made, ours).all.error > 1e-3
    assert (room.home.generators / "default.conv1d" / "generator.json").is_file()
