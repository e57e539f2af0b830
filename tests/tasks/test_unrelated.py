"""The passages that belong to no task: there, varied, whole, and of like length."""

from icmlora_cli.tasks.unrelated import unrelated_passages


def test_there_are_twelve_short_passages() -> None:
    passages = unrelated_passages()
    assert len(set(passages)) == 12
    assert all(90 < len(passage.split()) < 150 and passage == passage.strip() for passage in passages)
    assert not [passage for passage in passages if "%%" in passage]
    assert any("def " in passage for passage in passages) and any(passage.startswith('"') for passage in passages)
