"""Write docs/cli.md from the ``--help`` of every command; with ``--check``, only compare."""

import os
import sys
from pathlib import Path

os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb", TERMINAL_WIDTH="100", _TYPER_FORCE_DISABLE_TERMINAL="1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a checkout that is not installed will do

import typer.main
from typer.testing import CliRunner

from icmlora_cli.cli.app import app

TARGET = Path(__file__).with_name("cli.md")
HEAD = "# Command line\n\nMade from `--help` by `docs/make_cli_reference.py`.\n"


def commands() -> list[tuple[str, ...]]:
    """Return the words of every command, the bare ``icmlora`` first."""
    found: list[tuple[str, ...]] = [()]
    root = typer.main.get_command(app)
    for name, command in getattr(root, "commands", {}).items():
        found.append((name,))
        found += [(name, inner) for inner in getattr(command, "commands", {})]
    return found


def reference() -> str:
    """Return the page."""
    runner = CliRunner()
    parts = [HEAD]
    for words in commands():
        result = runner.invoke(app, [*words, "--help"], prog_name="icmlora")
        if result.exit_code != 0:
            raise SystemExit(f"icmlora {' '.join(words)} --help failed: {result.output}")
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        parts.append(f"## {' '.join(('icmlora', *words))}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Write or check the page."""
    text = reference()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != text:
        raise SystemExit("docs/cli.md is not what --help says; run: python docs/make_cli_reference.py")


if __name__ == "__main__":
    main()
