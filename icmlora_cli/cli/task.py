"""``icmlora task``: add, list, show, preview, validate, export and remove tasks."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import Force, Json, Quiet, Tasks, Yes
from icmlora_cli.cli.out import session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icmlora_cli.cli.out import Out
    from icmlora_cli.registry.tasks import Task

app = typer.Typer(
    help="Tasks: add, list, show, preview, validate, export, remove.",
    epilog="Example: icmlora task add 'builtin:*'",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="A task's name.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Task names or patterns such as 'choose_*'.")]


@app.command(epilog="Example: icmlora task add mytask.yaml 'builtin:*'")
def add(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A YAML file, builtin:NAME, builtin:PATTERN, builtin:family:NAME, drawn:PATTERN, voc:FOLDER or "
            "coco:FILE.",
        ),
    ],
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add tasks to the registry, from task files or from the built-in ones.

    All are checked before any is written. Adding the same task again changes nothing.
    """
    with session("task add", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.tasks import add as add_tasks

        result = add_tasks(Home.from_environment(), sources, force=force)
        out.result(
            {
                "tasks": [_as_dict(task) | {"state": state} for task, state in result.tasks],
                "notes": list(result.notes),
            }
        )
        _table(out, result.tasks)
        for note in result.notes:
            out.note(f"note: {note}")
        states = [state for _, state in result.tasks]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        out.note(f"{counts}\nnext: icmlora harvest")


@app.command("list", epilog="Example: icmlora task list --tasks 'choose_*' --json")
def list_tasks(tasks: Tasks = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the registered tasks."""
    with session("task list", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.errors import CorruptFileError
        from icmlora_cli.registry.tasks import TaskStore

        store = TaskStore(Home.from_environment())
        listed = []
        for name in store.matching(tasks) if tasks else store.names():
            try:
                listed.append(store.get(name))
            except CorruptFileError as error:
                out.note(f"warning: {error.message}; {error.hint}")
        out.result({"tasks": [_as_dict(task) for task in listed]})
        if not listed and not quiet:
            out.line("no tasks yet; add some with: icmlora task add 'builtin:*'")
            return
        _table(out, [(task, "") for task in listed])


@app.command(epilog="Example: icmlora task show choose_first_of_3")
def show(name: Name, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show one task."""
    with session("task show", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.tasks import TaskStore

        task = TaskStore(Home.from_environment()).get(name)
        facts = _as_dict(task)
        out.result(facts)
        texts = [("description", text) for text in task.descriptions]
        parts = [(f"{part} examples", str(count)) for part, count in task.counts.items()]
        template = [
            ("template", task.template.kind),
            ("prompt", repr(task.template.prompt)),
            ("answer", repr(task.template.answer)),
        ]
        rest = [(key, str(facts[key] or "-")) for key in _TABLE_KEYS]
        out.table(("", ""), [("name", task.name), *texts, *parts, *template, *rest])


@app.command(epilog="Example: icmlora task preview choose_first_of_3 -n 2")
def preview(
    name: Name,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Examples to show of each part.")] = 3,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the exact prompts and answers of some examples of each part."""
    with session("task preview", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.tasks import TaskStore
        from icmlora_cli.tasks.splits import PARTS

        task = TaskStore(Home.from_environment()).get(name)
        parts = {part: [task.template.render(example) for example in task.examples(part)[:count]] for part in PARTS}
        rendered = {
            part: [{"prompt": prompt, "answer": answer} for prompt, answer in pairs] for part, pairs in parts.items()
        }
        rule, not_read = task.read_as()
        out.result(
            {
                "name": task.name,
                "template": task.template.kind,
                "rule": rule,
                "not_read": list(not_read),
                "parts": rendered,
            }
        )
        if rule is not None:
            out.line(f"read as {rule}" + (f"; not read: {', '.join(not_read)}" if not_read else ""))
        text = task.template.kind == "text"
        if task.template.kind == "chat":
            out.note(
                "chat: the prompt is the user's message; it is rendered with the base's tokenizer, in its "
                "chat template, and the answer ends with its end-of-text token"
            )
        for part, pairs in parts.items():
            out.line(f"{part}: {task.counts[part]} {'passages' if text else 'examples'}")
            for prompt, answer in pairs:
                out.line(f"  text {answer!r}" if text else f"  prompt {prompt!r}\n  answer {answer!r}")


@app.command(epilog="Example: icmlora task validate tasks/*.yaml")
def validate(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML task files.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check task files and their examples, and list all faults; nothing is added."""
    with session("task validate", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.workflows.tasks import validate as validate_files

        checked = validate_files(paths)
        out.result(
            {
                "files": [
                    {
                        "file": str(item.file),
                        "tasks": {task.name: dict(task.counts) for task in item.tasks},
                        "notes": list(item.notes),
                    }
                    for item in checked
                ]
            }
        )
        for item in checked:
            for note in item.notes:
                out.note(f"note: {note}")
            total = sum(sum(task.counts.values()) for task in item.tasks)
            out.line(str(item.file) if quiet else f"{item.file}: {len(item.tasks)} tasks, {total} examples, no fault")


@app.command(epilog="Example: icmlora task export 'choose_*' -o mine.yaml")
def export(
    names: Names,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.yaml", help="The task file to write.")],
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write tasks as a task file, with their examples in a folder beside it.

    Adding that file elsewhere gives the same tasks.
    """
    with session("task export", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.tasks import TaskStore
        from icmlora_cli.workflows.tasks import export as export_tasks

        result = export_tasks(TaskStore(Home.from_environment()), names, output, force=force)
        out.result(
            {
                "file": str(result.file),
                "examples": [str(path) for path in result.examples],
                "tasks": list(result.tasks),
            }
        )
        out.line(str(result.file) if quiet else f"{len(result.tasks)} tasks are in {result.file}")
        out.note(f"next: icmlora task add {result.file}")


@app.command(epilog="Example: icmlora task remove choose_first_of_3 --yes")
def remove(
    names: Names,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove tasks from the registry. Adapters harvested for them stay."""
    with session("task remove", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.tasks import TaskStore

        store = TaskStore(Home.from_environment())
        matching = store.matching(names)
        out.confirm(f"Remove {', '.join(matching)}?", yes=yes, again=f"icmlora task remove {shlex.join(names)} --yes")
        for name in matching:
            store.remove(name)
        out.result({"removed": list(matching)})
        for name in matching:
            out.line(name if quiet else f"removed {name}")


@app.command(epilog="Example: icmlora task builtins")
def builtins(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the built-in tasks by family; add them with: icmlora task add builtin:NAME."""
    with session("task builtins", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.tasks.builtin import builtin_names, builtin_task

        tasks = sorted(map(builtin_task, builtin_names()), key=lambda task: (task.family, task.name))
        rows = [
            {
                "name": task.name,
                "family": task.family,
                "split": "unseen" if task.held_out else "train",
                "descriptions": list(task.descriptions),
            }
            for task in tasks
        ]
        out.result({"builtins": rows})
        out.table(
            ("family", "name", "split", "description"),
            [
                (task.family, task.name, str(row["split"]), task.descriptions[0])
                for task, row in zip(tasks, rows, strict=True)
            ],
        )
        out.note("next: icmlora task add builtin:NAME, or builtin:family:NAME, or 'builtin:*'")


_TABLE_KEYS = ("metric", "split", "family", "licence", "source", "data_hash", "folder")


def _as_dict(task: "Task") -> dict[str, object]:
    facts = task.to_manifest().content() | {"folder": str(task.folder)}
    return {key: value for key, value in facts.items() if key != "schema"}


def _table(out: "Out", tasks: "Sequence[tuple[Task, str]]") -> None:
    headers: tuple[str, ...] = ("name", "family", "split", "train", "validation", "test", "description")
    rows: list[tuple[str, ...]] = [
        (
            task.name,
            task.family or "-",
            task.split,
            *(str(count) for count in task.counts.values()),
            task.descriptions[0],
        )
        for task, _ in tasks
    ]
    if any(state for _, state in tasks):
        headers = ("state", *headers)
        rows = [(state, *row) for (_, state), row in zip(tasks, rows, strict=True)]
    out.table(headers, rows)
