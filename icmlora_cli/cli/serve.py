"""``icmlora serve``: serve a base and adapters of it with OpenAI's API."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import DEFAULT_BASE, Device, Generator, Json, Offline, OtherBase, Quiet
from icmlora_cli.cli.out import session

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fastapi import FastAPI

    from icmlora_cli.disk.home import Home
    from icmlora_cli.report.result import Result
    from icmlora_cli.serving.engine import Engine
    from icmlora_cli.serving.http.play.routes import PlayPage

    Started = Callable[[], None]

NETWORK = "Network"
LIMITS = "Limits"
LOCAL = ("127.0.0.1", "localhost", "::1")
Port = Annotated[
    int,
    typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.", rich_help_panel=NETWORK),
]
Results = Annotated[
    Path | None,
    typer.Option("--results", help="Folder of an evaluation, whose comparison and maps the playground shows."),
]


def serve(
    generator: Generator = None,
    base: OtherBase = None,
    adapter: Annotated[
        list[str] | None, typer.Option("--adapter", help="NAME=FOLDER: serve this PEFT folder too; repeatable.")
    ] = None,
    any_base_name: Annotated[
        bool,
        typer.Option("--any-base-name", help="Take adapters that say they are for another base; shapes must fit."),
    ] = False,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.", rich_help_panel=NETWORK)] = "127.0.0.1",
    port: Port = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            help="File of keys, one a line; clients have to send one of them.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", help="Another name by which requests may call this server, without its port; repeatable."
        ),
    ] = None,
    queue: Annotated[
        int,
        typer.Option(
            "--queue",
            min=0,
            help="Requests that may be read or wait; more are told to come again.",
            rich_help_panel=LIMITS,
        ),
    ] = 32,
    max_adapters: Annotated[
        int,
        typer.Option(
            "--max-adapters",
            min=1,
            help="Harvested and generated adapters kept in memory.",
            rich_help_panel=LIMITS,
        ),
    ] = 16,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", min=1, help="Tokens of one answer; as many as fit, by default.", rich_help_panel=LIMITS
        ),
    ] = None,
    ui: Annotated[
        bool, typer.Option("--ui", help="Serve the playground's page too, to this machine alone; see icmlora play.")
    ] = False,
    results: Results = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            min=0,
            help="Seconds that answers under way have once the server is to stop.",
            rich_help_panel=LIMITS,
        ),
    ] = 10.0,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve the base, harvested tasks and adapters made on request, with OpenAI's API.

    A request's model is the base's name, a registered task's name, a NAME of --adapter or, with -g, 'icm:TASK TEXT'.
    One base is in memory, and requests are answered one after another. It needs the extra icmlora[serve].
    docs/serving.md has examples, and says how to serve with vLLM instead.
    """
    with session("serve", as_json=as_json, quiet=quiet) as out:
        need_the_extra()
        folders = _folders(adapter or [])
        keys = [] if api_key_file is None else _keys(api_key_file)
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.generators import GeneratorStore

        home = Home.from_environment()
        folder = None if generator is None else GeneratorStore(home).find(generator)
        _check_ui(ui, host, folder, results)
        result = evaluation(results)
        with bound(host, port) as listening:
            from icmlora_cli.serving.engine import EngineSettings, load_engine
            from icmlora_cli.workflows.base.pull import resolve as resolve_base
            from icmlora_cli.workflows.gen.generate import base_name

            with out.progress() as on_progress:
                name = base or (base_name(folder) if folder else None) or DEFAULT_BASE
                base_model = resolve_base(name, home, offline=offline, on_progress=on_progress)
                engine = load_engine(
                    base_model, home, generator=folder, adapters=folders, any_base_name=any_base_name,
                    settings=EngineSettings(queue, max_adapters, max_tokens),
                    device=device, on_progress=on_progress,
                )  # fmt: skip
            if host not in LOCAL and not keys:
                out.note(f"warning: whoever reaches {host} may use this server; --api-key-file asks for a key")
            from icmlora_cli.serving.http.app import make_app

            hosts = _known_hosts(host, keys, allow_host or [])
            page = play_page(engine, home, result) if ui else None
            url = f"{address(listening)}/v1"
            play_url = None if page is None else f"{address(listening)}/play/{page.token}/"

            def started() -> None:
                models = [vars(model) for model in engine.models()]
                facts = {"url": url, "base": engine.base_name, "models": models, "context": engine.context}
                out.result(facts | {"playground": play_url})
                if out.quiet:
                    out.line(url)
                out.note(f"serving {engine.base_name} on {url} (Ctrl-C ends it)")
                if play_url is not None:
                    out.note(f"the playground: {play_url}")
                out.flush()

            run_server(make_app(engine, keys, hosts, page), engine, listening, grace, started)


