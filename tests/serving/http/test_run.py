"""uvicorn as it is run: clients that are slow or many are let go, and others are answered meanwhile."""

import asyncio
import errno
import json
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from icmlora_cli.serving.engine import Engine

pytest.importorskip("fastapi", reason="the extra icmlora[serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra icmlora[serve] is not installed")
pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")
from icmlora_cli.serving.http import admission, run
from icmlora_cli.serving.http.app import make_app

SECONDS = 60.0
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


OPENED: list[asyncio.StreamWriter] = []


def served(engine: "Engine", talk: Callable[[int], Coroutine[None, None, None]]) -> None:
    """Serve an engine on a free port, talk to it, and stop it."""

    async def main(listening: socket.socket) -> None:
        started = asyncio.Event()
        config = run.make_config(make_app(engine), engine.settings.queue, grace=1)
        server = run.Server(config, started.set, engine.queue.stop, grace=1)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await started.wait()
        await talk(listening.getsockname()[1])
        while OPENED:
            writer = OPENED.pop()
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)  # the server may have cut it
        server.should_exit = True
        await serving

    with socket.create_server(("127.0.0.1", 0)) as listening:
        asyncio.run(main(listening))


async def sent(port: int, *pieces: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send something."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    OPENED.append(writer)
    with suppress(ConnectionError):  # it may be cut at once
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    return reader, writer


async def answered(port: int) -> bytes:
    """Return the answer to a whole request; nothing if the connection is cut."""
    reader, _ = await sent(port, HEALTH, b"Connection: close\r\n\r\n")
    with suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), SECONDS)
    return b""


def test_headers_that_do_not_come_are_not_waited_for(tiny_engine: "Engine", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HEADER_SECONDS", 0.3)

    async def talk(port: int) -> None:
        silent, _ = await sent(port)
        partial, _ = await sent(port, HEALTH)
        second, writer = await sent(port, HEALTH, b"\r\n")
        assert (await second.readline()).split()[1] == b"200"
        writer.write(HEALTH)  # and of its second request no more
        for reader in (silent, partial, second):
            await asyncio.wait_for(reader.read(), SECONDS)  # until it is closed
        assert b"200 OK" in await answered(port)

    served(tiny_engine, talk)


def test_a_body_that_does_not_come_gives_its_place_back(tiny_engine: "Engine", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "BODY_SECONDS", 0.3)

    async def talk(port: int) -> None:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        reader, writer = await sent(port, head, b"Content-Length: 100\r\n\r\n{")
        assert (await asyncio.wait_for(reader.readline(), SECONDS)).split()[1] == b"408"
        writer.close()
        answer = await answered(port)
        assert json.loads(answer.rpartition(b"\r\n")[2]) == {"status": "ok", "running": False, "waiting": 0}

    served(tiny_engine, talk)


def test_connections_are_bounded(tiny_engine: "Engine", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SPARE_CONNECTIONS", -tiny_engine.settings.queue)
    monkeypatch.setattr(run, "BACKLOG", 4)

    async def talk(port: int) -> None:
        limit = run.max_connections(tiny_engine.settings.queue)
        held = [await sent(port, HEALTH) for _ in range(limit)]
        assert b"503 Service Unavailable" in await answered(port)
        held += [await sent(port, HEALTH) for _ in range(8)]
        cut = [asyncio.create_task(reader.read()) for reader, _ in held[-2:]]
        await asyncio.wait(cut, timeout=SECONDS)
        assert all(item.done() for item in cut)
        await asyncio.gather(*cut, return_exceptions=True)
        for _, writer in held:
            writer.close()
        while b"200 OK" not in await answered(port):
            await asyncio.sleep(0.01)

    served(tiny_engine, talk)


def test_files_that_run_out_are_one_line_and_other_faults_are_logged_whole(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop, handler = asyncio.get_running_loop(), run.LoopErrors()
        for number in (errno.EMFILE, errno.EMFILE, errno.ENFILE):
            handler(loop, {"message": "accept", "exception": OSError(number, "Too many open files")})
        handler(loop, {"message": "something else", "exception": OSError(errno.EIO, "x")})

    asyncio.run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2 and "Too many open files" in messages[0] and "something else" in messages[1]
