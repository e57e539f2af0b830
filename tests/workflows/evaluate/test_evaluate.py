"""Eval: what the result holds, that it resumes to the same file, and that its figures are what counting gives."""

import json
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import AlreadyExistsError, SpecError, UsageError
from icmlora_cli.lm.load import load_base
from icmlora_cli.methods.harvested import HarvestedMethod
from icmlora_cli.methods.method import TaskContext
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.report.result import read_result
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.adapter import read_adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.weights.registered import read_last
from icmlora_cli.workflows.evaluate import evaluate
from icmlora_cli.workflows.evaluate.evaluate import EvalRequest
from icmlora_cli.workflows.evaluate.lm_eval import HarnessRequest
from icmlora_cli.workflows.evaluate.scores import MethodScorer, read_score, write_score
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import Progress
from icmlora_cli.workflows.train import train
from tests.train_recipes import train_recipe, varied

HARVEST = HarvestRecipe(steps=40, batch_size=6, learning_rate=3e-2, keep=1, rank=2)
TRAIN = train_recipe(
    steps=200, batch_size=8, learning_rate=3e-3, hidden_dim=48, code_dim=16, latent_dim=4,
    vectors=VectorRecipe(draws=3, shots=2),
)  # fmt: skip
SURE = (
    "base", "described", "in-context", "average", "nearest", "nearest-other", "nearest-shots", "weighted", "multi-task",
    "noise", "random-text", "swapped-text", "generated", "generated-shots", "best-of", "harvested",
)  # fmt: skip  # all that no clock decides and that need no further generator
RECIPE = EvalRecipe(
    methods=SURE, shots=3, samples=2, multi_task_steps=10, limit=6, resamples=100, outputs=2, unrelated=False
)


def register(home: Home, name: str, word: str, *, family: str | None = None, split: str = "train") -> Task:
    rows = [{"input": f"{name} {index}", "output": word if index % 3 else "ox"} for index in range(40)]
    spec = TaskSpec.model_validate(
        {"name": name, "description": f"Say {word} or ox, by {name}.", "examples": rows, "split": split}
        | ({"family": family} if family else {})
    )
    return TaskStore(home).add(spec, [Example(**row) for row in rows])[0]


@pytest.fixture
def place(llama_base: Base, home: Home) -> tuple[tuple[Task, ...], Path]:
    """Two tasks that a generator learned and two unseen ones."""
    seen = (register(home, "cats", "cat", family="animals"), register(home, "dogs", "dog", family="animals"))
    unseen = (
        register(home, "owls", "owl", family="animals", split="unseen"),
        register(home, "tins", "tin", family="metals", split="unseen"),
    )
    harvest.run((*seen, unseen[0]), llama_base, HARVEST, home, device="cpu")
    return (*seen, *unseen), train.run(seen, llama_base, TRAIN, home, device="cpu").folder


Place = tuple[tuple[Task, ...], Path]


def evaluated(place: Place, base: Base, home: Home, out: Path, recipe: EvalRecipe = RECIPE) -> evaluate.EvalResult:
    tasks, folder = place
    return evaluate.run(tasks, base, EvalRequest(recipe, folder), home, out=out, device="cpu")


