"""Imported adapters stand in the registry beside harvested ones: found, trained on, scored, generated from."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import AlreadyExistsError, IcmloraError, NotFoundError, UsageError, WrongBaseError
from icmlora_cli.lm.load import load_base
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.codec import fit_codec, relative_error
from icmlora_cli.weights.compare import compare
from icmlora_cli.weights.frame import FrameSpec
from icmlora_cli.workflows.adapters.facts import difference, facts
from icmlora_cli.workflows.adapters.import_adapters import ImportRequest, run
from icmlora_cli.workflows.evaluate import evaluate
from icmlora_cli.workflows.evaluate.evaluate import EvalRequest
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenRequest
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.registry import export, import_archive, verify
from icmlora_cli.workflows.select_tasks import tasks_to_learn, tasks_to_score, tasks_to_train
from icmlora_cli.workflows.train import train
from icmlora_cli.workflows.train.inputs import find_harvested, make_basis
from tests.train_recipes import train_recipe, varied

HARVEST = HarvestRecipe(steps=30, batch_size=6, learning_rate=3e-2, keep=2, keep_every=2, save_every=30, rank=4)
TRAIN = train_recipe(
    steps=300, batch_size=8, learning_rate=3e-3, hidden_dim=48, code_dim=16, latent_dim=4, save_every=300,
    vectors=VectorRecipe(draws=3, shots=2),
)  # fmt: skip
PIRATE = "Answer as a pirate would."


def foreign(
    folder: Path, base: Base, rank: int = 2, *, seed: int = 0, size: float = 0.1, modules: tuple[str, ...] = ("q_proj",)
) -> Path:
    """Write a PEFT LoRA that another program could have trained; its first factor starts as a Gaussian of that size."""
    rng = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    shapes: Mapping[str, tuple[int, int]] = {"q_proj": (32, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
    for layer in range(2):
        for module in modules:
            out, inn = shapes[module]
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, inn, generator=rng) * size
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(out, rank, generator=rng) * 0.1
    settings = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules=list(modules), inference_mode=True
    )
    settings.base_model_name_or_path = str(base.path)
    settings.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_import_records_whence_and_is_done_once(llama_base: Base, home: Home, tmp_path: Path) -> None:
    folder = foreign(tmp_path / "pirate", llama_base)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Pirate\n")
    request = ImportRequest(str(folder), describe=PIRATE)
    done = run(request, llama_base, home)
    (item,) = done.items
    assert (done.described, item.state) == ("answer_as_a_pirate_would", "imported")
    record = AdapterStore(home).latest(llama_base, TaskStore(home).get("answer_as_a_pirate_would"))
    assert record == item.record and record.imported is not None
    assert record.imported.source == "pirate" and record.imported.inexact == ()
    assert record.about.licence == "mit" and record.figures == {"largest_error": 0.0}
    adapter = read_adapter(record.last)
    assert compare(adapter, read_adapter(folder)).all.error == 0.0
    again = run(request, llama_base, home)
    assert again.items[0].state == "unchanged" and again.described is None and len(AdapterStore(home).all()) == 1
    with pytest.raises(AlreadyExistsError, match="another description"):
        run(ImportRequest(str(folder), task="answer_as_a_pirate_would", describe="Be kind."), llama_base, home)


def test_verify_knows_it_and_what_brings_it_back(llama_base: Base, home: Home, tmp_path: Path) -> None:
    folder = foreign(tmp_path / "my pirate", llama_base)
    (item,) = run(ImportRequest(str(folder), describe=PIRATE), llama_base, home).items
    assert [verify.run(home).faults, item.record.checkpoints[0].config_sha256 is None] == [(), False]
    archive = tmp_path / "all.tar.zst"
    export.run(home, archive)
    weights = item.record.last / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    command = "icmlora adapter import 'my pirate' --task answer_as_a_pirate_would"
    (fault,) = verify.run(home).faults
    assert (fault.kind, fault.thing, fault.severe) == ("truncated", "adapter", True) and command in fault.mend
    (repair,) = verify.run(home, repair=True).repairs
    assert (repair.action, command in repair.said) == ("quarantined", True) and AdapterStore(home).all() == ()
    assert import_archive.run(home, archive).landed
    assert AdapterStore(home).all() == (item.record,) and verify.run(home).faults == ()


def test_a_folder_of_folders(llama_base: Base, home: Home, say_tasks: tuple[Task, ...], tmp_path: Path) -> None:
    names = [task.name for task in say_tasks[:2]]
    for index, name in enumerate(names):
        foreign(tmp_path / "zoo" / name, llama_base, rank=1 + index, seed=index)
    done = run(ImportRequest(str(tmp_path / "zoo")), llama_base, home)
    assert [item.record.task for item in done.items] == names
    for step in (20, 100):
        foreign(tmp_path / "run" / f"checkpoint-{step}", llama_base, seed=step)
    with pytest.raises(UsageError, match="not named after a registered task"):
        run(ImportRequest(str(tmp_path / "run")), llama_base, home)
    (item,) = run(ImportRequest(str(tmp_path / "run"), task=names[0]), llama_base, home).items
    assert [point.step for point in item.record.checkpoints] == [20, 100]
    assert len(AdapterStore(home).all()) == 3  # beside the one that was there


def test_what_is_wrong_is_told_and_nothing_is_written(llama_base: Base, home: Home, tmp_path: Path) -> None:
    good = foreign(tmp_path / "zoo" / "a", llama_base)
    for name in ("b", "c"):
        foreign(tmp_path / "zoo" / name, llama_base)
        (tmp_path / "zoo" / name / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(IcmloraError, match="2 of 3 adapters cannot be") as caught:
        run(ImportRequest(str(tmp_path / "zoo"), describe=PIRATE), llama_base, home)
    assert "\n  b: " in caught.value.message and "\n  c: " in caught.value.message
    other = foreign(tmp_path / "other", llama_base)
    text = (other / "adapter_config.json").read_text()
    (other / "adapter_config.json").write_text(text.replace(str(llama_base.path), "nobody/llama-9000"))
    with pytest.raises(WrongBaseError, match="nobody/llama-9000"):
        run(ImportRequest(str(other), describe=PIRATE), llama_base, home)
    with pytest.raises(UsageError, match="not said which task"):
        run(ImportRequest(str(good)), llama_base, home)
    with pytest.raises(NotFoundError, match="no task 'pirate'"):
        run(ImportRequest(str(good), task="pirate"), llama_base, home)
    with pytest.raises(UsageError, match="cannot be the name"):
        run(ImportRequest(str(good), task="../../x", describe=PIRATE), llama_base, home)
    with pytest.raises(NotFoundError, match="is a file"):
        run(ImportRequest(str(good / "adapter_config.json"), describe=PIRATE), llama_base, home)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="neither the folder nor"):
        run(ImportRequest(str(tmp_path / "empty"), describe=PIRATE), llama_base, home)
    with pytest.raises(IcmloraError, match="nobody/nothing is not on this machine"):
        run(ImportRequest("nobody/nothing", describe=PIRATE), llama_base, home)
    assert AdapterStore(home).all() == () and TaskStore(home).names() == ()
    assert not home.adapters.exists() or not any(home.adapters.rglob("*.safetensors"))
    assert run(ImportRequest(str(other), describe=PIRATE, any_base_name=True), llama_base, home).items


def test_a_generator_learns_from_harvested_and_foreign_adapters(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], tmp_path: Path
) -> None:
    """Rank 2 on one module and rank 16 on three, of other inits, beside harvested ones of rank 4."""
    harvest.run(say_tasks[:2], llama_base, HARVEST, home, device="cpu")
    small = foreign(tmp_path / "small", llama_base, 2, seed=1)
    large = foreign(tmp_path / "large", llama_base, 16, seed=2, size=0.02, modules=("q_proj", "v_proj", "o_proj"))
    run(ImportRequest(str(small), describe=PIRATE), llama_base, home)
    run(ImportRequest(str(large), task=say_tasks[2].name), llama_base, home)
    assert PIRATE not in [text for task in tasks_to_learn(home, None) for text in task.descriptions]
    tasks = tasks_to_train(home, llama_base.name, None)
    assert {task.name for task in tasks} == {task.name for task in say_tasks} | {"answer_as_a_pirate_would"}
    trained = train.run(tasks, llama_base, TRAIN, home, device="cpu")
    assert trained.harvested == 4 and trained.codec_error < 0.1 and trained.error < 0.35
    made = generate.run(PIRATE, tmp_path / "out", GenRequest(trained.folder), llama_base, home, device="cpu")
    near = compare(read_adapter(made.folder), read_adapter(small)).all
    assert near.cosine > 0.9
    with pytest.raises(UsageError, match="known by description alone"):
        tasks_to_score(home, ["answer_*"])
    recipe = EvalRecipe(methods=("base", "average", "nearest-shots", "generated", "harvested"), resamples=100, limit=2)
    result = evaluate.run(
        tasks_to_score(home, None), llama_base, EvalRequest(recipe, trained.folder), home, device="cpu"
    ).result
    assert {task.name for task in result.tasks} == {task.name for task in say_tasks}
    assert all(cell.reason is None for cell in result.scores)
    imported = AdapterStore(home).newest(llama_base, say_tasks[2])
    assert imported is not None and imported.imported is not None
    shown = facts(AdapterStore(home), imported)
    assert shown.ranks == {16: 6} and len(shown.nearest) == 3 and [layer.layer for layer in shown.layers] == [0, 1]
    assert 1 < shown.effective_rank <= 16
    apart = difference(AdapterStore(home), say_tasks[2].name, str(small))
    assert len(apart.only_first) == 4 and apart.only_second == ()


def test_a_frame_makes_room_for_imported_adapters(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], tmp_path: Path
) -> None:
    quick = HARVEST.model_copy(update={"steps": 4, "parametrization": "frame", "rank": 8, "seed": 3})
    harvest.run(say_tasks[:1], llama_base, quick, home, device="cpu")
    run(ImportRequest(str(foreign(tmp_path / "other", llama_base)), task=say_tasks[1].name), llama_base, home)
    loaded, store = load_base(llama_base, device="cpu"), AdapterStore(home)
    found = find_harvested(say_tasks[:2], llama_base, store, all_needed=True)
    wide = make_basis(found, loaded, varied(TRAIN, directions=4).data)
    assert wide.frame == FrameSpec(3, 8)  # of the harvested one
    learned = make_basis(found, loaded, TRAIN.data)
    assert learned.frame is None
    for basis in (wide, learned):
        assert all(relative_error(basis.codec, adapter) < 0.1 for item in found for adapter in item.adapters)


def test_from_the_hubs_cache(llama_base: Base, home: Home) -> None:
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / "models--someone--pirate"
    commit = "0123456789abcdef0123456789abcdef01234567"
    foreign(repository / "snapshots" / commit, llama_base)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (item,) = run(ImportRequest("someone/pirate", describe=PIRATE), llama_base, home).items
    assert item.record.imported is not None
    assert (item.record.imported.source, item.record.imported.revision) == ("someone/pirate", commit)
    assert item.record.imported.files[0].name == "pirate"


def test_a_large_foreign_adapter_leaves_room_in_the_basis(llama_base: Base, tmp_path: Path) -> None:
    small = read_adapter(foreign(tmp_path / "small", llama_base, 4, seed=1))
    large = read_adapter(foreign(tmp_path / "large", llama_base, 4, seed=2))
    huge = Adapter(large.base_model, large.alpha * 1000, large.factors)
    codec = fit_codec([small, huge])
    assert relative_error(codec, small) < 0.1 and relative_error(codec, huge) < 0.1
