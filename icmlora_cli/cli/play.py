"""``icmlora play``: one page on this machine, to make adapters of task texts and try them."""

from typing import Annotated

import typer

from icmlora_cli.cli.options import Device, Json, Offline, OtherBase, Quiet
from icmlora_cli.cli.out import Out, session
from icmlora_cli.cli.serve import (
    NETWORK,
    Port,
    Results,
    address,
    bound,
    evaluation,
    need_the_extra,
    play_page,
    run_server,
)

HOST = "127.0.0.1"
GRACE = 1.0  # seconds that answers under way have after Ctrl-C: whoever reads them sits here


def play(
    generator: Annotated[str, typer.Option("--generator", "-g", help="A generator's name or folder.")] = "default",
    base: OtherBase = None,
    results: Results = None,
    port: Port = 0,
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.", rich_help_panel=NETWORK)
    ] = True,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Open a page to make adapters of task texts and try them.

    Type a task, see its adapter being made, and ask the base, the base that is told the task, and the adapter side by
    side. A few examples help; what you like can be downloaded. The page needs no network and is for this machine alone:
    its address has a token. It needs the extra icmlora[serve]. docs/playground.md shows the page.
    """
    with session("play", as_json=as_json, quiet=quiet) as out:
        need_the_extra()
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.generators import GeneratorStore

        home = Home.from_environment()
        folder = GeneratorStore(home).find(generator)
        result = evaluation(results)
        with bound(HOST, port) as listening:
            from icmlora_cli.serving.engine import load_engine
            from icmlora_cli.serving.http.app import make_app
            from icmlora_cli.serving.http.guard import LOCAL_HOSTS
            from icmlora_cli.workflows.base.pull import resolve as resolve_base
            from icmlora_cli.workflows.gen.generate import base_name

            with out.progress() as on_progress:
                base_model = resolve_base(base or base_name(folder), home, offline=offline, on_progress=on_progress)
                engine = load_engine(base_model, home, generator=folder, device=device, on_progress=on_progress)
            page = play_page(engine, home, result)
            url = f"{address(listening)}/play/{page.token}/"

            def started() -> None:
                opened = browser and _show(url, out)
                out.result({"url": url, "base": engine.base_name, "generator": folder.name, "opened": opened})
                if out.quiet:
                    out.line(url)
                out.note(f"the playground of {engine.base_name}: {url} (Ctrl-C ends it)")
                out.flush()

            run_server(make_app(engine, hosts=LOCAL_HOSTS, play=page, api=False), engine, listening, GRACE, started)


def _show(url: str, out: Out) -> bool:
    """Open the page in the user's browser, in a thread, since one in a terminal runs until it is left."""
    import threading
    import webbrowser

    try:
        controller = webbrowser.get()
    except webbrowser.Error:
        out.note("no browser could be opened here; open the address in one of yours")
        return False
    threading.Thread(target=controller.open, args=(url,), name="icmlora-browser", daemon=True).start()
    return True