def test_the_result_holds_every_method_for_every_task(
    place: Place, llama_base: Base, home: Home, tmp_path: Path
) -> None:
    done = evaluated(place, llama_base, home, tmp_path / "out")
    result = done.result
    assert read_result(tmp_path / "out") == result
    assert {path.name for path in done.folder.iterdir()} == {
        "scores", "result.json", "table.md", "report.html", "timings.json",
    }  # fmt: skip
    assert [method.name for method in result.methods] == list(SURE)
    assert done.scored == len(result.scores) - 1 == 4 * len(SURE) - 1  # one is missing
    assert {task.name: task.part for task in result.tasks} == {
        "cats": "seen", "dogs": "seen", "owls": "unseen combination", "tins": "unseen family",
    }  # fmt: skip
    missing = [(score.task, score.method) for score in result.scores if score.reason is not None]
    assert missing == [("tins", "harvested")]
    for score in result.scores:
        if score.reason is None:
            assert set(score.figures) == {"exact_match", "f1", "nll"} and len(score.outputs) == 2
            assert all(
                item.low <= item.value + 1e-9 and item.value <= item.high + 1e-9 for item in score.figures.values()
            )
            assert score.figures["f1"].value >= score.figures["exact_match"].value - 1e-9
    weights = {method for method in SURE if method not in ("base", "described", "in-context")}
    for task in ("cats", "dogs", "owls"):
        found = {score.method: score.reconstruction for score in result.scores if score.task == task}
        assert {method for method, item in found.items() if item is not None} == weights
        oracle, generated = found["harvested"], found["generated"]
        assert oracle is not None and oracle.all.error < 1e-5 and oracle.all.cosine == pytest.approx(1.0)
        assert (
            generated is not None
            and set(generated.by_type) == {"q_proj", "v_proj"}
            and set(generated.by_layer) == {0, 1}
        )
    means = {(item.part, item.method, item.metric): item for item in result.means}
    assert means["seen", "harvested", "nll"].recovered is not None
    assert means["seen", "harvested", "nll"].recovered.value == pytest.approx(1.0)
    assert means["seen", "generated", "nll"].figure.value == pytest.approx(
        sum(result.score(task, "generated").figures["nll"].value for task in ("cats", "dogs")) / 2
    )
    assert means["unseen family", "generated", "nll"].recovered is None
    assert {item.against for item in result.comparisons if item.method == "generated"} == set(SURE) - {"generated"}
    assert {item.part for item in result.text_specific} == {"seen", "unseen combination", "unseen family"}
    near = {task.name: task.neighbour for task in result.tasks}
    assert all(item is not None and item.task in ("cats", "dogs") for item in near.values())
    assert near["cats"] is not None and near["cats"].task == "cats" and near["cats"].distance < 0.5
    assert result.vectors is not None and len(result.vectors.points) == 8
    assert result.adapters is not None and len(result.adapters.points) == 3 + 4
    assert result.storage is not None and result.storage.tasks == 2
    assert result.generator is not None and result.generator.curve[0][1]["reconstruction"] > 0
    table = (done.folder / "table.md").read_text(encoding="utf-8")
    assert all(f"| {method} |" in table for method in SURE) and "not harvested" in table
    assert result.unrelated == () and "unrelated text, change" not in table  # the recipe left it out
    earlier = json.loads((done.folder / "result.json").read_text(encoding="utf-8"))
    for part in (earlier, *earlier["scores"]):
        del part["unrelated"]  # as before there was such a figure
    (tmp_path / "result.json").write_text(json.dumps(earlier), encoding="utf-8")
    assert read_result(tmp_path) == result


def test_exact_match_equals_an_independent_count(place: Place, llama_base: Base, home: Home, tmp_path: Path) -> None:
    tasks, _ = place
    result = evaluated(place, llama_base, home, tmp_path / "out").result
    loaded = load_base(llama_base, device="cpu")
    for task in tasks[:3]:
        record = AdapterStore(home).latest(llama_base, task)
        right, examples = 0, task.examples("test")[:6]
        with merged(loaded.model, read_adapter(record.last)):
            for example in examples:
                ids = torch.tensor([loaded.tokenizer.encode(f"Q: {example.input}\nA:")])
                wanted = loaded.tokenizer.encode(f" {example.output}\n")
                out = loaded.model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=len(wanted), do_sample=False,
                    pad_token_id=0,
                )  # fmt: skip
                right += out[0, ids.shape[1] :].tolist() == wanted
        assert result.score(task.name, "harvested").figures["exact_match"].value == pytest.approx(right / len(examples))
    assert result.score("cats", "harvested").figures["exact_match"].value > 0  # or nothing was counted


