"""Requests to the application itself: whatever is sent, it is answered, or refused with the field that is wrong."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from icmlora_cli.serving.engine import Engine

pytest.importorskip("fastapi", reason="the extra icmlora[serve] is not installed")
pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")
from icmlora_cli.errors import RequestError
from icmlora_cli.serving.http.admission import MAX_BODY
from icmlora_cli.serving.http.app import make_app
from icmlora_cli.serving.http.schema import ChatBody, parse

JSON = {"content-type": "application/json"}
Post = Callable[..., Coroutine[None, None, httpx.Response]]


def asked(engine: "Engine", questions: Callable[[Post], Coroutine[None, None, Any]], **options: Any) -> Any:
    """Run questions against the application, in one event loop."""

    async def run() -> Any:
        transport = httpx.ASGITransport(make_app(engine, **options), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:

            async def post(path: str, body: object, **headers: str) -> httpx.Response:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                return await client.post(f"/v1{path}", content=content, headers=JSON | headers, timeout=None)

            return await questions(post)

    return asyncio.run(run())


def completed(engine: "Engine", changes: Mapping[str, object], path: str = "/completions") -> httpx.Response:
    """Return the answer to a good request with changes."""
    prompt = {"prompt": "one"} if path == "/completions" else {"messages": [{"role": "user", "content": "hi"}]}

    async def question(post: Post) -> httpx.Response:
        return await post(path, {"model": engine.base_name} | prompt | dict(changes))

    found = asked(engine, question)
    assert isinstance(found, httpx.Response)
    return found


def refused(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """Return the error of a response, which has to have OpenAI's format."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert isinstance(error, dict) and set(error) == {"message", "type", "param", "code"}
    return error


