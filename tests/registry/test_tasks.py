"""The store of tasks: parts, hashes, damage, and what is replaced."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import AlreadyExistsError, CorruptFileError, NotFoundError, SpecError
from icmlora_cli.registry.tasks import CHAT, QA, TEXT, PromptTemplate, Task, TaskStore, draft
from icmlora_cli.registry.upkeep import checks
from icmlora_cli.tasks.builtin import builtin_names, builtin_task
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.splits import PARTS, normalised
from icmlora_cli.tasks.task_file import SplitSpec, TaskSpec, TemplateSpec

EXAMPLES = tuple(Example(f"word {number}", str(number)) for number in range(100))
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def spec(name: str = "t", **changes: object) -> TaskSpec:
    facts = {"name": name, "description": "Do it.", "examples": [{"input": "a", "output": "b"}]}
    return TaskSpec.model_validate(facts | changes)


def described(*descriptions: str, **changes: object) -> TaskSpec:
    facts = {"name": "t", "descriptions": descriptions, "examples": [{"input": "a", "output": "b"}]}
    return TaskSpec.model_validate(facts | changes)


@pytest.fixture
def store(tmp_path: Path) -> TaskStore:
    return TaskStore(Home(tmp_path / "home", tmp_path / "cache"))


def parts(task: Task) -> dict[str, str]:
    return {example.input: part for part in PARTS for example in task.examples(part)}


def test_a_task_comes_back_as_it_was_added(store: TaskStore) -> None:
    task, state = store.add(spec(licence="CC0", family="f", split="unseen", template="chat"), EXAMPLES)
    assert state == "added"
    assert store.get("t") == task
    assert task == Task.read(task.folder)
    assert (task.licence, task.family, task.split, task.template) == ("CC0", "f", "unseen", CHAT)
    assert task.folder == store.home.tasks / "t"
    found = [example for part in PARTS for example in task.examples(part)]
    assert sorted(found) == sorted(EXAMPLES)
    assert dict(task.counts) == {part: len(task.examples(part)) for part in PARTS}
    assert len({task}) == 1


def test_order_and_repeats_do_not_matter(store: TaskStore) -> None:
    task, _ = store.add(spec(), EXAMPLES)
    shuffled = list(EXAMPLES) * 2
    random.Random(0).shuffle(shuffled)
    again, state = store.add(spec(), shuffled)
    assert (state, again) == ("unchanged", task)


def test_growing_a_task_moves_no_example(store: TaskStore) -> None:
    before = parts(store.add(spec(), EXAMPLES[:60])[0])
    grown, state = store.add(spec(), EXAMPLES, replace=True)
    assert state == "replaced"
    assert before.items() <= parts(grown).items()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.builds(Example, texts, texts), max_size=40), st.randoms())
def test_one_input_is_never_in_two_parts(extra: list[Example], order: random.Random) -> None:
    twins = [Example(f" {item.input.upper()} ", item.output + "x") for item in extra]
    mixed = [*EXAMPLES, *extra, *twins]
    made = draft(spec(), mixed)
    order.shuffle(mixed)
    assert draft(spec(), mixed) == made
    where: dict[str, set[str]] = {}
    for line in made.text.split("\n")[:-1]:
        row = json.loads(line)
        where.setdefault(normalised(row["input"]), set()).add(row["part"])
    assert all(len(found) == 1 for found in where.values())
    assert sum(made.task.counts.values()) == len(set(mixed))


def test_what_the_data_hash_depends_on() -> None:
    first = draft(spec(), EXAMPLES).task.data_hash
    assert draft(spec(description="Other words.", metric="nll", licence="x"), EXAMPLES).task.data_hash == first
    others = [
        draft(spec(), EXAMPLES[1:]),
        draft(spec(template="chat"), EXAMPLES),
        draft(spec(splits={"test": 0.5}), EXAMPLES),
    ]
    assert len({first, *(item.task.data_hash for item in others)}) == 4


def test_a_description_that_stands_in_every_prompt_is_data(store: TaskStore) -> None:
    template = {"prompt": "{description} {input}", "answer": "{output}"}
    tasks = [
        draft(described(first, second, template=template), EXAMPLES).task
        for first, second in (("Say it.", "Write it."), ("Say it.", "Print it."), ("Write it.", "Say it."))
    ]
    assert tasks[0].data_hash == tasks[1].data_hash != tasks[2].data_hash
    task, _ = store.add(spec(template=template), EXAMPLES)
    assert checks.task_flaws(task.folder, "t") == []


def test_another_task_of_that_name_needs_force(store: TaskStore) -> None:
    store.add(spec(), EXAMPLES)
    for other in (spec(description="Other."), spec(metric="nll")):
        with pytest.raises(AlreadyExistsError) as caught:
            store.add(other, EXAMPLES)
        assert "--force" in str(caught.value.hint)
    assert store.get("t").descriptions == ("Do it.",)
    assert store.add(spec(description="Other."), EXAMPLES, replace=True)[1] == "replaced"
    assert store.get("t").descriptions == ("Other.",)
    assert [path.name for path in store.home.tasks.iterdir() if path.is_dir()] == ["t"]


@pytest.mark.parametrize(
    ("examples", "splits", "missing"),
    [
        ((), {}, "train"),
        (EXAMPLES[:1], {"validation": 0, "test": 0}, "test"),
        (EXAMPLES, {"test": 0}, "test"),
    ],
)
def test_an_empty_part_is_a_fault(
    store: TaskStore, examples: tuple[Example, ...], splits: dict[str, float], missing: str
) -> None:
    with pytest.raises(SpecError) as caught:
        store.add(spec(splits=SplitSpec(**splits)), examples)
    assert any(missing in fault for fault in caught.value.faults)
    assert store.names() == ()


def _drop_manifest(folder: Path) -> None:
    (folder / "task.json").unlink()


def _drop_examples(folder: Path) -> None:
    (folder / "examples.jsonl").unlink()


def _change_examples(folder: Path) -> None:
    path = folder / "examples.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("word 1", "word I"), encoding="utf-8")


def _half_manifest(folder: Path) -> None:
    path = folder / "task.json"
    path.write_bytes(path.read_bytes()[:50])


def _wrong_type(folder: Path) -> None:
    path = folder / "task.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(value | {"counts": "many"}), encoding="utf-8")


def _other_schema(folder: Path) -> None:
    path = folder / "task.json"
    path.write_text(path.read_text(encoding="utf-8").replace("icmlora.task/1", "icmlora.task/9"), encoding="utf-8")


@pytest.mark.parametrize(
    "damage", [_drop_manifest, _drop_examples, _change_examples, _half_manifest, _wrong_type, _other_schema]
)
def test_damage_is_seen_and_can_be_mended(store: TaskStore, damage: object) -> None:
    task, _ = store.add(spec(), EXAMPLES)
    assert callable(damage)
    damage(task.folder)
    with pytest.raises(CorruptFileError) as caught:
        store.get("t")
    assert "icmlora task remove t" in str(caught.value.hint)
    if damage in (_drop_examples, _change_examples):
        with pytest.raises(CorruptFileError):
            task.examples("train")
    with pytest.raises(CorruptFileError):
        store.add(spec(), EXAMPLES)
    assert store.names() == ("t",)
    assert store.add(spec(), EXAMPLES, replace=True) == (task, "replaced")
    damage(task.folder)
    store.remove("t")
    assert store.names() == ()


def test_a_renamed_folder_is_seen(store: TaskStore) -> None:
    task, _ = store.add(spec(), EXAMPLES)
    task.folder.rename(task.folder.with_name("u"))
    with pytest.raises(CorruptFileError):
        store.get("u")


def test_selecting(store: TaskStore) -> None:
    for name, family in (("choose_1", "list"), ("choose_2", "list"), ("upper", "case"), ("plain", None)):
        store.add(spec(name, family=family), EXAMPLES)
    names = {
        None: ("choose_1", "choose_2", "plain", "upper"),
        ("choose_*",): ("choose_1", "choose_2"),
        ("family:case", "choose_2"): ("choose_2", "upper"),
        (): (),
    }
    for patterns, expected in names.items():
        assert tuple(task.name for task in store.select(patterns)) == expected
    for pattern in ("nothing_*", "family:nothing", "Upper"):
        with pytest.raises(NotFoundError):
            store.select(["upper", pattern])


def test_a_missing_task_has_a_next_step(store: TaskStore) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.get("anything")
    assert "builtin:*" in str(caught.value.hint)
    store.add(spec("antonym-task"), EXAMPLES)
    with pytest.raises(NotFoundError) as caught:
        store.get("antonim-task")
    assert "antonym-task" in str(caught.value.hint) and "icmlora task list" in str(caught.value.hint)
    with pytest.raises(NotFoundError) as caught:
        store.get(builtin_names()[0])
    assert caught.value.hint == f"icmlora task add builtin:{builtin_names()[0]}"


@pytest.mark.parametrize("name", ["..", "../tasks", "", ".lock", "a/b"])
def test_no_name_leads_out_of_the_folder(store: TaskStore, name: str) -> None:
    store.add(spec(), EXAMPLES)
    for method in (store.get, store.remove):
        with pytest.raises(NotFoundError):
            method(name)
    assert store.names() == ("t",)


def test_every_built_in_task_can_be_added(store: TaskStore) -> None:
    for name in builtin_names():
        task = store.add_builtin(name)
        builtin = builtin_task(name)
        assert (task.name, task.family, task.descriptions) == (
            name,
            builtin.family,
            tuple(builtin.descriptions),
        )
        assert task.split == ("unseen" if builtin.held_out else "train")
    assert store.names() == tuple(sorted(builtin_names()))
    before = store.all()
    store.add_builtin(builtin_names()[0])
    assert store.all() == before
    with pytest.raises(NotFoundError):
        store.add_builtin("no_such_task_at_all")


def test_how_templates_write_an_example() -> None:
    example = Example("{output} {description}", "{input}")
    assert QA.render(example) == ("Q: {output} {description}\nA:", " {input}\n")
    assert QA.render(example, description="Say {input}.")[0].startswith("Say {input}.\nQ: {output}")
    own = PromptTemplate.from_spec(TemplateSpec(prompt="{description}|{input}|{x}", answer="={output}"))
    assert own.render(Example("a", "b"), description="D") == ("D|a|{x}", "=b")
    assert own.render(Example("a", "b")) == ("|a|{x}", "=b")
    for template in (QA, CHAT, own):
        assert PromptTemplate.from_spec(spec(template=template.to_spec()).template) == template


def test_a_name_is_checked_in_the_spec() -> None:
    with pytest.raises(ValueError, match="cannot be a task's name"):
        spec("../x")


def test_passages_are_divided_by_their_text(store: TaskStore) -> None:
    passages = [Example("", f"Passage {number}.") for number in range(100)]
    texts = spec(template="text", examples=[{"text": "a"}])
    task, _ = store.add(texts, passages)
    assert store.get("t") == task
    assert (task.template, task.metric, task.template.to_spec()) == (TEXT, "bits_per_character", "text")
    assert all(task.counts[part] > 5 for part in ("validation", "test")) and sum(task.counts.values()) == 100
    assert task.template.render(passages[0]) == ("", "Passage 0.")
    with pytest.raises(SpecError) as caught:
        draft(texts, passages[:1])
    assert caught.value.hint is not None and caught.value.hint.startswith("give more passages")


def test_a_name_that_differs_in_its_case_alone_is_taken(store: TaskStore) -> None:
    store.add(spec("abc"), EXAMPLES)
    for replace in (False, True):
        with pytest.raises(AlreadyExistsError, match="there is a task 'abc' already") as caught:
            store.add(spec("Abc"), EXAMPLES, replace=replace)
        assert caught.value.hint is not None
    assert store.names() == ("abc",)


def test_a_registry_whose_folders_are_links(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path / "cache")
    (tmp_path / "disk" / "tasks").mkdir(parents=True)
    home.root.symlink_to(tmp_path / "disk")
    store = TaskStore(home)
    store.add(spec("a"), EXAMPLES)
    (tmp_path / "disk" / "tasks" / "a").rename(tmp_path / "elsewhere")
    (home.tasks / "a").symlink_to(tmp_path / "elsewhere")
    assert store.add(spec("a", description="Do it anew."), EXAMPLES, replace=True)[1] == "replaced"
    assert (home.tasks / "a").is_symlink() and store.get("a").descriptions == ("Do it anew.",)
    store.remove("a")
    assert store.names() == () and (tmp_path / "elsewhere").is_dir()