def test_the_change_on_unrelated_text_equals_an_independent_count(
    place: Place, llama_base: Base, home: Home, tmp_path: Path
) -> None:
    (task, *_), _ = place
    loaded, store = load_base(llama_base, device="cpu"), AdapterStore(home)
    texts = ("The capital of France is Paris.", "one two three four five six seven")
    method, context = HarvestedMethod(store, llama_base), TaskContext(task, ())
    scorers = [MethodScorer(loaded, False, 2, 0, passages) for passages in (texts, ())]
    with_texts, without = (scorer.score(method, context, None, "key") for scorer in scorers)
    assert without.unrelated is None and without.scores == with_texts.scores
    assert len({scorer.key(method, context, None) for scorer in scorers}) == 2

    def nats() -> list[float]:
        found = []
        for text in texts:
            ids = torch.tensor([[loaded.tokenizer.eos_token_id, *loaded.tokenizer.encode(text)]])
            with torch.no_grad():
                found.append(float(loaded.model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1))
        return found

    before = nats()
    with merged(loaded.model, read_last(store, store.latest(llama_base, task))):
        after = nats()
    found = with_texts.unrelated
    assert found is not None
    assert found.numerators == pytest.approx([new - old for new, old in zip(after, before, strict=True)], abs=1e-4)
    assert found.denominators == tuple(float(len(loaded.tokenizer.encode(text))) for text in texts)
    assert abs(found.value) > 1e-3  # or nothing was counted
    write_score(tmp_path / "score.json", with_texts)
    assert read_score(tmp_path / "score.json", "key") == with_texts


