"""Admits a request to the queue if there is room, its body has a bounded size, and it arrives in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import anyio
from fastapi import Depends, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from icmlora_cli.errors import StoppedError
from icmlora_cli.serving.engine import Engine, EngineWork
from icmlora_cli.serving.queue import QueuedJob

MAX_BODY = 2 * 2**20  # the most bytes that a request's body may have
BODY_SECONDS = 30  # the time within which a request's body has to arrive


@dataclass(frozen=True)
class AdmittedRequest:
    """A request that has a place in the queue.

    Args:
        job: The place of the request in the queue.
        events: The pieces of text that the worker reports, and at the end a ``StreamedText`` or an error; what an
            ``EngineTask`` reports, and at the end None or an error.
        data: The bytes of the request's body.
    """

    job: QueuedJob[EngineWork]
    events: "asyncio.Queue[object]"
    data: bytes


def get_engine(request: Request) -> Engine:
    """Return the engine of the application that a request came to."""
    engine: Engine = request.app.state.engine
    return engine


async def admitted(request: Request, engine: Annotated[Engine, Depends(get_engine)]) -> AsyncIterator[AdmittedRequest]:
    """Take a place in the queue before the body is read, and give it back once the answer is sent.

    Raises:
        BusyError: If there is no room in the queue.
        HTTPException: If the body is too large, arrives too slowly, or is not sent as JSON.
        StoppedError: If the server is stopping, or the client hangs up.
    """
    _check_head(request)
    loop, events = asyncio.get_running_loop(), asyncio.Queue[object]()

    def report(event: object) -> None:
        with suppress(RuntimeError):  # the loop is closed once the server has stopped
            loop.call_soon_threadsafe(events.put_nowait, event)

    job = engine.queue.reserve(report)
    try:
        yield AdmittedRequest(job, events, await _read_body(request))
    finally:
        engine.queue.drop(job)


def _check_head(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":  # a browser sends other types for a foreign page without asking first
        raise HTTPException(415, "send application/json")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 15 or int(length) > MAX_BODY):
        raise _too_large()


def _too_large() -> HTTPException:
    return HTTPException(413, f"a request has at most {MAX_BODY:,} bytes")


async def _read_body(request: Request) -> bytes:
    data = bytearray()
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BODY:
                    raise _too_large()
    except ClientDisconnect as error:
        raise StoppedError("the client is gone") from error
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive within {BODY_SECONDS} seconds") from error
    return bytes(data)
