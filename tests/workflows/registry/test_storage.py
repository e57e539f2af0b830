"""Storage says what is there, how it is stored, what it takes twice, and what gc would free."""

from typing import TYPE_CHECKING

from icmlora_cli.disk import files
from icmlora_cli.workflows.registry import gc as collect
from icmlora_cli.workflows.registry import storage
from icmlora_cli.workflows.registry.storage import FormatStorage
from tests.small_registry import BASE, lora, safetensors

if TYPE_CHECKING:
    from tests.small_registry import SmallRegistry

SMALL, MIXED = lora((2, 2), seed=1), lora((2, 16), "BF16")


def fill(small: "SmallRegistry") -> None:
    """Put two tasks of rank 2 and one of mixed ranks in; two of the six checkpoints are equal."""
    small.fill()
    small.adapter("say_cat", weights=(lora((2, 2), seed=5), SMALL))
    small.adapter("say_dog", weights=(lora((2, 2), seed=6), SMALL))
    small.adapter("say_owl", weights=(lora((2,), seed=7), MIXED))


def test_rank_and_dtype_by_task_and_in_total(small: "SmallRegistry") -> None:
    fill(small)
    report = storage.run(small.home)
    formats = {item.task: (item.rank, item.dtype) for item in report.adapters}
    assert formats == {"say_cat": ("2", "fp32"), "say_dog": ("2", "fp32"), "say_owl": ("2-16", "bf16")}
    sizes = {item.task: item.bytes for item in report.adapters}
    folders = {task: small.home.adapters / BASE / task for task in formats}
    on_disk = {
        task: sum(path.stat().st_size for path in folder.rglob("checkpoint-*/*")) for task, folder in folders.items()
    }
    assert sizes == on_disk
    expected = (
        FormatStorage("2", "fp32", 2, 4, sizes["say_cat"] + sizes["say_dog"]),
        FormatStorage("2-16", "bf16", 1, 2, sizes["say_owl"]),
    )
    assert report.formats == tuple(sorted(expected, key=lambda item: -item.bytes))
    assert sum(item.bytes for item in report.formats) == report.adapter_bytes < report.bytes


def test_the_newest_adapter_of_a_task_says_its_rank(small: "SmallRegistry") -> None:
    small.adapter("say_cat", weights=(SMALL, SMALL))
    folder = small.adapter("say_cat", key="ffffffffffff", weights=(MIXED, MIXED))
    manifest = files.read_json(folder / "manifest.json") | {"created": "2026-02-02T00:00:00+00:00"}
    files.write_json(folder / "manifest.json", manifest)
    (item,) = storage.run(small.home).adapters
    assert (item.rank, item.dtype, item.checkpoints) == ("2-16", "bf16", 4)
    assert item.one == len(MIXED) + (folder / "checkpoint-00020" / "adapter_config.json").stat().st_size


def test_weights_that_are_gone_say_nothing(small: "SmallRegistry") -> None:
    (small.adapter("say_cat") / "checkpoint-00020" / "adapter_model.safetensors").unlink()
    (item,) = storage.run(small.home).adapters
    assert (item.rank, item.dtype) == (None, None)


def test_what_gc_would_free_is_what_it_frees(small: "SmallRegistry") -> None:
    fill(small)
    assert storage.run(small.home).gc == {"duplicates": len(SMALL)}
    files.write_bytes(small.home.vectors / "ab" / "x.safetensors", safetensors(100))
    state = small.home.generators / "default.training.safetensors"
    files.write_bytes(state, safetensors(9, metadata={"step": "7", "identity": "k" * 16}))
    report = storage.run(small.home)
    assert set(report.gc) == {"states", "vectors", "duplicates"} and report.gc["states"] == state.stat().st_size
    assert (report.duplicates.files, report.duplicates.bytes) == (1, len(SMALL))
    done = collect.run(small.home, collect.plan(small.home))
    assert done.bytes == report.gc_bytes
    after = storage.run(small.home)
    assert after.gc == {} and after.gc_bytes == 0
    assert (after.duplicates.files, after.duplicates.bytes) == (0, 0)
    assert (after.duplicates.linked_files, after.duplicates.linked_bytes) == (1, len(SMALL))
    assert after.adapters == report.adapters and after.generators == report.generators  # what the manifests say


def test_break_even(small: "SmallRegistry") -> None:
    fill(small)
    report = storage.run(small.home)
    (generator,) = report.generators
    (cat,) = (item for item in report.adapters if item.task == "say_cat")
    assert generator.ratio_all == generator.bytes / cat.bytes and generator.ratio_one == generator.bytes / cat.one
    assert generator.break_even == storage.break_even(generator.bytes, cat.one, 1)


def test_an_empty_registry(small: "SmallRegistry") -> None:
    report = storage.run(small.home)
    assert report.bytes == 0 and report.gc == {} and report.formats == ()
