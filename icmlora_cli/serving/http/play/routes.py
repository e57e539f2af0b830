"""The playground's routes. They lie below ``/play/TOKEN``, and ``RequireToken`` guards them."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from icmlora_cli.serving.engine import Engine, EngineTask
from icmlora_cli.serving.http.admission import AdmittedRequest, admitted, get_engine
from icmlora_cli.serving.http.play.events import respond_events
from icmlora_cli.serving.http.play.schema import AskBody, MakeBody
from icmlora_cli.serving.http.schema import parse
from icmlora_cli.serving.play.made import FORMATS, DownloadFile, FileKind
from icmlora_cli.serving.play.playground import Playground

PAGE = "index.html"
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = "frame-ancestors 'self'"  # the report's own policy, in its head, allows its scripts by their hashes
SAFETY: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address has the token
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class PlayPage:
    """A playground, and the token without which nobody may use it.

    Args:
        playground: The playground.
        token: The token in its address, which no other page can guess.
    """

    playground: Playground
    token: str


def get_playground(request: Request) -> Playground:
    """Return the playground of the application that a request came to."""
    playground: Playground = request.app.state.playground
    return playground


EngineDep = Annotated[Engine, Depends(get_engine)]
PlayDep = Annotated[Playground, Depends(get_playground)]
AdmittedDep = Annotated[AdmittedRequest, Depends(admitted)]


def _response(content: str | bytes, media_type: str, policy: str = POLICY, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content, media_type=media_type, headers=dict(SAFETY) | {"Content-Security-Policy": policy} | named)


def _download(file: DownloadFile) -> Response:
    return _response(file.data, "application/octet-stream", Content_Disposition=f'attachment; filename="{file.name}"')


def with_slash(token: str) -> Response:
    """Send a browser to the page itself, whose addresses are relative to it."""
    return RedirectResponse(f"/play/{token}/", 307)


def page() -> Response:
    """Answer with the page."""
    return page_file(PAGE)


def page_file(name: str) -> Response:
    """Answer with a file of the page: one of those that lie beside it."""
    folder = files("icmlora_cli.serving.http.play") / "page"
    entry = next((item for item in folder.iterdir() if item.name == name and item.is_file()), None)
    media_type = MEDIA_TYPES.get(name.rpartition(".")[2])
    if entry is None or media_type is None:
        raise HTTPException(404, "the page has no such file")
    return _response(entry.read_bytes(), media_type)


def state(play: PlayDep) -> Response:
    """Answer with what the page shows at first."""
    return JSONResponse(play.state(), headers=SAFETY)


def registry(play: PlayDep) -> Response:
    """Answer with the tasks that were learned, and the tasks and adapters of the registry."""
    return JSONResponse(play.catalogue.listing(), headers=SAFETY)


def sample(name: str, play: PlayDep) -> Response:
    """Answer with an example of a task."""
    return JSONResponse(play.catalogue.sample(name).as_dict(), headers=SAFETY)


def made_file(name: str, kind: str, play: PlayDep) -> Response:
    """Answer with an adapter that was made on the page, as a file."""
    return _download(play.made.get(name).file(_known(kind)))


def task_file(name: str, kind: str, play: PlayDep) -> Response:
    """Answer with a registered task's adapter, as a file."""
    return _download(play.catalogue.file(name, _known(kind)))


def _known(kind: str) -> FileKind:
    found = next((known for known in FORMATS if known == kind), None)
    if found is None:
        raise HTTPException(404, f"an adapter is a file of {' or '.join(FORMATS)}")
    return found


def report(play: PlayDep) -> Response:
    """Answer with the report of the evaluation: the comparison, the maps of tasks and adapters, and the rest."""
    return _response(play.report, "text/html", REPORT_POLICY)


# These two functions are no coroutines, so that FastAPI runs them in threads and tokenising blocks no other request.
def prepare_make(request: AdmittedDep, play: PlayDep) -> EngineTask:
    """Check the request of ``make``."""
    return play.making(parse(MakeBody, request.data).as_request())


def prepare_ask(request: AdmittedDep, play: PlayDep) -> EngineTask:
    """Check and tokenise the request of ``ask``."""
    return play.asking(parse(AskBody, request.data).as_question())


async def make(
    request: Request, admission: AdmittedDep, task: Annotated[EngineTask, Depends(prepare_make)], engine: EngineDep
) -> Response:
    """Make an adapter, and answer with events while it is made."""
    engine.queue.submit(admission.job, task)
    return await respond_events(request, admission.events)


async def ask(
    request: Request, admission: AdmittedDep, task: Annotated[EngineTask, Depends(prepare_ask)], engine: EngineDep
) -> Response:
    """Answer an input in up to three ways, piece by piece."""
    engine.queue.submit(admission.job, task)
    return await respond_events(request, admission.events)


def play_router() -> APIRouter:
    """Return the routes, which ``make_app`` puts below ``/play/TOKEN``."""
    router = APIRouter()
    for path, answer in {
        "": with_slash,
        "/": page,
        "/page/{name}": page_file,
        "/report": report,
        "/api/state": state,
        "/api/registry": registry,
        "/api/sample/{name}": sample,
        "/api/made/{name}.{kind}": made_file,
        "/api/task/{name}.{kind}": task_file,
    }.items():
        router.add_api_route(path, answer, methods=["GET"])
    router.add_api_route("/api/make", make, methods=["POST"])
    router.add_api_route("/api/ask", ask, methods=["POST"])
    return router
