"""From what the worker reports of one request to its response: whole, or as server-sent events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from icmlora_cli.errors import IcmloraError, StoppedError
from icmlora_cli.lm.stream import StreamedText
from icmlora_cli.serving.http.reply import Reply, status_of

log = logging.getLogger("uvicorn.error")


async def respond(
    request: Request, events: "asyncio.Queue[object]", reply: Reply, *, stream: bool, include_usage: bool
) -> Response:
    """Return the response to a request that is in the queue; a stream's begins with its first piece.

    Args:
        request: To notice that its client hangs up.
        events: What the worker reports.
        reply: The bodies.
        stream: Answer in server-sent events.
        include_usage: End these with the counts of tokens.

    Raises:
        IcmloraError: If the answer fails before anything of it is sent.
    """
    async with _noticing_hang_up(request, events):
        event = await _next_event(events)
        if not stream:
            while not isinstance(event, StreamedText):
                event = await _next_event(events)
            return JSONResponse(reply.whole(event))
    lines = _lines(event, events, reply, include_usage)
    return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@asynccontextmanager
async def _noticing_hang_up(request: Request, events: "asyncio.Queue[object]") -> AsyncIterator[None]:
    """Put ``StoppedError`` among the events when the client hangs up."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        events.put_nowait(StoppedError("the client is gone"))

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()


async def _next_event(events: "asyncio.Queue[object]") -> str | StreamedText:
    """Return what comes next of an answer; raise it if it is an error."""
    event = await events.get()
    if isinstance(event, Exception):
        raise event
    assert isinstance(event, str | StreamedText)
    return event


async def _lines(
    event: str | StreamedText, events: "asyncio.Queue[object]", reply: Reply, include_usage: bool
) -> AsyncIterator[str]:
    """Yield the server-sent events of an answer, of which the first event is there."""

    def line(value: object) -> str:
        return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"

    for chunk in reply.opening(usage=include_usage):
        yield line(chunk)
    try:
        while not isinstance(event, StreamedText):
            yield line(reply.piece(event, usage=include_usage))
            event = await _next_event(events)
    except Exception as error:  # the status is sent already: the error is an event
        if not isinstance(error, IcmloraError):
            log.exception("a request failed")
        yield line(status_of(error)[1])
        return
    yield line(reply.ending(event, usage=include_usage))
    if include_usage:
        yield line(reply.counts(event))
    yield "data: [DONE]\n\n"
