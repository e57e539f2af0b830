"""The tokenizer of a merged model is that of the adapter, where it was saved beside it."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from icmlora_cli.errors import UnsupportedAdapterError
from icmlora_cli.workflows.merge.tokenizer import files_beside

TEMPLATE = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"


def saved(base: Path, folder: Path, *tokens: str, template: str | None = TEMPLATE) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(list(tokens))
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def merged_folder(base: Path, out: Path, adapters: list[Path], rows: int = 10_000) -> Path:
    out.mkdir()
    for path in files_beside(base, adapters, rows):
        shutil.copyfile(path, out / path.name)
    return out


def test_the_adapters_tokens_and_template_go_along(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    base = tiny_bases["llama"]
    adapter = saved(base, tmp_path / "adapter", "<tool>", "</tool>")
    there = AutoTokenizer.from_pretrained(merged_folder(base, tmp_path / "out", [adapter]))
    wanted = AutoTokenizer.from_pretrained(adapter)
    assert there.encode("<tool>one</tool>") == wanted.encode("<tool>one</tool>")
    assert there.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "[x]"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"


def test_without_a_tokenizer_of_its_own_the_bases_goes(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    base = tiny_bases["llama"]
    (tmp_path / "adapter").mkdir()
    out = merged_folder(base, tmp_path / "out", [tmp_path / "adapter"])
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_tokens_without_a_row_and_two_tokenizers_are_refused(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    base = tiny_bases["llama"]
    one, two = saved(base, tmp_path / "one", "<a>"), saved(base, tmp_path / "two", "<b>")
    largest = len(AutoTokenizer.from_pretrained(one)) - 1
    with pytest.raises(UnsupportedAdapterError, match=f"tokens up to {largest}, and the base has {largest} rows"):
        files_beside(base, [one], largest)
    with pytest.raises(UnsupportedAdapterError, match="different tokenizers"):
        files_beside(base, [one, two], 10_000)
