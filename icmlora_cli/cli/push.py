"""``icmlora push``: send an adapter, a merged model or a generator to the Hugging Face hub."""

from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import DryRun, Json, Quiet, Yes
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.workflows.push.push import PushPlan, PushTarget


def push(
    output: Annotated[
        str, typer.Argument(help="A folder that gen wrote, a generator's folder, or a generator's name.")
    ],
    repo_id: Annotated[str, typer.Argument(help="NAMESPACE/NAME on the hub; a NAME alone is one of your own.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    revision: Annotated[str, typer.Option("--revision", help="Branch to send to; made if it is not there.")] = "main",
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send an adapter, a merged model or a generator to the Hugging Face hub.

    It makes one commit. It sends only files that icmlora writes, and LICENSE and NOTICE. Hashes and card are checked
    first. Paths of this machine in icmlora.json and generator.json are cut to their last part. docs/sharing.md says
    more.
    """
    with session("push", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.push.push import PushTarget, plan, ready, run

        target = PushTarget(repo_id, private, revision, message)
        target.check()
        planned = plan(output, Home.from_environment())
        if not dry_run:
            ready()
        if not quiet:
            _print_plan(out, planned, target)
        out.forbidden(planned.no_derivatives)
        result = None
        if not dry_run:
            out.confirm(
                f"Send {planned.bytes / 1e6:.2f} MB to {repo_id}?", yes=yes, again="the same command with --yes"
            )
            with out.progress() as on_progress:
                result = run(planned, target, on_progress=on_progress)
        out.result(
            {
                "folder": str(planned.folder),
                "kind": planned.kind,
                "repo_id": repo_id if result is None else result.repo_id,
                "revision": revision,
                "private": private if result is None else result.private,
                "dry_run": dry_run,
                "files": [{"name": item.name, "bytes": item.size} for item in planned.files],
                "bytes": planned.bytes,
                "left": list(planned.left),
                "shortened": list(planned.shortened),
                "no_derivatives": list(planned.no_derivatives),
                "url": None if result is None else result.url,
                "commit": None if result is None else result.commit,
            }
        )
        if result is not None:
            out.line(result.url if quiet else f"sent to {result.url}, commit {result.commit}")
        elif quiet:
            out.table((), [(item.name, str(item.size)) for item in planned.files])


def _print_plan(out: Out, planned: "PushPlan", target: "PushTarget") -> None:
    what = "merged model" if planned.kind == "merged" else planned.kind
    visibility = "private" if target.private else "public"
    out.line(f"{what} in {planned.folder}, to {target.repo_id} ({visibility}), branch {target.revision}:")
    out.table(("file", "bytes"), [(item.name, f"{item.size:,}") for item in planned.files])
    out.line(f"{len(planned.files)} files, {planned.bytes:,} bytes")
    if planned.shortened:
        out.note(f"note: paths of this machine in {', '.join(planned.shortened)} are cut to their last part")
    if planned.left:
        out.note(f"note: not sent: {', '.join(planned.left)}")
