"""Makes the response to one request of what the worker reports: one body, or server-sent events."""

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
    """Return the response to a request that is in the queue; a stream is returned once its first piece is there.

    Args:
        request: The request, which is watched for its client hanging up.
        events: The pieces of text that the worker reports, and at the end a ``StreamedText`` or an error.
        reply: Makes the bodies of the response.
        stream: Whether to answer in server-sent events.
        include_usage: Whether a stream ends with the counts of tokens.

    Raises:
        IcmloraError: If the answer fails before any part of it is sent.
    """
    async with noticing_hang_up(request, events):
        event = await _next_event(events)
        if not stream:
            while not isinstance(event, StreamedText):
                event = await _next_event(events)
            return JSONResponse(reply.whole(event))
    lines = _lines(event, events, reply, include_usage)
    return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@asynccontextmanager
async def noticing_hang_up(request: Request, events: "asyncio.Queue[object]") -> AsyncIterator[None]:
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
    """Return the next piece of an answer or its end; an error is raised."""
    event = await events.get()
    if isinstance(event, Exception):
        raise event
    assert isinstance(event, str | StreamedText)
    return event


async def _lines(
    event: str | StreamedText, events: "asyncio.Queue[object]", reply: Reply, include_usage: bool
) -> AsyncIterator[str]:
    """Yield the server-sent events of an answer.

    Args:
        event: The first piece of the answer, or its end, which has been taken from the events already.
        events: The pieces that the worker still reports, and the end or an error.
        reply: Makes the chunks.
        include_usage: Whether the stream ends with the counts of tokens.
    """

    def line(value: object) -> str:
        return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"

    for chunk in reply.opening(usage=include_usage):
        yield line(chunk)
    try:
        while not isinstance(event, StreamedText):
            yield line(reply.piece(event, usage=include_usage))
            event = await _next_event(events)
    except Exception as error:  # the status has been sent already, so that the error becomes an event
        if not isinstance(error, IcmloraError):
            log.exception("a request failed")
        yield line(status_of(error)[1])
        return
    yield line(reply.ending(event, usage=include_usage))
    if include_usage:
        yield line(reply.counts(event))
    yield "data: [DONE]\n\n"
