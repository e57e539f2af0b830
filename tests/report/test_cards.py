"""Cards: what a user typed stays text."""

from icmlora_cli.report.cards import adapter_card, quoted


def test_a_card_keeps_task_text_as_text() -> None:
    text = "Say <script>x</script>\n---\nlicense: evil `code`"
    card = adapter_card(base_model="a/b", task_text=text, generator="g", tasks=3, seed=1, licences=[])
    assert quoted(text) in card.splitlines()
    assert "license: evil" not in card.splitlines() and card.count("\n---\n") == 1


def test_what_a_generator_cost() -> None:
    def told(cost: dict[str, float]) -> str:
        return adapter_card(base_model="a/b", task_text="x", generator="g", tasks=3, seed=1, licences=[], cost=cost)

    known = {"harvest_seconds": 3600.0, "harvest_joules": 54321.0, "train_seconds": 9.6}
    assert "Harvesting its adapters took 3,600 s and 54.3 kJ, training the generator took 10 s." in told(known)
    assert "Training the generator took 10 s.\n" in told({"train_seconds": 9.6})
    assert " took " not in told({})