def test_messages_that_were_sent_come_back(tiny_engine: "Engine") -> None:
    user = {"role": "user", "content": "hi"}
    first = completed(tiny_engine, {"messages": [user]}, "/chat/completions").json()
    answer = first["choices"][0]["message"]
    known = {"annotations": None, "audio": None, "function_call": None, "tool_calls": None, "name": None}
    for messages in (
        [user, answer, user],
        [user, answer | known, user],  # as the openai client dumps it
        [user, {"role": "assistant", "content": None, "refusal": "No."}, user],
        [{"role": "developer", "content": "be brief"}, user | {"name": "bob"}],
        [user, {"role": "assistant", "content": "a", "tool_calls": []}, user],
        [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}],
    ):
        response = completed(tiny_engine, {"messages": messages}, "/chat/completions")
        assert response.status_code == 200, response.text
    parts = [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]
    again = completed(tiny_engine, {"messages": parts}, "/chat/completions").json()
    assert again["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]
    developer = [{"role": "developer", "content": "x"}]
    system = [{"role": "system", "content": "x"}]
    counts = [
        completed(tiny_engine, {"messages": messages}, "/chat/completions").json()["usage"]["prompt_tokens"]
        for messages in (developer, system)
    ]
    assert counts[0] == counts[1]  # templates know no developer
    for wrong in (
        {"role": "user", "content": None},
        {"role": "user"},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
    ):
        found = refused(completed(tiny_engine, {"messages": [user, wrong]}, "/chat/completions"))
        assert found["param"] == "messages" and "messages.1" in found["message"]
    assert found["message"].startswith("messages.1.content.0.")  # the fault itself, not that it is no text


def test_wrong_values_are_refused_by_their_fields(tiny_engine: "Engine") -> None:
    for field, values in {
        "max_tokens": (10**30, 1.5, "4", True, [], -1, 0),
        "temperature": (10**400, -1, "hot", True, 2.5),
        "top_p": (10**400, 1.1, None.__class__.__name__),
        "seed": (2**70, -(2**70), 1.5, "x"),
        "stop": (["a"] * 5, "", [""], {"a": 1}, 5),
        "stream": ("yes", 1),
        "n": (2, True, 1.0),
        "echo": (True, 0),
        "logprobs": (True, 0, 5),
        "logit_bias": ({"5": 1}, []),
        "tools": ([{}],),
        "response_format": ({"type": "json_object"}, "text"),
        "presence_penalty": (0.5, 10**400),
        "top_k": (3,),
        "prompt": (None, [], [1.5], ["a", "b"], {}, [10**40], [True]),
    }.items():
        for value in values:
            found = refused(completed(tiny_engine, {field: value}))
            assert found["param"] == field, (field, value)
    assert refused(completed(tiny_engine, {"stop": {"a": 1}}))["message"].startswith("stop: ")
    neutral = {"n": 1, "echo": False, "logprobs": None, "tools": [], "response_format": {"type": "text"}, "user": {}}
    assert completed(tiny_engine, neutral | {"logit_bias": {}, "presence_penalty": 0}).status_code == 200
    head = f'{{"model": "{tiny_engine.base_name}", "prompt": "x", '.encode()

    async def raw(post: Post) -> list[httpx.Response]:
        numbers = ["1e999", "-1e999", "NaN", "Infinity", "9" * 5000, "-" + "9" * 5000]
        fields = ("max_tokens", "temperature", "top_p", "seed")
        return [
            await post("/completions", head + f'"{field}": {number}}}'.encode())
            for field in fields
            for number in numbers
        ]

    for index, response in enumerate(asked(tiny_engine, raw)):
        assert refused(response)["param"] == ("max_tokens", "temperature", "top_p", "seed")[index // 6]


def test_what_is_not_json_or_not_unicode_is_refused(tiny_engine: "Engine") -> None:
    bodies = [
        b"", b"{", b"[]", b"null", b"5", b"[" * 100_000, b'{"a":' * 90 + b"1" + b"}" * 90, b'{"model": "\xff"}',
        b'{"model": 0x' + b"f" * 5000 + b"}", b'{"\\ud83d": 1}', b'{"model": "\\ud83d", "prompt": "x"}',
    ]  # fmt: skip

    async def questions(post: Post) -> list[httpx.Response]:
        return [await post("/completions", body) for body in bodies]

    for response in asked(tiny_engine, questions):
        refused(response)
    surrogate = [{"role": "user", "content": "\ud83d"}]
    assert refused(completed(tiny_engine, {"messages": surrogate}, "/chat/completions"))["param"] == "messages"
    assert (
        refused(completed(tiny_engine, {"prompt": "\udc00"}))["message"]
        == "prompt: a half of a surrogate pair is not text"
    )
    assert refused(completed(tiny_engine, {"stop": ["\udc00"]}))["param"] == "stop"


def test_without_a_length_the_answer_fits_the_room(tiny_engine: "Engine") -> None:
    for count in (500, 510, 511):
        found = completed(tiny_engine, {"prompt": [5] * count})
        assert found.status_code == 200, found.text
        assert found.json()["usage"]["completion_tokens"] <= min(4, 512 - count)
    assert refused(completed(tiny_engine, {"prompt": [5] * 512}))["code"] == "context_length_exceeded"
    assert refused(completed(tiny_engine, {"prompt": [5] * 511, "max_tokens": 2}))["code"] == "context_length_exceeded"


def test_a_stop_text_that_only_holds_a_special_token_is_refused(tiny_engine: "Engine") -> None:
    assert completed(tiny_engine, {"stop": ["<eos>"]}).status_code == 200
    assert "give that alone" in refused(completed(tiny_engine, {"stop": ["a", "<eos>\n"]}))["message"]


HOSTILE = {
    "messages": b'{"model": "m", "messages": [' + b",".join([b"{}"] * 690_000) + b"]}",
    "parts": b'{"model": "m", "messages": [{"role": "user", "content": [' + b",".join([b"{}"] * 690_000) + b"]}]}",
    "tokens": b'{"model": "m", "prompt": [' + b",".join([b"{}"] * 690_000) + b"]}",
    "stops": b'{"model": "m", "prompt": "x", "stop": [' + b",".join([b"{}"] * 690_000) + b"]}",
}


def test_hostile_requests_are_refused_before_work_is_done_for_them(tiny_engine: "Engine") -> None:
    for name, data in HOSTILE.items():
        assert len(data) < MAX_BODY
        with pytest.raises(RequestError) as error:
            parse(ChatBody, data)
        cause = error.value.__cause__
        assert cause is not None and cause.error_count() < 10, name  # type: ignore[attr-defined]
    large = b'{"model": "m", "messages": [' + b",".join([b"{}"] * 2_100_000) + b"]}"
    text = json.dumps({"model": tiny_engine.base_name, "prompt": "word " * 400_000}).encode()
    order: list[str] = []

    async def questions(post: Post) -> None:
        async def one(name: str, path: str, body: object, status: int) -> None:
            response = await post(path, body)
            assert response.status_code == status, response.text
            order.append(name)

        small = {"model": tiny_engine.base_name, "prompt": "one", "max_tokens": 1}
        await asyncio.gather(
            *(one("large", "/chat/completions", large, 413) for _ in range(6)),
            *(one("items", "/chat/completions", HOSTILE["messages"], 400) for _ in range(3)),
            *(one("parts", "/chat/completions", HOSTILE["parts"], 400) for _ in range(3)),
            *(one("text", "/completions", text, 400) for _ in range(12)),
            *(one("small", "/completions", small, 200) for _ in range(3)),
        )

    asked(tiny_engine, questions)
    assert len(order) == 27 and order.count("small") == 3
    assert not tiny_engine.queue.waiting  # all places were given back


def test_a_request_has_its_place_before_its_body_is_read(tiny_engine: "Engine") -> None:
    app, sent = make_app(tiny_engine), list[Any]()
    scope = {
        "type": "http", "method": "POST", "path": "/v1/completions", "raw_path": b"", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
    }  # fmt: skip

    async def run() -> None:
        begun, hang_up = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, object]:
            if begun.is_set():
                await hang_up.wait()
                return {"type": "http.disconnect"}
            begun.set()
            return {"type": "http.request", "body": b"{", "more_body": True}

        async def send(message: object) -> None:
            sent.append(message)

        request = asyncio.create_task(app(scope, receive, send))
        await begun.wait()
        assert tiny_engine.queue.waiting == 1
        hang_up.set()
        await request
        assert not tiny_engine.queue.waiting

    asyncio.run(run())
    assert sent[0]["status"] == 503


def test_only_known_names_are_answered(tiny_engine: "Engine") -> None:
    async def statuses(post: Post) -> list[int]:
        good = {"model": tiny_engine.base_name, "prompt": "one", "max_tokens": 1}
        found = []
        for headers in (
            {"host": "localhost:8000"}, {"host": "LOCALHOST"}, {"host": "127.0.0.1:1"}, {"host": "[::1]:8000"},
            {"host": "box.lan"}, {"origin": "http://localhost:3000"},
            {"host": "evil.example"}, {"host": "localhost.evil.example:8000"}, {"host": ""}, {"host": "[::1"},
            {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "file://"},
        ):  # fmt: skip
            response = await post("/completions", good, **headers)
            found.append(response.status_code)
            if response.status_code != 200:
                assert refused(response, 403)["code"] == "unknown_host"
        return found

    hosts = ("localhost", "127.0.0.1", "::1", "box.lan")
    assert asked(tiny_engine, statuses, hosts=hosts) == [200] * 6 + [403] * 7


FIELDS = (
    "model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop",
    "stream", "stream_options", "n", "best_of", "echo", "logprobs", "top_logprobs", "suffix", "presence_penalty",
    "logit_bias", "tools", "tool_choice", "response_format", "modalities", "user", "metadata", "unknown",
)  # fmt: skip
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([10**30, -(10**30), 10**390, 2**63, 2**64, -(2**63) - 1, float("inf"), 1e-300])
)
TEXTS = st.text(st.characters(), max_size=8) | st.sampled_from(["one", "<eos>", "\ud83d", "\x00", "icm:x"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "name"]) | TEXTS, inner, max_size=3)
    ),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "developer", "tool"]), "content": VALUES | TEXTS}
    ),
    max_size=2,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=2),
    messages=MESSAGES,
    path=st.sampled_from(["/completions", "/chat/completions"]),
)
def test_any_body_is_answered_or_refused(
    tiny_engine: "Engine", changes: dict[str, object], messages: list[object], path: str
) -> None:
    response = completed(tiny_engine, {"messages": messages} | changes if "chat" in path else changes, path)
    if response.status_code == 200:
        return
    error = refused(response, response.status_code)
    assert response.status_code in (400, 404) and error["type"] == "invalid_request_error", error
    assert error["param"] in {*FIELDS}, error
    assert not tiny_engine.queue.waiting
