"""The whole way on tiny models of four real architectures: harvest, train, gen, merge, eval."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk import checksums, files
from icmlora_cli.disk.home import Home
from icmlora_cli.disk.safetensors_header import safetensors_metadata
from icmlora_cli.errors import AlreadyExistsError, BaseUnavailableError, CorruptFileError, NotFoundError, UsageError
from icmlora_cli.generator.checkpoint import load_generator
from icmlora_cli.lm.load import load_base
from icmlora_cli.registry.adapters import STATE, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.adapter import read_adapter
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.evaluate import evaluate
from icmlora_cli.workflows.evaluate.evaluate import EvalRequest
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenOptions, GenRequest
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import Progress
from icmlora_cli.workflows.registry import storage
from icmlora_cli.workflows.train import train
from tests.train_recipes import train_recipe, varied

HARVEST = HarvestRecipe(steps=30, batch_size=6, learning_rate=3e-2, keep=2, keep_every=2, save_every=10, rank=2)
TRAIN = train_recipe(
    steps=250, batch_size=8, learning_rate=3e-3, hidden_dim=48, code_dim=16, latent_dim=4, save_every=100,
    vectors=VectorRecipe(draws=3, shots=2),
)  # fmt: skip
METHODS = EvalRecipe(methods=("base", "average", "generated", "harvested"), resamples=100)
TEXTS = {"always_cat": "Always answer with cat.", "always_dog": "Whatever is asked, say dog."}


def register(home: Home, *, unseen: bool = False) -> tuple[Task, ...]:
    tasks = []
    for name, text in TEXTS.items():
        word = name.removeprefix("always_")
        rows = [{"input": f"word {index}", "output": word} for index in range(40)]
        spec = TaskSpec.model_validate({"name": name, "descriptions": [text, f"Write {word}."], "examples": rows})
        tasks.append(TaskStore(home).add(spec, [Example(**row) for row in rows])[0])
    if unseen:
        rows = [{"input": f"item {index}", "output": "owl"} for index in range(40)]
        spec = TaskSpec.model_validate(
            {"name": "always_owl", "descriptions": ["Say owl."], "examples": rows, "split": "unseen"}
        )
        tasks.append(TaskStore(home).add(spec, [Example(**row) for row in rows])[0])
    return tuple(tasks)


def through_train(home: Home, base: Base) -> tuple[tuple[Task, ...], train.TrainResult]:
    tasks = register(home)
    harvest.run(tasks, base, HARVEST, home, device="cpu")
    return tasks, train.run(tasks, base, TRAIN, home, device="cpu")


def test_the_whole_way(tiny_base: Base, home: Home, tmp_path: Path) -> None:
    tasks, trained = through_train(home, tiny_base)
    assert trained.trained and trained.error < 0.2
    made = generate.run(
        TEXTS["always_cat"], tmp_path / "out", GenRequest(trained.folder), tiny_base, home, device="cpu"
    )
    assert {path.name for path in made.folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "README.md", "icmlora.json",
    }  # fmt: skip
    generate.run(
        TEXTS["always_cat"], tmp_path / "model", GenRequest(trained.folder, merged=True), tiny_base, home, device="cpu"
    )
    ids = torch.arange(5, 25)[None]
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    loaded = load_base(tiny_base, device="cpu")
    adapted = PeftModel.from_pretrained(loaded.model, str(made.folder))
    assert torch.allclose(adapted(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-4)
    result = evaluate.run(tasks, tiny_base, EvalRequest(METHODS, trained.folder), home, device="cpu").result
    for task in TEXTS:
        figures = (result.score(task, method).figures["nll"].value for method in ("base", "harvested", "generated"))
        base, harvested, generated = figures
        assert harvested < base - 0.1
        assert abs(generated - harvested) < 0.2 * (base - harvested)


def test_what_it_came_from_and_cost_goes_along(llama_base: Base, home: Home, tmp_path: Path) -> None:
    tasks, trained = through_train(home, llama_base)
    about = files.read_json(trained.folder / "generator.json")
    records = {record.task: record for record in AdapterStore(home).all()}
    assert [item["task"] for item in about["sources"]] == [task.name for task in tasks]
    for task, item in zip(tasks, about["sources"], strict=True):
        record = records[task.name]
        assert (item["key"], item["data_hash"], item["seconds"]) == (
            record.key, task.data_hash, record.figures["seconds"],
        )  # fmt: skip
        assert item["recipe"]["seed"] == HARVEST.seed and item["device"] == "cpu" and "torch" in item["versions"]
    seconds = sum(record.figures["seconds"] for record in records.values())
    assert about["cost"]["harvest_seconds"] == seconds
    assert about["cost"]["train_seconds"] == about["figures"]["seconds"] > 0
    said = f"Harvesting its adapters took {seconds:,.0f} s"
    assert said in (trained.folder / "README.md").read_text(encoding="utf-8")
    made = generate.run("Say cat.", tmp_path / "out", GenRequest(trained.folder), llama_base, home, device="cpu")
    assert said in (made.folder / "README.md").read_text(encoding="utf-8")
    told = files.read_json(made.folder / "icmlora.json")
    assert told["sources"] == about["sources"] and told["cost"] == about["cost"]


def test_the_same_seed_gives_the_same_bytes(llama_base: Base, home: Home, tmp_path: Path) -> None:
    _, trained = through_train(home, llama_base)

    def weights(name: str, seed: int | None) -> bytes:
        out = tmp_path / name
        generate.run("Say cat.", out, GenRequest(trained.folder, seed=seed), llama_base, home, device="cpu")
        return (out / "adapter_model.safetensors").read_bytes()

    assert weights("a", 3) == weights("b", 3) != weights("c", 4)
    assert weights("d", None) == weights("e", None)


def test_what_is_there_is_not_made_again(llama_base: Base, home: Home) -> None:
    tasks, first = through_train(home, llama_base)
    again = harvest.run(tasks, llama_base, HARVEST, home, device="cpu")
    assert again.trained == () and len(again.records) == 2
    second = train.run(tasks, llama_base, TRAIN, home, device="cpu")
    assert not second.trained and second.error == first.error
    other = harvest.run(tasks, llama_base, HARVEST.model_copy(update={"steps": 31}), home, device="cpu")
    assert other.trained == tuple(TEXTS)


def test_a_stopped_harvest_goes_on_within_the_task(llama_base: Base, home: Home, tmp_path: Path) -> None:
    tasks = register(home)
    elsewhere = Home(tmp_path / "whole", home.cache)
    whole = harvest.run(register(elsewhere), llama_base, HARVEST, elsewhere, device="cpu")
    seen: list[tuple[str, int]] = []
    stopping = True

    def stop(progress: Progress) -> None:
        seen.append((progress.label, progress.done))
        if stopping and (progress.label, progress.done) == ("always_dog", 17):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harvest.run(tasks, llama_base, HARVEST, home, device="cpu", on_progress=stop)
    seen.clear()
    stopping = False
    state = next(home.adapters.glob(f"*/always_dog/*/{STATE}"))
    metadata = safetensors_metadata(state)
    assert json.loads(metadata["cost"])["seconds"] > 0
    changed = metadata | {"cost": json.dumps({"seconds": 1000.0})}
    save_file(load_file(state), state, metadata=checksums.checked_metadata(changed))
    checksums.write_checksum(state)
    resumed = harvest.run(tasks, llama_base, HARVEST, home, device="cpu", on_progress=stop)
    assert resumed.trained == ("always_dog",) and seen[0] == ("always_dog", 11)
    for record, wanted in zip(resumed.records, whole.records, strict=True):
        assert [item.sha256 for item in record.checkpoints] == [item.sha256 for item in wanted.checkpoints]
        assert len(record.checkpoints) == 2
        assert not (record.folder / STATE).exists()
    seconds = {record.task: record.figures["seconds"] for record in resumed.records}
    assert seconds["always_cat"] < 1000 <= seconds["always_dog"]  # what was before the stop counts


def test_an_unseen_task_is_never_learned(llama_base: Base, home: Home) -> None:
    tasks = register(home, unseen=True)
    harvest.run(tasks, llama_base, HARVEST, home, device="cpu")
    with pytest.raises(UsageError, match="always_owl"):
        train.run(tasks, llama_base, TRAIN, home, device="cpu")
    trained = train.run(tasks[:2], llama_base, TRAIN, home, device="cpu")
    few = METHODS.model_copy(update={"limit": 4})
    result = evaluate.run(tasks, llama_base, EvalRequest(few, trained.folder), home, device="cpu").result
    assert {task.name for task in result.tasks if task.part != "seen"} == {"always_owl"}
    assert all(task.examples == 4 for task in result.tasks)
    average = result.score("always_owl", "average")
    mine = ("always_cat", "always_dog")
    assert average.about["adapters"] == 2 and {result.score(task, "average").about["adapters"] for task in mine} == {2}


def test_gen_does_not_overwrite(llama_base: Base, home: Home, tmp_path: Path) -> None:
    _, trained = through_train(home, llama_base)
    out = tmp_path / "out"
    generate.run("Say cat.", out, GenRequest(trained.folder), llama_base, home, device="cpu")
    before = (out / "adapter_model.safetensors").read_bytes()
    with pytest.raises(AlreadyExistsError, match="exists"):
        generate.run("Say dog.", out, GenRequest(trained.folder), llama_base, home, device="cpu")
    assert (out / "adapter_model.safetensors").read_bytes() == before
    generate.run(TEXTS["always_dog"], out, GenRequest(trained.folder), llama_base, home, force=True, device="cpu")
    assert (out / "adapter_model.safetensors").read_bytes() != before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(AlreadyExistsError, match="not something that icmlora wrote"):
        generate.run("Say dog.", mine, GenRequest(trained.folder), llama_base, home, force=True, device="cpu")
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_another_base_is_refused(llama_base: Base, home: Home, tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    _, trained = through_train(home, llama_base)
    qwen = pull(str(tiny_bases["qwen3"]), home, offline=True)
    with pytest.raises(BaseUnavailableError, match="not those"):
        generate.run("Say cat.", tmp_path / "out", GenRequest(trained.folder), qwen, home, device="cpu")
    assert not (tmp_path / "out").exists()


def test_corrupt_adapters_and_generators_are_told(llama_base: Base, home: Home, tmp_path: Path) -> None:
    tasks, trained = through_train(home, llama_base)
    record = AdapterStore(home).latest(llama_base, tasks[0])
    weights = record.last / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError, match="always_cat"):
        train.run(tasks, llama_base, TRAIN, home, device="cpu")
    generator = trained.folder / "generator.safetensors"
    generator.write_bytes(generator.read_bytes()[:-9])
    with pytest.raises(CorruptFileError):
        generate.run("Say cat.", tmp_path / "out", GenRequest(trained.folder), llama_base, home, device="cpu")


def test_training_without_adapters_says_what_to_type(llama_base: Base, home: Home) -> None:
    with pytest.raises(NotFoundError) as caught:
        train.run(register(home), llama_base, TRAIN, home, device="cpu")
    assert caught.value.hint == "icmlora harvest --tasks always_cat"


def test_the_papers_network_trains_on_the_same_codec(llama_base: Base, home: Home) -> None:
    tasks = register(home)
    harvest.run(tasks, llama_base, HARVEST, home, device="cpu")
    recipe = varied(TRAIN, arch="conv1d", epochs=12, patience=6, batch_size=2)
    trained = train.run(tasks, llama_base, recipe, home, name="paper", device="cpu")
    assert trained.trained and trained.error < 1.0 and (trained.epochs, trained.flat) == (12, False)
    again = train.run(tasks, llama_base, recipe, home, name="paper", device="cpu")
    assert not again.trained and (again.epochs, again.flat, again.error) == (12, False, trained.error)


def test_storage_counts_what_is_there(llama_base: Base, home: Home) -> None:
    _, trained = through_train(home, llama_base)
    report = storage.run(home)
    records = AdapterStore(home).all()
    assert report.adapter_bytes == sum(
        path.stat().st_size for record in records for path in record.folder.rglob("checkpoint-*/*")
    )
    (generator,) = report.generators
    assert generator.bytes == trained.bytes and generator.tasks == 2
    assert generator.ratio_all == pytest.approx(generator.bytes / report.adapter_bytes)
    one = sum(item.one for item in report.adapters)
    assert generator.ratio_one == pytest.approx(generator.bytes / one)
    assert generator.break_even is not None
    assert (generator.break_even - 1) * one / 2 < generator.bytes <= generator.break_even * one / 2


def test_rank_of_generated_equals_harvested(llama_base: Base, home: Home, tmp_path: Path) -> None:
    _, trained = through_train(home, llama_base)
    generate.run("Say cat.", tmp_path / "out", GenRequest(trained.folder), llama_base, home, device="cpu")
    assert read_adapter(tmp_path / "out").rank == HARVEST.rank


def test_rank_of_generated_is_no_more_than_the_basis_gives(llama_base: Base, home: Home, tmp_path: Path) -> None:
    task = register(home)[0]
    recipe = HARVEST.model_copy(update={"rank": 8, "keep": 1, "steps": 4})
    harvest.run((task,), llama_base, recipe, home, device="cpu")
    narrow = varied(TRAIN, max_width=3, steps=2)
    trained = train.run((task,), llama_base, narrow, home, device="cpu")
    assert load_generator(trained.folder).rank == trained.width == 3
    manifest = files.read_json(trained.folder / "generator.json")
    checksums.write_manifest(trained.folder / "generator.json", manifest | {"rank": 8})  # as was once written
    assert load_generator(trained.folder).rank == 3
    with pytest.raises(UsageError, match="--rank"):
        generate.run(
            "Say cat.",
            tmp_path / "out",
            GenRequest(trained.folder, options=GenOptions(rank=5)),
            llama_base,
            home,
            device="cpu",
        )