def need_the_extra() -> None:
    """Check that the packages of the extra ``serve`` are installed.

    Raises:
        UsageError: If one is not.
    """
    from importlib.util import find_spec

    from icmlora_cli.errors import UsageError

    if not (find_spec("fastapi") and find_spec("uvicorn") and find_spec("cachetools")):
        raise UsageError("the server needs fastapi, uvicorn and cachetools", hint="pip install 'icmlora[serve]'")


def _check_ui(ui: bool, host: str, generator: Path | None, results: Path | None) -> None:
    from icmlora_cli.errors import UsageError

    if not ui:
        if results is not None:
            raise UsageError("--results is shown by the playground alone", hint="add --ui, or leave out --results")
        return
    if generator is None:
        raise UsageError("--ui needs a generator", hint="--ui -g default")
    if host not in LOCAL:
        raise UsageError(f"--ui is for this machine alone, and {host} is open to others", hint="leave out --host")


def evaluation(results: Path | None) -> "Result | None":
    """Return the evaluation in the folder of ``--results``; None for none.

    Raises:
        CorruptFileError: If its result is broken.
        NotFoundError: If there is no result.
    """
    from icmlora_cli.report.result import read_result

    return None if results is None else read_result(results)


def play_page(engine: "Engine", home: "Home", result: "Result | None") -> "PlayPage":
    """Return the playground of an engine, with a new token.

    Args:
        engine: The engine, which has a generator.
        home: The registry.
        result: An evaluation to show; None for none.
    """
    import secrets

    from icmlora_cli.serving.http.play.routes import PlayPage
    from icmlora_cli.serving.play.playground import Playground

    return PlayPage(Playground(engine, home, result), secrets.token_urlsafe(18))


def _folders(given: list[str]) -> dict[str, Path]:
    """Return the folders of ``--adapter`` by name.

    Raises:
        UsageError: If a value is not ``NAME=FOLDER``, a name is not allowed, or a name is given twice.
    """
    from icmlora_cli.disk.home import checked_name
    from icmlora_cli.errors import UsageError

    folders: dict[str, Path] = {}
    for item in given:
        name, sign, path = item.partition("=")
        if not sign or not path:
            raise UsageError(f"--adapter {item} is not NAME=FOLDER", hint="--adapter pirate=./my-lora")
        if checked_name(name, "model") in folders:
            raise UsageError(f"--adapter {name} is given twice", hint="give each a name of its own")
        folders[name] = Path(path).expanduser()
    return folders


def _keys(path: Path) -> list[str]:
    from icmlora_cli.errors import NotFoundError, UsageError

    if not path.is_file():
        raise NotFoundError(f"there is no file {path.name}", where=str(path.absolute()), hint="--api-key-file FILE")
    try:
        keys = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path.name} is not UTF-8 text: {error.reason} at byte {error.start}",
            where=str(path.absolute()),
            hint="save it as UTF-8, a key a line",
        ) from error
    if not keys or not all(key.isascii() for key in keys):
        raise UsageError(
            f"{path.name} holds no key" if not keys else f"a key in {path.name} is not ASCII",
            where=str(path.absolute()),
            hint="write a long random text into it, a key a line",
        )
    return keys


def _known_hosts(host: str, keys: list[str], allowed: list[str]) -> list[str]:
    """Return the host names to which requests may be sent; the list is empty if any name will do.

    Any name will do if the server is open to other machines or asks for keys, unless ``--allow-host`` names some.
    """
    from icmlora_cli.serving.http.guard import LOCAL_HOSTS

    if (host not in LOCAL or keys) and not allowed:
        return []
    return [*LOCAL_HOSTS, host, *(name.strip("[]") for name in allowed)]


def bound(host: str, port: int) -> "socket.socket":
    """Return a listening socket; it is opened first, so that an address in use is reported before a base is loaded.

    Raises:
        UsageError: If the address cannot be listened on.
    """
    import socket

    from icmlora_cli.errors import UsageError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", hint="--port with a free one, or 0 for any"
        ) from error


def address(listening: "socket.socket") -> str:
    """Return the address of a listening socket, without a path."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run_server(app: "FastAPI", engine: "Engine", listening: "socket.socket", grace: float, started: "Started") -> None:
    """Serve an application until Ctrl-C or SIGTERM.

    Args:
        app: The application.
        engine: The engine behind it, which is closed at the end.
        listening: The listening socket.
        grace: The seconds that answers under way have to be finished.
        started: Called once requests are taken.
    """
    from icmlora_cli.serving.http.run import Server, make_config

    try:
        config = make_config(app, engine.settings.queue, grace)
        Server(config, started, engine.queue.stop, grace).run(sockets=[listening])
    finally:
        engine.close()
