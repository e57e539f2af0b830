"""The FastAPI application: OpenAI's endpoints, the playground, or both, in front of an engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from icmlora_cli.errors import BusyError, IcmloraError, NotFoundError
from icmlora_cli.lm.stream import Sampling
from icmlora_cli.serving.engine import Engine, GenerationRequest
from icmlora_cli.serving.http.admission import AdmittedRequest, admitted, get_engine
from icmlora_cli.serving.http.answer import respond
from icmlora_cli.serving.http.guard import PLAY, RequireHost, RequireKey, RequireToken
from icmlora_cli.serving.http.play.routes import PlayPage, play_router
from icmlora_cli.serving.http.reply import ChatReply, CompletionReply, Reply, error_body, status_of
from icmlora_cli.serving.http.schema import COMPLETION_TOKENS, ChatBody, CompletionBody, GenerationBody, parse

EngineDep = Annotated[Engine, Depends(get_engine)]
AdmittedDep = Annotated[AdmittedRequest, Depends(admitted)]


def make_app(
    engine: Engine,
    keys: Sequence[str] = (),
    hosts: Sequence[str] = (),
    play: PlayPage | None = None,
    *,
    api: bool = True,
) -> FastAPI:
    """Return the application that serves an engine.

    Args:
        engine: The engine that answers.
        keys: The API keys, one of which has to be sent as ``Authorization: Bearer KEY``; if there are none, no key is
            needed.
        hosts: The host names to which requests may be sent; if there are none, any host name will do.
        play: The playground, with its token; None for none.
        api: Whether OpenAI's endpoints are served.
    """
    app = FastAPI(
        openapi_url=None,
        exception_handlers={IcmloraError: _refused, HTTPException: _not_taken, Exception: _failed},
    )
    app.state.engine = engine
    app.add_api_route("/health", health)
    if api:
        app.add_api_route("/v1/models", models)
        app.add_api_route("/v1/models/{name:path}", model)
        app.add_api_route("/v1/completions", generate_completion, methods=["POST"])
        app.add_api_route("/v1/chat/completions", generate_chat, methods=["POST"])
    if play is not None:
        app.state.playground = play.playground
        app.include_router(play_router(), prefix=PLAY.rstrip("/") + "/{token}")
        app.add_middleware(RequireToken, token=play.token)
    if keys:
        app.add_middleware(RequireKey, keys=tuple(keys))
    if hosts:
        app.add_middleware(RequireHost, hosts=tuple(hosts))
    return app


async def health(engine: EngineDep) -> Response:
    """Answer ``GET /health``."""
    queue = engine.queue
    return JSONResponse({"status": "ok", "running": queue.running, "waiting": queue.waiting})


def models(engine: EngineDep) -> Response:
    """Answer ``GET /v1/models``."""
    return JSONResponse({"object": "list", "data": _model_cards(engine)})


def model(name: str, engine: EngineDep) -> Response:
    """Answer ``GET /v1/models/NAME``."""
    card = next((card for card in _model_cards(engine) if card["id"] == name), None)
    if card is None:
        raise NotFoundError(f"the model {name[:120]!r} does not exist")
    return JSONResponse(card)


def _model_cards(engine: Engine) -> list[dict[str, object]]:
    common = {"object": "model", "created": engine.started, "owned_by": "icmlora"}
    return [{"id": item.name} | common | {"kind": item.kind} for item in engine.models()]


@dataclass(frozen=True)
class PreparedRequest:
    """A request that has been read and checked, and can be put into the queue.

    Args:
        body: The parsed body of the request.
        generation: The request in the engine's form.
        reply: Makes the bodies of the response.
    """

    body: GenerationBody
    generation: GenerationRequest
    reply: Reply


# These two functions are no coroutines, so that FastAPI runs them in threads and tokenising blocks no other request.
def prepare_completion(request: AdmittedDep, engine: EngineDep) -> PreparedRequest:
    """Check and tokenise the request of ``POST /v1/completions``."""
    body = parse(CompletionBody, request.data)
    adapter = engine.find_adapter(body.model)  # comes first, so that a wrong name is reported before a wrong prompt
    prompt = body.text_or_ids
    prompt_ids = engine.text_ids(prompt) if isinstance(prompt, str) else prompt
    tokens = engine.answer_tokens(prompt_ids, "prompt", wanted=body.wanted_tokens, usual=COMPLETION_TOKENS)
    generation = GenerationRequest(tuple(prompt_ids), _sampling(body, tokens, engine), adapter)
    return PreparedRequest(body, generation, CompletionReply(body.model, len(prompt_ids)))


def prepare_chat(request: AdmittedDep, engine: EngineDep) -> PreparedRequest:
    """Check and tokenise the request of ``POST /v1/chat/completions``."""
    body = parse(ChatBody, request.data)
    adapter = engine.find_adapter(body.model)
    prompt_ids = engine.chat_ids([message.as_template_message() for message in body.messages])
    tokens = engine.answer_tokens(prompt_ids, "messages", wanted=body.wanted_tokens)
    generation = GenerationRequest(tuple(prompt_ids), _sampling(body, tokens, engine), adapter)
    return PreparedRequest(body, generation, ChatReply(body.model, len(prompt_ids)))


def _sampling(body: GenerationBody, tokens: int, engine: Engine) -> Sampling:
    engine.check_stop(body.stop_texts)
    temperature = 1.0 if body.temperature is None else body.temperature
    top_p = 1.0 if body.top_p is None else body.top_p
    return Sampling(tokens, temperature, top_p, body.seed, body.stop_texts)


async def generate_completion(
    request: Request,
    admission: AdmittedDep,
    prepared: Annotated[PreparedRequest, Depends(prepare_completion)],
    engine: EngineDep,
) -> Response:
    """Answer ``POST /v1/completions``."""
    return await _generate(request, admission, prepared, engine)


async def generate_chat(
    request: Request,
    admission: AdmittedDep,
    prepared: Annotated[PreparedRequest, Depends(prepare_chat)],
    engine: EngineDep,
) -> Response:
    """Answer ``POST /v1/chat/completions``."""
    return await _generate(request, admission, prepared, engine)


async def _generate(
    request: Request, admission: AdmittedRequest, prepared: PreparedRequest, engine: Engine
) -> Response:
    engine.queue.submit(admission.job, prepared.generation)
    body = prepared.body
    return await respond(
        request, admission.events, prepared.reply, stream=bool(body.stream), include_usage=body.include_usage
    )


async def _refused(request: Request, error: Exception) -> Response:
    status, body = status_of(error)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, BusyError) else None
    return JSONResponse(body, status, headers)


async def _not_taken(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(error_body(error.detail, "invalid_request_error"), error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(status_of(error)[1], 500)  # the server's log has the traceback
