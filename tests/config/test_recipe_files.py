"""Train recipes in groups: files and generators of 0.1.0, and options of the command line."""

import json
from pathlib import Path

import pytest

import icmlora_cli
from icmlora_cli.config.recipes import resolve
from icmlora_cli.config.train import TrainRecipe, nested
from icmlora_cli.errors import SpecError


def test_every_key_that_has_moved_is_told_at_once_with_its_new_place(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("arch: token\nlatent_dim: 32\nsteps: 5\nvectors:\n  draws: 2\nseed: 1\n")
    with pytest.raises(SpecError) as caught:
        resolve(TrainRecipe, file, "train", {})
    assert list(caught.value.faults) == [
        f"{file}:1: arch: now stands under network:",
        f"{file}:2: latent_dim: now stands under network:",
        f"{file}:3: steps: now stands under optimiser:",
        f"{file}:4: vectors: now stands under data:",
    ]


def test_the_command_line_names_a_setting_without_its_group(tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    file.write_text("network: {latent_dim: 8}\noptimiser: {steps: 5}\n")
    recipe = resolve(TrainRecipe, file, "train", {"arch": "conv1d", "steps": 7, "seed": 3})
    assert (recipe.network.arch, recipe.network.latent_dim, recipe.optimiser.steps, recipe.seed) == ("conv1d", 8, 7, 3)
    with pytest.raises(SpecError) as caught:
        resolve(TrainRecipe, file, "train", {"steps": 0, "seed": -1})
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["--steps", "--seed"]


def test_steps_on_the_command_line_replace_epochs(tmp_path: Path) -> None:
    file = tmp_path / "epochs.yaml"
    file.write_text("optimiser: {epochs: 20, patience: 3, batch_size: 4}\n")
    recipe = resolve(TrainRecipe, file, "train", {})
    assert recipe.optimiser.resolved(10).steps == 20 * 3 and recipe.optimiser.epoch_steps(10) == 3
    optimiser = resolve(TrainRecipe, file, "train", {"steps": 7}).optimiser
    assert (optimiser.steps, optimiser.epochs, optimiser.patience) == (7, None, None)
    assert optimiser.resolved(10).steps == 7


def test_what_0_1_0_wrote_is_read_and_has_the_same_values() -> None:
    manifest = Path(icmlora_cli.__file__).parent / "bundled" / "smollm2-135m" / "generator.json"
    flat = json.loads(manifest.read_text(encoding="utf-8"))["recipe"]
    recipe = TrainRecipe.model_validate(nested(flat))
    assert recipe.flat() == flat
    assert recipe.network.prior == "neighbours" and recipe.data.vectors.layer == 0.73
    assert TrainRecipe.model_validate(nested(recipe.model_dump())) == recipe
