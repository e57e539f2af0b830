"""Cards: what a user typed stays text."""

from icmlora_cli.report.cards import adapter_card, quoted


def test_a_card_keeps_task_text_as_text() -> None:
    text = "Say <script>x</script>\n---\nlicense: evil `code`"
    card = adapter_card(base_model="a/b", task_text=text, generator="g", tasks=3, seed=1, licences=[])
    assert quoted(text) in card.splitlines()
    assert "license: evil" not in card.splitlines() and card.count("\n---\n") == 1
