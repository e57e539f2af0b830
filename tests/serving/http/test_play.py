"""The playground's routes: who may ask, what is answered, and what is said of wrong input."""

import asyncio
import io
import json
import re
import zipfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2 as httpx
import pytest

if TYPE_CHECKING:
    from icmlora_cli.serving.play.playground import Playground
    from tests.cli.conftest import Registry

pytest.importorskip("fastapi", reason="the extra icmlora[serve] is not installed")
pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")
from icmlora_cli.errors import StoppedError
from icmlora_cli.lm.stream import Sampling
from icmlora_cli.serving.engine import GenerationRequest
from icmlora_cli.serving.http.admission import MAX_BODY
from icmlora_cli.serving.http.app import make_app
from icmlora_cli.serving.http.guard import LOCAL_HOSTS
from icmlora_cli.serving.http.play.routes import PlayPage
from icmlora_cli.serving.play.playground import MakeRequest

TOKEN = "a-token-of-tests"
HOST = "127.0.0.1:8765"
OWN = f"http://{HOST}"
CAT = "Always answer with cat."
EXAMPLES = "\n".join(f"word {index} => cat" for index in (50, 51, 52))
Client = httpx.AsyncClient


def visit(playground: "Playground", talk: Callable[[Client], Coroutine[None, None, Any]], **options: Any) -> Any:
    """Let a client, whose addresses are relative to the page's, talk to the application of ``icmlora play``."""

    async def run() -> Any:
        options.setdefault("hosts", LOCAL_HOSTS)
        app = make_app(playground.engine, play=PlayPage(playground, TOKEN), **{"api": False} | options)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        base_url = f"{OWN}/play/{TOKEN}/"
        async with Client(transport=transport, base_url=base_url, timeout=None) as client:
            return await talk(client)

    return asyncio.run(run())


def get(
    playground: "Playground", path: str, headers: Mapping[str, str] | None = None, **options: Any
) -> httpx.Response:
    found = visit(playground, lambda client: client.get(path, headers=headers), **options)
    assert isinstance(found, httpx.Response)
    return found


