"""Sends what the worker reports of a task as lines of JSON, each as soon as it is there."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from icmlora_cli.errors import IcmloraError
from icmlora_cli.serving.http.answer import noticing_hang_up
from icmlora_cli.serving.http.reply import status_of

log = logging.getLogger("uvicorn.error")


async def respond_events(request: Request, events: "asyncio.Queue[object]") -> Response:
    """Return the response to a request whose task is in the queue, once the first event of it is there.

    Args:
        request: The request, which is watched for its client hanging up.
        events: The events that the worker reports, and at the end None or an error.

    Raises:
        IcmloraError: If the task fails before its first event.
    """
    async with noticing_hang_up(request, events):
        event = await events.get()
    if isinstance(event, Exception):
        raise event
    return StreamingResponse(_lines(event, events), media_type="application/x-ndjson")


async def _lines(event: object, events: "asyncio.Queue[object]") -> AsyncIterator[str]:
    """Yield the lines of a response; an error becomes the last one, since the status has been sent already."""
    try:
        while event is not None:
            if isinstance(event, Exception):
                raise event
            yield json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
            event = await events.get()
    except Exception as error:
        if not isinstance(error, IcmloraError):
            log.exception("a request failed")
        yield json.dumps({"event": "error"} | dict(status_of(error)[1]), ensure_ascii=False) + "\n"
