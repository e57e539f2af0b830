"""When a loss is flat: the rate falls twice, and the third time the stage ends."""

from icmlora_cli.generator.plateau import Plateau


def test_a_loss_that_falls_by_more_than_a_hundredth_is_not_flat() -> None:
    plateau = Plateau(window=4)
    for step in range(400):
        assert not plateau.add(0.98 ** (step // 4))
    assert plateau.factor == 1.0


def test_windows_are_compared_by_their_means_and_not_step_by_step() -> None:
    plateau = Plateau(window=2)
    assert not any(plateau.add(value) for value in (1.0, 9.0, 8.0, 1.0, 1.0, 7.0))  # means 5, 4.5, 4
    assert plateau.drops == 0


def test_the_rate_falls_twice_and_then_the_stage_ends() -> None:
    plateau = Plateau(window=3)
    ends, factors = [], []
    for _ in range(12):
        ends.append(plateau.add(1.0))
        factors.append(plateau.factor)
    assert ends == [False] * 11 + [True]  # the first window has nothing to be compared with
    assert factors == [1.0] * 5 + [0.1] * 3 + [0.01] * 4


def test_a_state_goes_on_where_it_was() -> None:
    losses = [1.0, 0.9, 0.8, 0.85, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
    whole, stopped = Plateau(window=2), Plateau(window=2)
    expected = [(whole.add(value), whole.factor) for value in losses]
    found = [(stopped.add(value), stopped.factor) for value in losses[:5]]
    resumed = Plateau.of(2, stopped.numbers())
    assert found + [(resumed.add(value), resumed.factor) for value in losses[5:]] == expected
