"""Every option of ``icmlora gen`` on a tiny trained generator: what is written, what PEFT makes of it, what is told."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from icmlora_cli.disk.home import Home
from icmlora_cli.generator.checkpoint import Generator, load_generator
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import encode
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.methods.generated import generate_adapter
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.task_record import QA
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter, average, read_adapter
from icmlora_cli.weights.compare import compare
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.base.pull import resolve
from icmlora_cli.workflows.gen.generate import base_name, vector_recipe

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

CAT, DOG = "Always answer with cat.", "Always answer with dog."
WEIGHTS = "adapter_model.safetensors"
PLAIN = {
    "schema", "task_text", "merged", "seed", "generator", "base", "tasks", "licences", "sources", "cost", "versions",
    "command", "unlicensed", "datasets", "no_derivatives", "files",
}  # fmt: skip
IDS = torch.arange(5, 45)[None]


def write_examples(name: str, word: str, count: int, start: int = 100) -> tuple[Example, ...]:
    """Write a JSONL file of examples whose answer is a word."""
    rows = [Example(f"word {index}", word) for index in range(start, start + count)]
    Path(name).write_text("".join(json.dumps(row.as_dict()) + "\n" for row in rows), encoding="utf-8")
    return tuple(rows)


def the_generator(registry: "Registry") -> tuple[Generator, LoadedBase]:
    folder, home = registry.home / "generators" / "default", Home.from_environment()
    return load_generator(folder), load_base(resolve(str(base_name(folder)), home, offline=True), device="cpu")


def about(folder: str) -> dict[str, Any]:
    value = json.loads(Path(folder, "icmlora.json").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def nll(loaded: LoadedBase, adapter: Adapter | None, examples: tuple[Example, ...]) -> float:
    with merged(loaded.model, adapter):
        return score_rows(loaded, [encode(loaded.family, QA, example) for example in examples]).mean_nll


def test_without_options_nothing_is_added(trained: "Registry") -> None:
    generator, loaded = the_generator(trained)
    trained.call("gen", CAT, "-o", "out")
    reader = VectorReader(loaded, vector_recipe(generator), Home.from_environment())
    made, wanted = read_adapter(Path("out")), generate_adapter(generator, reader, CAT)
    assert made.alpha == wanted.alpha and made.factors.keys() == wanted.factors.keys()
    for name, item in wanted.factors.items():
        assert torch.equal(made.factors[name].lora_a, item.lora_a)
        assert torch.equal(made.factors[name].lora_b, item.lora_b)
    assert set(about("out")) == PLAIN
    assert "Kept" not in Path("out/README.md").read_text(encoding="utf-8")


def test_examples_are_shown_to_the_generator(trained: "Registry") -> None:
    shots = write_examples("shots.jsonl", "cat", 3)
    Path("shots.csv").write_text(
        "input,output\n" + "".join(f"{item.input},{item.output}\n" for item in shots), encoding="utf-8"
    )
    made = trained.json("gen", CAT, "-o", "out", "--examples", "shots.jsonl", "--budget", "0")
    assert made["shown"] == 3 and made["selection"] is None and made["evidence"] is None
    trained.call("gen", CAT, "-o", "csv", "--examples", "shots.csv", "--budget", "0")
    trained.call("gen", CAT, "-o", "plain")
    assert Path("out", WEIGHTS).read_bytes() == Path("csv", WEIGHTS).read_bytes() != Path("plain", WEIGHTS).read_bytes()
    generator, loaded = the_generator(trained)
    reader = VectorReader(loaded, vector_recipe(generator), Home.from_environment())
    wanted = generate_adapter(generator, reader, CAT, shots)
    assert compare(read_adapter(Path("out")), wanted).all.error < 1e-6
    assert about("out")["options"]["examples"]["examples"] == 3
    trained.call("gen", CAT, "-o", "chat", "--examples", "shots.jsonl", "--template", "chat", "--budget", "0")


def test_passages_of_plain_text_are_examples_too(trained: "Registry") -> None:
    paragraph = "The capital of France is Paris. " * 20
    Path("book.txt").write_text(f"{paragraph}\n\n{paragraph}Rome.\n\n{paragraph}London.\n", encoding="utf-8")
    command = ("gen", CAT, "--template", "text", "--samples", "2", "--budget", "0")
    made = trained.json(*command, "-o", "out", "--examples", "book.txt", "--select", "book.txt")
    selection = made["selection"]
    assert made["shown"] == selection["shown"] == selection["examples"] > 1
    assert all(item["exact_match"] is None and item["nll"] > 0 for item in selection["candidates"])
    assert "--template text" in trained.call("gen", CAT, "-o", "x", "--examples", "book.txt", code=2).stderr


def test_the_best_of_several_samples_is_kept(trained: "Registry") -> None:
    examples = write_examples("dev.jsonl", "cat", 4)
    made = trained.json("gen", CAT, "-o", "out", "--samples", "4", "--select", "dev.jsonl", "--seed", "7")
    selection = made["selection"]
    assert [item["seed"] for item in selection["candidates"]] == [None, 7, 8, 9]
    kept = selection["candidates"][selection["kept"]]
    assert kept["nll"] == min(item["nll"] for item in selection["candidates"]) and made["seed"] == kept["seed"]
    assert (selection["file"], selection["examples"], selection["average"]) == ("dev.jsonl", 4, None)
    _, loaded = the_generator(trained)
    assert nll(loaded, read_adapter(Path("out")), examples) == pytest.approx(kept["nll"], abs=1e-5)
    assert nll(loaded, None, examples) == pytest.approx(selection["base"]["nll"], abs=1e-5)
    assert about("out")["selection"] == selection and about("out")["seed"] == kept["seed"]

    for item in selection["candidates"]:  # each is what its seed gives without --select
        seed = () if item["seed"] is None else ("--seed", item["seed"])
        trained.call("gen", CAT, "-o", "one", "--force", *seed)
        assert nll(loaded, read_adapter(Path("one")), examples) == pytest.approx(item["nll"], abs=1e-5)
        if item == kept:
            assert Path("one", WEIGHTS).read_bytes() == Path("out", WEIGHTS).read_bytes()
    trained.call("gen", CAT, "-o", "again", "--samples", "4", "--select", "dev.jsonl", "--seed", "7")
    assert Path("again", WEIGHTS).read_bytes() == Path("out", WEIGHTS).read_bytes()


def test_the_scores_are_printed(trained: "Registry") -> None:
    write_examples("dev.jsonl", "cat", 2)
    command = ("gen", CAT, "-o", "out", "--select", "dev.jsonl", "--examples", "dev.jsonl", "--budget", "0")
    printed = trained.call(*command)
    rows = [line for line in printed.stdout.splitlines() if "seed " in line or "mean of the prior" in line]
    assert len(rows) == 16 and "base alone" in printed.stdout and "exact match" in printed.stdout
    assert "2 of the 2 examples" in printed.stderr
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert "NLL on 2 examples, the best of 16 samples" in card and "shown 2 examples" in card


def test_the_gate_refuses_what_is_no_better(trained: "Registry") -> None:
    examples = write_examples("dev.jsonl", "cat", 4)
    command = ("gen", CAT, "-o", "out", "--gate", "--select", "dev.jsonl", "--samples", "2")
    refused = trained.call(*command, "--scale", "-1", code=3)  # what teaches cat unteaches it then
    assert "no better than the base" in refused.stderr and "next: " in refused.stderr
    assert not Path("out").exists() and not list(Path.cwd().glob(".tmp-*"))
    error = trained.json(*command, "--scale", "-1", code=3)["error"]
    assert error["kind"] == "GateRefusedError" and error["exit_code"] == 3
    assert error["nll"]["adapter"] > error["nll"]["base"]

    _, loaded = the_generator(trained)
    store = AdapterStore(Home.from_environment())
    mean = average([read_adapter(record.last) for record in store.all()])
    assert error["nll"]["average"] == pytest.approx(nll(loaded, mean, examples), abs=1e-5)

    trained.call("adapter", "remove", "always_dog", "--yes")
    error = trained.json(*command, "--scale", "-1", code=3)["error"]
    (record,) = store.all()
    assert error["nll"]["average"] == pytest.approx(nll(loaded, read_adapter(record.last), examples), abs=1e-5)

    trained.call("adapter", "remove", "always_cat", "--yes")
    passed = trained.call(*command)
    assert "none of the 2 adapters" in passed.stderr
    selection = about("out")["selection"]
    assert selection["average"] is None
    assert selection["candidates"][selection["kept"]]["nll"] < selection["base"]["nll"]


def test_the_gate_on_the_examples_that_were_shown(trained: "Registry") -> None:
    write_examples("shots.jsonl", "cat", 3)
    command = ("gen", CAT, "-o", "out", "--gate", "--examples", "shots.jsonl", "--budget", "0")
    trained.call(*command, "--scale", "-1", code=3)
    for task in ("always_cat", "always_dog"):
        trained.call("adapter", "remove", task, "--yes")
    made = trained.json(*command)
    assert len(made["selection"]["candidates"]) == 1 and made["selection"]["shown"] == 3


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=IDS).logits.float()
    return found


def peft_logits(folder: str, base: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval())


def test_rank_dtype_and_scale_as_peft_loads_them(trained: "Registry") -> None:
    trained.call("gen", CAT, "-o", "plain")
    made = trained.json("gen", CAT, "-o", "out", "--rank", "2", "--dtype", "bf16", "--scale", "0.5")
    tensors = load_file(Path("out", WEIGHTS))
    assert {item.dtype for item in tensors.values()} == {torch.bfloat16}
    assert (made["rank"], made["dtype"], made["scale"]) == (2, "bf16", 0.5)
    whole, small = read_adapter(Path("plain")), read_adapter(Path("out"))
    model, missed, total = AutoModelForCausalLM.from_pretrained(trained.base).eval(), 0.0, 0.0
    for name in whole.factors:
        u, s, vh = torch.linalg.svd(whole.delta(name))
        wanted = u[:, :2] @ torch.diag(s[:2]) @ vh[:2]
        missed, total = missed + float(s[2:].square().sum()), total + float(s.square().sum())
        assert torch.allclose(small.delta(name), 0.5 * wanted, atol=0.02 * float(s[0]))
        with torch.no_grad():
            model.get_submodule(name).weight += 0.5 * wanted
    assert made["error"] == pytest.approx((missed / total) ** 0.5, abs=0.01) and made["error"] > 0
    found = peft_logits("out", trained.base)
    assert torch.allclose(found, logits(model), atol=0.02 * float(found.abs().max()))
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert "Kept: 2 of 8 singular directions" in card and "multiplied by 0.5" in card


def test_scale_alone_is_exact(trained: "Registry") -> None:
    for out, options in (("plain", ()), ("out", ("--scale", "3")), ("half", ("--dtype", "fp16"))):
        trained.call("gen", CAT, "-o", out, *options)
    assert Path("out", WEIGHTS).read_bytes() == Path("plain", WEIGHTS).read_bytes()
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trained.base), "out")
    plain = read_adapter(Path("plain"))
    for name in plain.factors:
        module = model.get_submodule(f"base_model.model.{name}")
        assert torch.allclose(module.get_delta_weight("default"), 3 * plain.delta(name), atol=1e-6)
    assert {item.dtype for item in load_file(Path("half", WEIGHTS)).values()} == {torch.float16}
    assert compare(read_adapter(Path("half")), plain).all.error < 1e-3


def test_merge_takes_rank_scale_and_dtype(trained: "Registry") -> None:
    options = ("--rank", "3", "--scale", "2")
    trained.call("gen", CAT, "-o", "out", *options)
    trained.call("gen", CAT, "-o", "whole", "--merge", *options)
    made = trained.json("gen", CAT, "-o", "small", "--merge", "--dtype", "bf16", *options)
    whole = AutoModelForCausalLM.from_pretrained("whole")
    assert torch.allclose(logits(whole), peft_logits("out", trained.base), atol=1e-4)
    small = load_file("small/model.safetensors")
    assert made["dtype"] == "bf16" and {item.dtype for item in small.values()} == {torch.bfloat16}
    for name, item in load_file("whole/model.safetensors").items():
        assert torch.equal(small[name], item.to(torch.bfloat16))
    assert AutoModelForCausalLM.from_pretrained("small", dtype="auto").dtype == torch.bfloat16


def test_what_it_is_near_to(trained: "Registry") -> None:
    made = trained.json("gen", CAT, "-o", "out", "--explain")
    told = made["explanation"]
    assert [item["task"] for item in told["nearest"]] == ["always_cat", "always_dog"]
    assert told["nearest"][0]["cosine"] == pytest.approx(1.0, abs=1e-5) and told["nearest"][0]["description"] == CAT
    place = told["range"]
    assert place["tasks"] == 2 and place["distance"] == pytest.approx(0.0, abs=1e-5) and not place["outside"]
    records = AdapterStore(Home.from_environment()).all()
    adapter = read_adapter(Path("out"))
    near = {record.task: compare(adapter, read_adapter(record.last)).all for record in records}
    nearest = min(near, key=lambda task: near[task].error)
    assert told["adapter"]["task"] == nearest and told["adapters"] == told["learned"] == 2
    assert told["adapter"]["distance"] == pytest.approx(near[nearest].error, abs=1e-6)
    assert about("out")["explanation"] == told

    generator, loaded = the_generator(trained)
    reader = VectorReader(loaded, vector_recipe(generator), Home.from_environment())
    text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich 0123456789."
    mine, cat, dog = (generator.condition(reader.read_text(item)) for item in (text, CAT, DOG))
    far = trained.json("gen", text, "-o", "far", "--explain")["explanation"]["range"]
    wanted = min(float((mine - other).norm()) for other in (cat, dog))
    assert far["distance"] == pytest.approx(wanted, rel=1e-4)
    assert far["usual"] == pytest.approx(float((cat - dog).norm()), rel=1e-4)
    assert far["ratio"] == pytest.approx(far["distance"] / far["usual"]) and far["percentile"] == 1.0
    assert far["limit"] == 3.75 and far["outside"]

    trained.call("adapter", "remove", "always_dog", "--yes")
    trained.call("adapter", "remove", "always_cat", "--yes")
    printed = trained.call("gen", text, "-o", "far", "--force", "--explain")
    assert "outside of what the generator saw" in printed.stderr
    assert "always_cat" in printed.stdout and "none of the 2 is here" in printed.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--samples", "4"), "--examples FILE"),
        (("--examples", "two.jsonl", "--budget", "nan"), "--budget nan"),
        (("--gate",), "--gate --select FILE"),
        (("--rank", "99"), "--rank 8 or less"),
        (("--scale", "0"), "--scale 0.0"),
        (("--scale", "nan"), "--scale nan"),
        (("--examples", "nowhere.jsonl"), "'nowhere.jsonl'"),
        (("--select", "nowhere.jsonl"), "'nowhere.jsonl'"),
        (("--select", "tasks.yaml"), ".csv, .tsv, .parquet"),
        (("--examples", "one.jsonl", "--budget", "0"), "one example"),
        (("--select", "bad.jsonl"), "bad.jsonl:2"),
        (("--examples", "long.jsonl"), "tokens"),
        (("--select", "long.jsonl"), "tokens"),
        (("--batch", "texts.txt"), "--batch"),
    ],
)
def test_options_that_do_not_go(trained: "Registry", options: tuple[str, ...], said: str) -> None:
    write_examples("one.jsonl", "cat", 1)
    write_examples("two.jsonl", "cat", 2)
    Path("bad.jsonl").write_text('{"input": "a", "output": "b"}\n{"input": "a"}\n', encoding="utf-8")
    long = [Example("word " * 600, "cat"), Example("word", "cat")]
    Path("long.jsonl").write_text("".join(json.dumps(row.as_dict()) + "\n" for row in long), encoding="utf-8")
    Path("texts.txt").write_text("Say cat.\n", encoding="utf-8")
    result = trained.call("gen", CAT, "-o", "out", *options, code=2)
    assert result.stdout == "" and result.stderr.startswith("error: ") and said in result.stderr
    assert not Path("out").exists()


def test_a_text_or_a_batch(trained: "Registry") -> None:
    assert "--batch" in trained.call("gen", "-o", "out", code=2).stderr
    assert "'nowhere.txt'" in trained.call("gen", "-o", "out", "--batch", "nowhere.txt", code=2).stderr


def test_what_is_written_is_what_servers_take(trained: "Registry") -> None:
    trained.call("gen", CAT, "-o", "out", "--rank", "1")
    config = json.loads(Path("out", "adapter_config.json").read_text(encoding="utf-8"))
    base = about("out")["base"]
    assert config["inference_mode"] is True and config["base_model_name_or_path"] == base["model_id"]
    assert base["model_id"] == f"llama@{base['weight_hash'][:12]}"  # no path, for the folder may be handed on
    assert config["modules_to_save"] is None and config["bias"] == "none" and config["use_dora"] is False
    assert config["r"] == 1 and not config["rank_pattern"] and not config["alpha_pattern"]
    tensors = load_file(Path("out", WEIGHTS))
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in tensors)
