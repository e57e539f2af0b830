"""Examples from real files of every kind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from icmlora_cli.errors import IcmloraError, SpecError, UsageError
from icmlora_cli.tasks.builtin import builtin_names
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.sources import load_examples, read_examples
from icmlora_cli.tasks.task_file import (
    BuiltinSource,
    DatasetSource,
    FileSource,
    Source,
    TaskSpec,
    TextDatasetSource,
    TextFileSource,
    TextSpec,
)

FILE = Path("task.yaml")
PAIRS = (Example("a, b", "a"), Example('say "hi"\u2028', "ünï"), Example("c", "d"))


def load(tmp_path: Path, source: Source) -> tuple[Example, ...]:
    spec = TaskSpec(name="t", description="D", examples=source)
    return load_examples(spec, tmp_path, tmp_path / FILE).examples


def faults(tmp_path: Path, source: Source) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, source)
    return caught.value.faults


def write_jsonl(path: Path) -> None:
    lines = [json.dumps({"q": item.input, "r": item.output, "x": 1}, ensure_ascii=False) for item in PAIRS]
    path.write_bytes(("\ufeff" + "\r\n".join(lines) + "\n\n").encode())


def write_csv(path: Path) -> None:
    import csv

    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("x", "r", "q"), *((1, item.output, item.input) for item in PAIRS)])


def write_parquet(path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    columns = {"q": [item.input for item in PAIRS], "r": [item.output for item in PAIRS], "x": [1, 2, 3]}
    parquet.write_table(pyarrow.table(columns), path)


WRITERS = {".jsonl": write_jsonl, ".csv": write_csv, ".parquet": write_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_give_the_same_examples(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"x{suffix}")
    assert load(tmp_path, FileSource(path=f"x{suffix}", input="q", output="r")) == PAIRS


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_column_that_is_not_there(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"x{suffix}")
    found = faults(tmp_path, FileSource(path=f"x{suffix}", input="q", output="answer"))
    assert found[0].startswith(str(tmp_path / f"x{suffix}") + ":1: ")
    assert "'answer'" in found[0] and "q" in found[0]


@pytest.mark.parametrize("suffix", WRITERS)
def test_bytes_of_another_format(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_bytes(b"input,output\n\xff\xfe\x00garbage")
    assert faults(tmp_path, f"x{suffix}")[0].startswith(str(tmp_path / f"x{suffix}") + ":")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_empty_file(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").touch()
    assert len(faults(tmp_path, f"x{suffix}")) >= 1


def test_every_bad_row_of_a_jsonl_file_has_its_line(tmp_path: Path) -> None:
    rows = [
        '{"input": "a", "output": "b"}',
        '{"input": "a"}',
        "not json",
        '["a", "b"]',
        '{"input": " ", "output": "b"}',
        '{"input": null, "output": "b"}',
        '{"input": ["a"], "output": "b"}',
        '{"input": "\\ud800", "output": "b"}',
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(rows), encoding="utf-8")
    found = faults(tmp_path, "x.jsonl")
    assert sorted(fault.split(":")[1] for fault in found) == ["2", "3", "4", "5", "7", "8"]
    assert f"{tmp_path / 'x.jsonl'}:2: has no 'output'" in found
    assert f"{tmp_path / 'x.jsonl'}:5: 'input' is empty (2 rows: 5, 6)" in found


def test_equal_faults_are_told_once_and_only_twenty_kinds(tmp_path: Path) -> None:
    good = '{"input": "a", "output": "b"}\n'
    (tmp_path / "x.jsonl").write_text(good + '{"input": "a"}\n' * 50_000, encoding="utf-8")
    assert faults(tmp_path, "x.jsonl") == (
        f"{tmp_path / 'x.jsonl'}:2: has no 'output' (10,000 rows: 2, 3, 4, ...)",
        f"{tmp_path / 'x.jsonl'}:10001: from here on nothing was read: too many rows are wrong",
    )
    (tmp_path / "x.jsonl").write_text(good + "".join("1" * n + "x\n" for n in range(1, 51)), encoding="utf-8")
    found = faults(tmp_path, "x.jsonl")
    assert len(found) == 21
    assert found[-1] == "... and 30 more"


def test_bad_rows_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('input,output\na,b\n"c\nc",d,e\nf\n,g\n', encoding="utf-8")
    found = faults(tmp_path, "x.csv")
    assert sorted(fault.split(":")[1] for fault in found) == ["4", "5", "6"]


def test_scalars_become_text_and_repeated_examples_are_dropped(tmp_path: Path) -> None:
    rows = [{"input": 1, "output": 2.5}, {"input": "1", "output": "2.5"}, {"input": True, "output": 0}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert load(tmp_path, "x.jsonl") == (Example("1", "2.5"), Example("True", "0"))


def test_a_folder_with_the_suffix_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    assert "is a folder" in faults(tmp_path, "x.jsonl")[0]


def test_a_built_in_task(tmp_path: Path) -> None:
    name = builtin_names()[0]
    first = load(tmp_path, BuiltinSource(builtin=name, count=20, seed=1))
    assert 0 < len(first) <= 20
    assert first == load(tmp_path, BuiltinSource(builtin=name, count=20, seed=1))


def test_a_missing_optional_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "x.parquet").touch()
    for source, extra in ((DatasetSource(dataset="d"), "datasets"), ("x.parquet", "parquet")):
        with pytest.raises(IcmloraError) as caught:
            load(tmp_path, source)
        assert caught.value.hint == f"pip install 'icmlora[{extra}]'"


def load_text(tmp_path: Path, source: Source) -> list[str]:
    spec = TaskSpec(name="t", description="D", template="text", examples=source)
    examples = load_examples(spec, tmp_path, tmp_path / FILE).examples
    assert all(example.input == "" for example in examples)
    return [example.output for example in examples]


def test_plain_text_of_the_task_file(tmp_path: Path) -> None:
    texts = (TextSpec(text="one\n\ntwo"), TextSpec(text="three"), TextSpec(text="three"))
    assert load_text(tmp_path, texts) == ["one\n\ntwo", "three"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_column_of_plain_text(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"x{suffix}")
    assert load_text(tmp_path, TextFileSource(path=(f"x{suffix}",), text="q")) == [item.input for item in PAIRS]
    with pytest.raises(SpecError, match=r"have (one fault|3 faults)"):
        load_text(tmp_path, (f"x{suffix}",))  # there is no column "text"


def test_text_files_are_cut_into_passages(tmp_path: Path) -> None:
    (tmp_path / "books" / "deep").mkdir(parents=True)
    for name in ("books/b.txt", "books/deep/a.txt", "c.txt"):
        paragraphs = [f"{name} {number} " + "word " * 50 for number in range(20)]
        (tmp_path / name).write_bytes("\r\n\r\n".join(paragraphs).encode())
    (tmp_path / "books" / "notes.bin").write_bytes(b"\xff")
    whole = load_text(tmp_path, ("books", "c.txt", "*.txt"))
    assert [text.split(" 0 ")[0] for text in whole if " 0 word" in text] == ["books/b.txt", "books/deep/a.txt", "c.txt"]
    assert all(800 < len(text) < 1600 for text in whole)
    short = load_text(tmp_path, TextFileSource(path=("c.txt",), passage=300))
    assert len(short) >= 2 * len(load_text(tmp_path, ("c.txt",)))


def test_rows_of_a_column_are_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    row = json.dumps({"text": "\n\n".join(["word " * 30] * 10)})
    (tmp_path / "x.jsonl").write_text(row, encoding="utf-8")
    assert len(load_text(tmp_path, ("x.jsonl",))) == 1
    assert len(load_text(tmp_path, TextFileSource(path=("x.jsonl",), passage=200))) == 1  # five times the same one


def test_a_text_file_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"one\n\xff\n")
    spec = TaskSpec(name="t", description="D", template="text", examples=("x.txt",))
    with pytest.raises(SpecError) as caught:
        load_examples(spec, tmp_path, tmp_path / FILE)
    assert caught.value.faults == (f"{tmp_path / 'x.txt'}:2: byte 0xff is not UTF-8",)


def test_plain_text_of_a_local_dataset(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "train.jsonl").write_text('{"text": "a"}\n{"text": " "}\n{"text": "b"}\n', encoding="utf-8")
    assert load_text(tmp_path, TextDatasetSource(dataset="plain")) == ["a", "b"]


def test_a_local_dataset_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "train.csv").write_text("text,label\na,1\nb,0\nc,1\n", encoding="utf-8")
    source = DatasetSource(dataset="plain", input="text", output="label", limit=2)
    assert load(tmp_path, source) == (Example("a", "1"), Example("b", "0"))
    with pytest.raises(IcmloraError):
        load(tmp_path, DatasetSource(dataset="plain", split="none"))
    names = datasets.ClassLabel(names=["no", "yes"])
    table = datasets.load_dataset(str(tmp_path / "plain"), split="train").cast_column("label", names)
    table.save_to_disk(tmp_path / "single")
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "several")
    for name in ("single", "several"):
        source = DatasetSource(dataset=name, input="text", output="label", limit=2)
        assert load(tmp_path, source) == (Example("a", "yes"), Example("b", "no"))


def test_images_of_a_local_dataset(tmp_path: Path) -> None:
    datasets, image = pytest.importorskip("datasets"), pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "b.png")):
        image.new("RGB", (8, 6), (90 * number, 0, 0)).save(folder / name)
    rows = '{"file_name": "a.jpg", "text": "dark"}\n{"file_name": "b.png", "text": "red"}\n'
    (folder / "metadata.jsonl").write_text(rows, encoding="utf-8")
    files = [(folder / name).read_bytes() for name in ("a.jpg", "b.png")]
    datasets.load_dataset(str(folder), split="train").save_to_disk(tmp_path / "saved")
    for name in ("pictures", "saved"):
        source = DatasetSource(dataset=name, input="Look: {text}", output="{text}", image="image")
        examples = load(tmp_path, source)
        assert [(item.input, item.output) for item in examples] == [("Look: dark", "dark"), ("Look: red", "red")]
        assert [item.picture and item.picture.read() for item in examples] == files
    (folder / "a.jpg").write_bytes(files[0][:100])
    assert "the image" in faults(tmp_path, source.model_copy(update={"dataset": "pictures"}))[0]


def test_a_file_that_no_task_file_names(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"input": "a", "output": "b"}\n{"input": "a", "output": "b"}\n{"input": 1, "output": 2}\n')
    assert read_examples(path).examples == (Example("a", "b"), Example("1", "2"))
    path.write_text('{"text": "One."}\n{"text": "Two."}\n')
    assert read_examples(path, text=True).examples == (Example("", "One."), Example("", "Two."))
    with pytest.raises(SpecError, match="one fault") as caught:
        read_examples(path)
    assert caught.value.faults[0].startswith(f"{path}:1: no rule reads its columns, which are: text; known are: input")
    assert caught.value.hint == "name the columns input and output"
    path.write_text("\n")
    with pytest.raises(SpecError, match="one fault"):
        read_examples(path)
    for name, said in (("nowhere.jsonl", "no file"), ("some.txt", "none of"), (".", "no file")):
        (tmp_path / "some.txt").write_text("Once.")
        with pytest.raises(UsageError, match=said):
            read_examples(tmp_path / name)
    assert read_examples(tmp_path / "some.txt", text=True).examples == (Example("", "Once."),)


def test_cells_that_no_example_needs_are_not_kept(tmp_path: Path) -> None:
    columns = ",".join(f"column_{number}" for number in range(20_000))
    (tmp_path / "x.csv").write_text(f"input,output,{columns}\n" + "a,b\n" * 20_000, encoding="utf-8")
    code = (
        "import resource, sys; from pathlib import Path; from icmlora_cli.tasks.sources import read_examples\n"
        "limit = 1 << 30; resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"  # whole rows would take 30 GB
        "print(len(read_examples(Path(sys.argv[1])).examples))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.csv")], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
