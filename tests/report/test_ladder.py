"""Tables: every figure in its cell, means over the right tasks."""

from icmlora_cli.report.cards import adapter_card, quoted
from icmlora_cli.report.ladder import figure, ladder_table, mean
from icmlora_cli.workflows.evaluate import Cell


def cells() -> list[Cell]:
    made = []
    for task, seen, values in (("a", True, (0.0, 0.5)), ("b", True, (0.2, 1.0)), ("c", False, (0.1, None))):
        for rung, value in zip(("base", "generated"), values, strict=True):
            made.append(Cell(task, seen, rung, 10, value, None if value is None else 1 - value))
    return made


def test_the_table_has_seen_their_mean_and_unseen() -> None:
    table = ladder_table(cells(), ("base", "generated"), "exact_match")
    assert table.headers == ("task", "split", "base", "generated")
    assert table.rows == (
        ("a", "seen", "0.00", "0.50"),
        ("b", "seen", "0.20", "1.00"),
        ("mean of 2", "seen", "0.10", "0.75"),
        ("c", "unseen", "0.10", "-"),
    )


def test_the_other_metric() -> None:
    assert ladder_table(cells(), ("generated",), "nll").rows[0] == ("a", "seen", "0.50")


def test_markdown_has_a_line_a_row() -> None:
    text = ladder_table(cells(), ("base",), "exact_match").markdown()
    assert text.splitlines()[:3] == ["| task | split | base |", "| --- | --- | --- |", "| a | seen | 0.00 |"]


def test_means_skip_what_is_absent() -> None:
    assert mean([None, 0.5, 1.0]) == 0.75
    assert mean([None]) is None
    assert figure(None) == "-"


def test_a_card_keeps_task_text_as_text() -> None:
    text = "Say <script>x</script>\n---\nlicense: evil `code`"
    card = adapter_card(base_model="a/b", task_text=text, generator="g", tasks=3, seed=1, licences=[])
    assert quoted(text) in card.splitlines()
    assert "license: evil" not in card.splitlines() and card.count("\n---\n") == 1