@pytest.mark.parametrize("stop_at", [("cats", "base"), ("cats", "multi-task"), ("owls", "best-of")])
def test_a_stopped_evaluation_goes_on_and_writes_the_same_result(
    place: Place, llama_base: Base, home: Home, tmp_path: Path, stop_at: tuple[str, str]
) -> None:
    tasks, folder = place
    whole = evaluated(place, llama_base, home, tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if (progress.label, progress.detail) == stop_at:
            raise KeyboardInterrupt

    out = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(tasks, llama_base, EvalRequest(RECIPE, folder), home, out=out, device="cpu", on_progress=stop)
    assert not (out / "result.json").exists()
    half = next(iter(out.rglob("*.json")), None)
    if half is not None:
        half.write_text(half.read_text(encoding="utf-8")[:-20], encoding="utf-8")  # as if written by halves
    resumed = evaluated(place, llama_base, home, out)
    assert (out / "result.json").read_bytes() == (tmp_path / "whole" / "result.json").read_bytes()
    assert (out / "table.md").read_bytes() == (tmp_path / "whole" / "table.md").read_bytes()
    assert resumed.scored == whole.scored - max(0, done_before(stop_at) - (half is not None))
    assert evaluated(place, llama_base, home, out).scored == 0


def done_before(stop_at: tuple[str, str]) -> int:
    return ["cats", "dogs", "owls", "tins"].index(stop_at[0]) * len(SURE) + SURE.index(stop_at[1])


def test_what_changed_is_scored_again_and_no_more(place: Place, llama_base: Base, home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out"
    few = varied(RECIPE, methods=("base", "average", "generated", "harvested"))
    assert evaluated(place, llama_base, home, out, few).scored == 15
    more = few.model_copy(update={"methods": ("base", "noise", "average", "generated", "harvested")})
    assert evaluated(place, llama_base, home, out, more).scored == 4
    again = few.model_copy(update={"limit": 5})
    assert evaluated(place, llama_base, home, out, again).scored == 15
    harvest.run(place[0][:1], llama_base, HARVEST.model_copy(update={"seed": 1}), home, device="cpu")
    assert (
        evaluated(place, llama_base, home, out, again).scored == 4 + 3
    )  # all that is compared with it, and the average everywhere


def test_a_method_of_another_generator_is_scored_for_what_is_there_now(
    place: Place, llama_base: Base, home: Home, tmp_path: Path
) -> None:
    """A score without figures does not stay; nor do figures of a companion that learned from other tasks."""
    values = {"methods": ("base", "conv1d"), "train_baselines": False, "baseline_steps": 5}
    untrained = RECIPE.model_copy(update=values)
    done = evaluated(place, llama_base, home, tmp_path / "out", untrained)
    assert "not trained" in str(done.result.score("cats", "conv1d").reason) and done.scored == 4
    trained = untrained.model_copy(update={"train_baselines": True})
    done = evaluated(place, llama_base, home, tmp_path / "out", trained)
    assert done.result.score("cats", "conv1d").reason is None and done.scored == 4
    assert evaluated(place, llama_base, home, tmp_path / "out", trained).scored == 0
    fewer = (place[0], train.run(place[0][:1], llama_base, TRAIN, home, device="cpu").folder)
    done = evaluated(fewer, llama_base, home, tmp_path / "out", trained)
    assert "learned from other tasks" in str(done.result.score("cats", "conv1d").reason)


def test_another_reading_is_another_neighbourhood(place: Place, llama_base: Base, home: Home, tmp_path: Path) -> None:
    few = varied(RECIPE, methods=("base", "nearest", "nearest-shots", "weighted"))
    assert evaluated(place, llama_base, home, tmp_path / "out", few).scored == 16
    deeper = varied(TRAIN, steps=2, vectors=TRAIN.data.vectors.model_copy(update={"layer": 1.0}))
    other = (place[0], train.run(place[0][:2], llama_base, deeper, home, device="cpu").folder)
    assert evaluated(other, llama_base, home, tmp_path / "out", few).scored == 12


def test_described_is_another_protocol(place: Place, llama_base: Base, home: Home, tmp_path: Path) -> None:
    described = varied(RECIPE, protocol="described")
    bare = evaluated(place, llama_base, home, tmp_path / "bare").result
    told = evaluated(place, llama_base, home, tmp_path / "told", described).result
    assert (bare.protocol, told.protocol) == ("bare", "described")
    assert "described" not in [method.name for method in told.methods]
    assert told.score("cats", "base").figures == bare.score("cats", "described").figures
    for method in ("average", "harvested", "generated", "in-context"):
        assert told.score("cats", method).figures["nll"] != bare.score("cats", method).figures["nll"]


def test_whatever_serves_an_adapter_has_a_change_on_unrelated_text(
    place: Place, llama_base: Base, home: Home, tmp_path: Path
) -> None:
    methods = ("base", "described", "in-context", "average", "noise", "generated", "harvested")
    few = varied(RECIPE, methods=methods, unrelated=True)
    out, some = tmp_path / "out", (place[0][1:3], place[1])
    result = evaluated(some, llama_base, home, out, few).result
    for task in ("dogs", "owls"):
        changes = {name: result.score(task, name).unrelated for name in methods}
        base, noise = changes["base"], changes["noise"]
        assert base is not None and (base.value, base.low, base.high) == (0.0, 0.0, 0.0)
        assert changes["described"] is changes["in-context"] is None
        assert noise is not None and noise.low <= noise.value <= noise.high and noise.value != 0.0
    rows = {(item.part, item.method): item for item in result.unrelated}
    measured = {"base", "average", "noise", "generated", "harvested"}
    assert set(rows) == {(part, name) for part in ("seen", "unseen combination") for name in measured}
    alone = result.score("dogs", "harvested").unrelated
    assert alone is not None and rows["seen", "harvested"].change.value == pytest.approx(alone.value)
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "| seen (1) | recovered | unrelated text, change of NLL |" in table
    assert evaluated(some, llama_base, home, out, few).scored == 0
    assert evaluated(some, llama_base, home, out, few).result == result


def test_a_near_duplicate_is_told(place: Place, llama_base: Base, home: Home, tmp_path: Path) -> None:
    tasks, folder = place
    rows = [{"input": f"cats {index}", "output": "cat" if index % 3 else "ox"} for index in range(40)]
    spec = TaskSpec.model_validate(
        {"name": "kittens", "description": "Something else.", "examples": rows, "split": "unseen"}
    )
    twin, _ = TaskStore(home).add(spec, [Example(**row) for row in rows])
    recipe = varied(RECIPE, methods=("base", "generated"))
    done = evaluate.run(
        (*tasks, twin), llama_base, EvalRequest(recipe, folder), home, out=tmp_path / "out", device="cpu"
    )
    found = {task.name: task.similar for task in done.result.tasks}
    assert found["kittens"] is not None and found["kittens"].duplicate and found["kittens"].task == "cats"
    assert found["kittens"].examples == 1.0
    assert found["owls"] is not None and not found["owls"].duplicate and found["owls"].examples == 0.0
    assert found["cats"] is None
    assert {task.name: task.part for task in done.result.tasks}["kittens"] == "unseen"


def test_without_a_generator(place: Place, llama_base: Base, home: Home, tmp_path: Path) -> None:
    done = evaluate.run(place[0], llama_base, EvalRequest(RECIPE), home, out=tmp_path / "out", device="cpu")
    names = [method.name for method in done.result.methods]
    assert "harvested" in names and "generated" not in names
    assert done.result.generator is None and done.result.storage is None and done.result.adapters is not None
    assert {task.part for task in done.result.tasks if task.name in ("cats", "dogs")} == {"seen"}


def test_bad_input(place: Place, llama_base: Base, home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no task to score"):
        evaluate.run((), llama_base, EvalRequest(RECIPE), home, device="cpu")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(AlreadyExistsError, match="holds no evaluation"):
        evaluated(place, llama_base, home, taken)
    assert [path.name for path in taken.iterdir()] == ["thesis.txt"]
    only = varied(RECIPE, methods=("generated",))
    with pytest.raises(UsageError, match="without a generator"):
        evaluate.run(place[0], llama_base, EvalRequest(only), home, out=tmp_path / "o", device="cpu")


def test_recipes_of_methods(tmp_path: Path) -> None:
    from icmlora_cli.config.recipes import resolve

    file = tmp_path / "mine.yaml"
    file.write_text("methods: [harvested, base]\n", encoding="utf-8")
    assert resolve(EvalRecipe, file, "eval", {}).methods == ("base", "harvested")
    file.write_text("methods: [bass]\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        resolve(EvalRecipe, file, "eval", {})
    assert "no method 'bass'" in str(json.dumps(caught.value.faults))


def test_plain_text_is_scored_in_bits_per_character(llama_base: Base, home: Home, tmp_path: Path) -> None:
    tasks = []
    for name, line in (("cats", "the cat sat on the mat. "), ("dogs", "a dog ran to the door! ")):
        rows = [{"text": f"{line * (3 + index % 4)}{index}"} for index in range(24)]
        spec = TaskSpec.model_validate(
            {"name": name, "description": f"Write about {name}.", "template": "text", "examples": rows}
        )
        tasks.append(TaskStore(home).add(spec, [Example("", row["text"]) for row in rows])[0])
    recipe = HARVEST.model_copy(update={"batch_size": 4, "steps": 20})
    harvest.run(tasks, llama_base, recipe, home, device="cpu")
    folder = train.run(tasks, llama_base, TRAIN, home, device="cpu").folder
    done = evaluate.run(tasks, llama_base, EvalRequest(RECIPE, folder), home, out=tmp_path / "out", device="cpu")
    result = done.result
    for method in SURE:
        assert set(result.score("cats", method).figures) == {"bits_per_character", "perplexity"}
    means = {(item.method, item.metric): item for item in result.means}
    base, oracle = (means[method, "bits_per_character"].figure.value for method in ("base", "harvested"))
    assert oracle < base
    lift = means["generated", "bits_per_character"].recovered
    assert lift is not None and lift.value == pytest.approx(
        (means["generated", "bits_per_character"].figure.value - base) / (oracle - base)
    )
    assert {item.metric for item in result.comparisons} == {"bits_per_character"}
    assert result.score("cats", "described").figures != result.score("cats", "base").figures


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_lm_eval_scores_base_generated_and_harvested_and_resumes(
    place: Place, llama_base: Base, home: Home, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    tasks, folder = place
    include = tmp_path / "harness"
    include.mkdir()
    data = include / "owls.jsonl"
    rows = [{"prompt": f"Q: owls {index}\nA:", "answer": "owl"} for index in range(4)]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (include / "owls.yaml").write_text(
        f"task: owls_local\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        'output_type: generate_until\ndoc_to_text: "{{prompt}}"\ndoc_to_target: "{{answer}}"\n'
        'generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: false}\n'
        "metric_list: [{metric: exact_match}]\n",
        encoding="utf-8",
    )
    few = varied(RECIPE, methods=("base", "generated", "harvested"))
    harness = HarnessRequest(("owls_local",), include)

    def scored() -> list[dict[str, object]]:
        done = evaluate.run(
            tasks[2:], llama_base, EvalRequest(few, folder, harness), home, out=tmp_path / "out", device="cpu"
        )
        assert done.lm_eval is not None
        return done.lm_eval

    first = scored()
    methods = [(row["task"], row["method"]) for row in first]
    assert methods == [(None, "base"), ("owls", "generated"), ("owls", "harvested"), ("tins", "generated")]
    assert all(set(row["scores"]) == {"owls_local"} for row in first)  # type: ignore[call-overload]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "lm-eval").iterdir()}
    assert len(kept) == 4
    assert scored() == first
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing was scored again
    summary = json.loads((tmp_path / "out" / "lm-eval.json").read_text(encoding="utf-8"))
    assert summary == {"schema": "icmlora.lm-eval/2", "scores": first}
