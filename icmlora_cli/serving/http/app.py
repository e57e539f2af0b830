"""The HTTP side of ``icmlora serve``: OpenAI's endpoints on Starlette, for an engine."""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from icmlora_cli.errors import BusyError, IcmloraError, NotFoundError, RequestError, StoppedError
from icmlora_cli.lm.stream import Sampling, StreamedText
from icmlora_cli.serving.engine import Engine, Question
from icmlora_cli.serving.http import schema
from icmlora_cli.serving.http.reply import ChatReply, CompletionReply, Reply, error_body, status_of

MAX_BODY = 8 * 2**20  # bytes of a request
CHARSET = "utf-8"
log = logging.getLogger("uvicorn.error")


def make_app(engine: Engine, keys: Sequence[str] = ()) -> Starlette:
    """Return the application.

    Args:
        engine: what answers.
        keys: one of them has to be sent as ``Authorization: Bearer KEY``; with none, nothing has to be.
    """
    server = _Server(engine)
    return Starlette(
        routes=[
            Route("/health", server.health),
            Route("/v1/models", server.models),
            Route("/v1/models/{name:path}", server.model),
            Route("/v1/completions", server.completions, methods=["POST"]),
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
        ],
        middleware=[Middleware(_Keys, keys=tuple(keys))] if keys else [],
        exception_handlers={IcmloraError: _refused, HTTPException: _no_route, Exception: _failed},
    )


class _Keys:
    """Lets nobody in without a key, but for ``/health``."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self.app, self.keys = app, [f"Bearer {key}".encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        known = [hmac.compare_digest(given, key) for key in self.keys]
        if scope["type"] == "http" and scope["path"] != "/health" and not any(known):
            body = error_body("there is no such API key", "invalid_request_error", code="invalid_api_key")
            await JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class _Server:
    """The endpoints.

    Args:
        engine: what answers.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def health(self, request: Request) -> Response:
        line = self.engine.line
        return JSONResponse({"status": "ok", "running": line.running, "waiting": line.waiting})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": await self._cards()})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = [card for card in await self._cards() if card["id"] == name]
        if not found:
            raise NotFoundError(f"the model {name[:120]!r} does not exist")
        return JSONResponse(found[0])

    async def _cards(self) -> list[dict[str, object]]:
        models = await asyncio.to_thread(self.engine.models)
        own = {"object": "model", "created": self.engine.started, "owned_by": "icmlora"}
        return [{"id": item.name} | own | {"kind": item.kind} for item in models]

    async def completions(self, request: Request) -> Response:
        asked = schema.completion(await _body(request))
        prompt = asked.given

        def ids() -> Sequence[int]:
            return self.engine.text_ids(prompt) if isinstance(prompt, str) else prompt

        usual = schema.COMPLETION_TOKENS
        most = asked.max_tokens or min(usual, self.engine.settings.max_tokens or usual)
        question = await asyncio.to_thread(self._question, asked, ids, most, "prompt")
        return await self._answer(request, asked, question, CompletionReply(asked.model))

    async def chat(self, request: Request) -> Response:
        asked = schema.chat(await _body(request))
        messages = [{"role": item.role, "content": item.text} for item in asked.messages]
        most = asked.max_completion_tokens or asked.max_tokens
        question = await asyncio.to_thread(
            self._question, asked, lambda: self.engine.chat_ids(messages), most, "messages"
        )
        return await self._answer(request, asked, question, ChatReply(asked.model))

    def _question(
        self, asked: schema.GenerationBody, ids: Callable[[], Sequence[int]], most: int | None, param: str
    ) -> Question:
        adapter = self.engine.find(asked.model)  # first: a wrong name is told before a wrong prompt
        prompt_ids = ids()
        room = self.engine.room(prompt_ids, most, param)
        temperature = 1.0 if asked.temperature is None else asked.temperature
        top_p = 1.0 if asked.top_p is None else asked.top_p
        return Question(tuple(prompt_ids), Sampling(room, temperature, top_p, asked.seed, asked.stops), adapter)

    async def _answer(
        self, request: Request, asked: schema.GenerationBody, question: Question, reply: Reply
    ) -> Response:
        loop, events = asyncio.get_running_loop(), asyncio.Queue[object]()

        def tell(event: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: the server has gone down meanwhile
                loop.call_soon_threadsafe(events.put_nowait, event)

        job = self.engine.ask(question, tell)
        count = len(question.prompt_ids)
        try:
            async with _hang_up(request, events):
                first = await _next(events)
                if not asked.stream:
                    while not isinstance(first, StreamedText):
                        first = await _next(events)
                    return JSONResponse(reply.whole(first, count))
        except BaseException:
            self.engine.line.drop(job)
            raise
        lines = _lines(first, events, reply, count, asked.usage)
        return _EventStream(lines, lambda: self.engine.line.drop(job))


@asynccontextmanager
async def _hang_up(request: Request, events: "asyncio.Queue[object]") -> AsyncIterator[None]:
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


async def _next(events: "asyncio.Queue[object]") -> str | StreamedText:
    """Return what comes next of an answer; raise it if it is an error."""
    event = await events.get()
    if isinstance(event, Exception):
        raise event
    assert isinstance(event, str | StreamedText)
    return event


async def _lines(
    first: str | StreamedText, events: "asyncio.Queue[object]", reply: Reply, count: int, usage: bool
) -> AsyncIterator[str]:
    """Yield the server-sent events of an answer."""

    def line(value: object) -> str:
        return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"

    for chunk in reply.opening(usage=usage):
        yield line(chunk)
    event = first
    try:
        while not isinstance(event, StreamedText):
            yield line(reply.piece(event, usage=usage))
            event = await _next(events)
    except Exception as error:  # the status is sent already: the error is an event
        if not isinstance(error, IcmloraError):
            log.exception("a request failed")
        yield line(status_of(error)[1])
        return
    yield line(reply.ending(event, usage=usage))
    if usage:
        yield line(reply.counts(event, count))
    yield "data: [DONE]\n\n"


class _EventStream(StreamingResponse):  # type: ignore[misc]  # starlette is not always there to be read
    """Server-sent events, after which something is done, however they end."""

    def __init__(self, lines: AsyncIterator[str], after: Callable[[], None]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._after()


async def _body(request: Request) -> Any:
    """Return the JSON of a request.

    Raises:
        RequestError: if it is none.
        HTTPException: if it is too large, or not said to be JSON.
        Stopped: if the client hangs up in the middle of it.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a page in a browser may send unasked is not
        raise HTTPException(415, "send application/json")
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY:
                raise HTTPException(413, f"a request has at most {MAX_BODY:,} bytes")
    except ClientDisconnect as error:
        raise StoppedError("the client is gone") from error
    try:
        return json.loads(data.decode(CHARSET))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error


async def _refused(request: Request, error: Exception) -> Response:
    status, body = status_of(error)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, BusyError) else None
    return JSONResponse(body, status, headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(error_body(error.detail, "invalid_request_error"), error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(status_of(error)[1], 500)  # the server's log has the traceback