def post(playground: "Playground", path: str, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", "origin": OWN} | headers
    found = visit(playground, lambda client: client.post(path, content=content, headers=sent))
    assert isinstance(found, httpx.Response)
    return found


def events(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def make(playground: "Playground", **body: object) -> dict[str, Any]:
    """Make an adapter; return what is said of it."""
    found = events(post(playground, "api/make", {"text": CAT} | body))
    (made,) = (event["made"] for event in found if event["event"] == "made")
    assert isinstance(made, dict)
    return made


def answers(found: list[dict[str, Any]]) -> dict[str, str]:
    """Return the answers in the events of ``ask``, by their columns."""
    texts: dict[str, str] = {}
    for event in found:
        texts[event["column"]] = texts.get(event["column"], "") + event.get("text", "")
    return texts


def refused(response: httpx.Response, status: int, param: str | None = None) -> str:
    """Return the message of an error, which has one sentence and no path."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["param"] == param, error
    message = error["message"]
    assert isinstance(message, str) and message and "Traceback" not in message and "/tmp/" not in message
    return message


def test_the_page_runs_no_script_but_its_own(playground: "Playground") -> None:
    page = get(playground, "")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    allowed = {word for name, words in policy.items() for word in words.split()}
    assert allowed == {"'none'", "'self'", "data:"} and policy["script-src"] == policy["connect-src"] == "'self'"
    assert page.headers["referrer-policy"] == "no-referrer" and page.headers["cache-control"] == "no-store"
    assert re.findall(r"<script(?! type=\"module\" src=\"page/)|<style|\sstyle=|\son[a-z]+=|https?://", page.text) == []
    names = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert len(names) == 2
    for name in names:
        file = get(playground, name)
        assert file.status_code == 200 and "http" not in file.text, name
        for other in re.findall(r'from "\./([^"]+)"', file.text):
            assert get(playground, f"page/{other}").headers["content-type"].startswith("text/javascript")
    for name in ("page/none.js", "page/..%2Froutes.py", "page/%2e%2e/routes.py", "page/", "routes.py"):
        assert get(playground, name).status_code == 404, name
    bare = get(playground, f"{OWN}/play/{TOKEN}")
    assert bare.status_code == 307 and bare.headers["location"] == f"/play/{TOKEN}/"


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/play/another-token/{}", {}, "unknown_token"),
        ("/play/{}", {}, "unknown_token"),
        ("/play/" + TOKEN[:-1] + "/{}", {}, "unknown_token"),
        ("/play/" + TOKEN + "x/{}", {}, "unknown_token"),
        ("/play/%FFé/{}", {}, "unknown_token"),
        ("/play/" + TOKEN + "/{}", {"host": "evil.example"}, "unknown_host"),
        ("/play/" + TOKEN + "/{}", {"host": "127.0.0.1.evil.example:8765"}, "unknown_host"),
        ("/play/" + TOKEN + "/{}", {"host": "evil.example@127.0.0.1.x"}, "unknown_host"),
        ("/play/" + TOKEN + "/{}", {"host": "["}, "unknown_host"),
        ("/play/" + TOKEN + "/{}", {"origin": "https://evil.example"}, "unknown_host"),
        ("/play/" + TOKEN + "/{}", {"origin": "null"}, "unknown_host"),
        ("/play/" + TOKEN + "/{}", {"origin": "http://127.0.0.1:9999"}, "unknown_origin"),
        ("/play/" + TOKEN + "/{}", {"origin": "http://localhost:8765"}, "unknown_origin"),
        ("/play/" + TOKEN + "/{}", {"origin": f"https://{HOST}"}, "unknown_origin"),
    ],
)
def test_others_are_refused(playground: "Playground", path: str, headers: dict[str, str], code: str) -> None:
    async def talk(client: Client) -> None:
        for method, rest in (("GET", ""), ("GET", "api/state"), ("GET", "page/play.js"), ("POST", "api/make")):
            sent = {"content-type": "application/json"} | headers
            content = b'{"text": "x"}' if method == "POST" else None
            response = await client.request(method, OWN + path.format(rest), headers=sent, content=content)
            assert response.status_code == 403 and response.json()["error"]["code"] == code, (method, rest)

    visit(playground, talk)
    assert playground.made.all() == ()


def test_the_page_itself_is_let_in(playground: "Playground") -> None:
    for headers in (
        {},
        {"origin": OWN},
        {"host": "localhost:1", "origin": "http://localhost:1"},
        {"host": "[::1]:8765"},
    ):
        assert get(playground, "api/state", headers).status_code == 200, headers
    # without the checks of serve, the playground's own are still there; a key is not asked for, and the token is
    assert get(playground, "api/state", hosts=(), keys=["secret"]).status_code == 200
    assert get(playground, "api/state", {"host": "evil.example"}, hosts=()).status_code == 403
    assert get(playground, f"{OWN}/play/x/api/state", hosts=(), keys=["secret"]).status_code == 403
    assert get(playground, f"{OWN}/v1/models", hosts=(), keys=["secret"], api=True).status_code == 401


def test_play_alone_serves_no_api(playground: "Playground") -> None:
    for path in ("/v1/models", "/", "/docs", "/openapi.json"):
        assert get(playground, OWN + path).status_code == 404, path
    assert get(playground, f"{OWN}/v1/models", api=True).status_code == 200


def test_a_text_becomes_the_adapter_that_gen_makes(playground: "Playground", trained: "Registry") -> None:
    found = events(post(playground, "api/make", {"text": f"  {CAT}\n"}))
    assert [event["event"] for event in found if event["event"] != "progress"] == ["step", "made", "step", "near"]
    made, near = found[1]["made"], found[-1]
    assert made["text"] == CAT and made["examples"] == 0 and made["evidence"] is None and near["id"] == made["id"]
    assert {item["task"] for item in near["nearest"]} == {"always_cat", "always_dog"} and near["range"]["tasks"] == 2
    trained.call("gen", CAT, "-o", "out", "--explain")
    explained = json.loads((trained.root / "out" / "icmlora.json").read_text())["explanation"]
    assert near["range"] == explained["range"]
    assert [item["alike"] for item in near["nearest"]] == [item["cosine"] for item in explained["nearest"]]
    response = get(playground, f"api/made/{made['id']}.zip")
    assert response.headers["content-disposition"] == 'attachment; filename="always-answer-with-cat.zip"'
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert set(archive.namelist()) == {path.name for path in (trained.root / "out").iterdir()}
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert archive.read(name) == (trained.root / "out" / name).read_bytes()
    trained.call("gen", CAT, "-o", "gguf", "--format", "gguf")
    gguf = get(playground, f"api/made/{made['id']}.gguf")
    assert gguf.content == (trained.root / "gguf" / "adapter.gguf").read_bytes()
    assert [item["id"] for item in get(playground, "api/state").json()["made"]] == [made["id"]]


def test_three_answers_come_one_after_another(playground: "Playground") -> None:
    made = make(playground)
    body = {"input": "word 5", "text": CAT, "made": made["id"], "max_tokens": 6}
    found = events(post(playground, "api/ask", body))
    assert [event["column"] for event in found if event["event"] == "end"] == ["base", "described", "adapter"]
    prompts = {event["column"]: event["prompt"] for event in found if event["event"] == "column"}
    assert prompts["base"] == prompts["adapter"] == "Q: word 5\nA:"
    assert prompts["described"] == f"{CAT}\nQ: word 5\nA:"
    engine = playground.engine
    source = engine.find_adapter(f"icm:{CAT}")  # the server's own way to the same adapter
    for column, prompt, adapter in (
        ("base", prompts["base"], None),
        ("described", prompts["described"], None),
        ("adapter", prompts["adapter"], source),
    ):
        request = GenerationRequest(tuple(engine.text_ids(prompt)), Sampling(6, temperature=0.0, stop=("\n",)), adapter)
        assert answers(found)[column] == engine.answer(request, lambda text: None, lambda: False).text
    assert answers(found)["base"] != answers(found)["adapter"]
    alone = events(post(playground, "api/ask", {"input": "word 5", "max_tokens": 6}))
    assert answers(alone) == {"base": answers(found)["base"]}


def test_templates_and_registered_tasks(playground: "Playground") -> None:
    chat = events(post(playground, "api/ask", {"input": "hi", "text": CAT, "template": "chat", "max_tokens": 2}))
    assert [event["prompt"] for event in chat if event["event"] == "column"] == ["hi", f"{CAT}\nhi"]
    text = events(post(playground, "api/ask", {"input": "hi", "text": CAT, "template": "text", "max_tokens": 2}))
    assert [event["prompt"] for event in text if event["event"] == "column"] == ["hi", f"{CAT}\n\nhi"]
    found = events(post(playground, "api/ask", {"input": "word 7", "task": "always_dog", "max_tokens": 6}))
    assert answers(found)["adapter"] != answers(found)["base"]
    request = GenerationRequest(
        tuple(playground.engine.text_ids("Q: word 7\nA:")),
        Sampling(6, temperature=0.0, stop=("\n",)),
        playground.engine.find_adapter("always_dog"),
    )
    assert answers(found)["adapter"] == playground.engine.answer(request, lambda text: None, lambda: False).text


def test_examples_are_evidence(playground: "Playground") -> None:
    found = events(post(playground, "api/make", {"text": CAT, "examples": EXAMPLES, "budget": 3}))
    assert {"label", "done", "total"} <= next(event for event in found if event["event"] == "progress").keys()
    (made,) = (event["made"] for event in found if event["event"] == "made")
    evidence = made["evidence"]
    assert made["examples"] == evidence["examples"] == evidence["folds"] == 3
    kinds = [item["kind"] for item in evidence["tried"]]
    assert kinds[0] == "base" and {"text", "text and examples", "sample", "adapted"} <= set(kinds)
    held = [item["held_out"] for item in evidence["tried"]]
    assert held[evidence["kept"]] == min(held) < held[0]
    archive = zipfile.ZipFile(io.BytesIO(get(playground, f"api/made/{made['id']}.zip").content))
    about = json.loads(archive.read("icmlora.json"))
    assert about["evidence"]["tried"] == evidence["tried"] and about["options"]["examples"]["examples"] == 3
    assert about["options"]["budget"] == 3 and "3 given examples" in archive.read("README.md").decode()


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "said"),
    [
        ("make", {"text": ""}, 400, "text", "empty"),
        ("make", {"text": " \n "}, 400, "text", "empty"),
        ("make", {"text": "x" * 2001}, 400, "text", "at most 2,000"),
        ("make", b'{"text": "\\ud800"}', 400, "text", "surrogate"),
        ("make", {"text": 5}, 400, "text", "string"),
        ("make", {}, 400, "text", "required"),
        ("make", {"text": CAT, "examples": "one\ntwo => 2"}, 400, "examples", "line 1 has no =>"),
        ("make", {"text": CAT, "examples": "a => " + "b" * 5000}, 400, "examples", "example 1 has"),
        ("make", {"text": CAT, "budget": 0}, 400, "budget", "greater"),
        ("make", {"text": CAT, "budget": 1e9}, 400, "budget", "less"),
        ("make", {"text": CAT, "budget": None}, 400, "budget", "number"),
        ("make", {"text": CAT, "template": "other"}, 400, "template", "qa"),
        ("make", {"text": CAT, "more": 1}, 400, "more", "does not know"),
        ("make", b"{", 400, None, "not JSON"),
        ("make", b"[]", 400, None, "not a JSON object"),
        ("make", b" " * (MAX_BODY + 1), 413, None, "at most"),
        ("ask", {"input": ""}, 400, "input", "empty"),
        ("ask", {"input": "x " * 4000}, 400, "input", "tokens at once"),
        ("ask", {"input": "x", "max_tokens": 0}, 400, "max_tokens", "greater"),
        ("ask", {"input": "x", "max_tokens": 10**9}, 400, "max_tokens", "less"),
        ("ask", {"input": "x", "made": "0123456789abcdef"}, 404, "model", "no longer in memory"),
        ("ask", {"input": "x", "task": "no_such_task"}, 404, "model", "there is no adapter"),
        ("ask", {"input": "x", "task": "icm:Say cat."}, 404, "model", "there is no adapter"),
        ("ask", {"input": "x", "task": "../tasks"}, 404, "model", "there is no adapter"),
    ],
)
def test_wrong_input_is_one_clear_message(
    playground: "Playground", path: str, body: object, status: int, param: str | None, said: str
) -> None:
    assert said in refused(post(playground, f"api/{path}", body), status, param)
    assert not playground.engine.queue.waiting


def test_other_wrong_requests(playground: "Playground") -> None:
    refused(post(playground, "api/make", {"text": CAT}, **{"content-type": "text/plain"}), 415)
    assert "no longer in memory" in refused(get(playground, "api/made/0123.zip"), 404, "model")
    for kind in ("exe", "ZIP", "zip.gz"):
        assert get(playground, f"api/made/0123.{kind}").status_code == 404
    assert get(playground, "api/make").status_code == 405
    assert "no example" in refused(get(playground, "api/sample/no_such_task"), 404, "model")
    assert get(playground, "api/sample/..%2F..%2Fetc").status_code == 404


def test_a_full_queue_says_so(playground: "Playground") -> None:
    places = [playground.engine.queue.reserve(lambda event: None) for _ in range(5)]
    response = post(playground, "api/make", {"text": CAT})
    refused(response, 429)
    assert int(response.headers["retry-after"]) > 0
    for place in places:
        playground.engine.queue.drop(place)
    make(playground)


def test_a_search_whose_page_is_gone_is_given_up(playground: "Playground") -> None:
    import queue

    inbox: queue.Queue[object] = queue.Queue()
    task = playground.making(MakeRequest(CAT, EXAMPLES, budget=600.0))
    job = playground.engine.queue.reserve(lambda event: inbox.put(event))
    playground.engine.queue.submit(job, task)
    while not isinstance(event := inbox.get(timeout=300), Exception):
        assert isinstance(event, dict)
        if event["event"] == "progress":
            playground.engine.queue.drop(job)
    assert isinstance(event, StoppedError) and playground.made.all() == ()
    make(playground)  # and the next one has its turn


def test_the_registry_is_listed(playground: "Playground", trained: "Registry") -> None:
    listing = get(playground, "api/registry").json()
    assert [item["name"] for item in listing["learned"]] == ["always_cat", "always_dog"]
    assert listing["learned"][0]["text"] == CAT
    assert [(item["name"], item["examples"], item["usable"]) for item in listing["tasks"]] == [
        ("always_cat", 40, True),
        ("always_dog", 40, True),
    ]
    adapter = listing["tasks"][0]["adapter"]
    assert adapter["origin"] == "harvested" and adapter["count"] == 1 and adapter["bytes"] > 0
    sample = get(playground, "api/sample/always_cat").json()
    assert sample["output"] == "cat" and sample["input"].startswith("word ")
    builtin = get(playground, "api/sample/pick_last_of_3").json()
    assert builtin["input"].endswith(builtin["output"])
    trained.call("adapter", "export", "always_cat", "-o", "exported")
    archive = zipfile.ZipFile(io.BytesIO(get(playground, "api/task/always_cat.zip").content))
    name = "adapter_model.safetensors"
    assert archive.read(name) == (trained.root / "exported" / name).read_bytes()
    assert get(playground, "api/task/always_cat.gguf").content[:4] == b"GGUF"
    assert "no adapter" in refused(get(playground, "api/task/never.zip"), 404, "model")


def test_damaged_and_stale_tasks_do_not_stop_the_listing(playground: "Playground", trained: "Registry") -> None:
    home = Path(trained.home)
    (home / "tasks" / "always_dog" / "task.json").write_text("{")
    tasks = {item["name"]: item for item in get(playground, "api/registry").json()["tasks"]}
    assert "damaged" in tasks["always_dog"]["text"] and not tasks["always_dog"]["usable"]
    assert tasks["always_cat"]["usable"]
    refused(get(playground, "api/sample/always_dog"), 500)


def test_the_report_of_an_evaluation(playground: "Playground") -> None:
    assert get(playground, "api/state").json()["results"] is True
    report = get(playground, "report")
    assert report.status_code == 200 and 'id="comparison"' in report.text and 'id="maps"' in report.text
    assert report.headers["content-security-policy"] == "frame-ancestors 'self'"
    assert "script-src &#39;sha256-" in report.text  # its own policy
    from icmlora_cli.serving.play.playground import Playground

    without = Playground(playground.engine, playground.home)
    assert without.state()["results"] is False
    assert "no evaluation" in refused(get(without, "report"), 404, "model")
