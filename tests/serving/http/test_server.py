"""``icmlora serve`` as a process, asked by the openai client: many at once, wrong requests, clients that hang up."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.printed import printed_json

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

openai = pytest.importorskip("openai", reason="the dependency group serve is not installed")
pytest.importorskip("fastapi", reason="the extra icmlora[serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra icmlora[serve] is not installed")
import httpx2 as httpx  # noqa: E402  # comes with openai and huggingface_hub

pytestmark = pytest.mark.serve
CAT = "Always answer with cat."
SECONDS = 600.0  # after which a server counts as hanging; no test waits for a time to pass


class Running:
    """A server process.

    Args:
        process: The process.
        printed: What it printed when it began to serve.
    """

    def __init__(self, process: "subprocess.Popen[str]", printed: dict[str, Any]) -> None:
        self.process, self.printed = process, printed

    @property
    def url(self) -> str:
        return str(self.printed["url"])

    def client(self, key: str = "none") -> Any:
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=SECONDS)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=SECONDS, **options)

    def health(self) -> dict[str, Any]:
        found = httpx.get(f"{self.url.removesuffix('/v1')}/health", timeout=SECONDS).json()
        assert isinstance(found, dict)
        return found

    def ask(self, body: dict[str, Any]) -> socket.socket:
        """Ask for a completion and leave its answer unread; to close the socket is to hang up.

        Closing a client of httpx's would not do: while another thread reads, its connection stays open.
        """
        address, data = urlsplit(self.url), json.dumps(body).encode()
        asked = socket.create_connection((address.hostname, address.port), SECONDS)
        head = f"POST {address.path}/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(data)}\r\n"
        asked.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
        return asked

    def wait(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not until():
            assert self.process.poll() is None and time.monotonic() < end
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return what ``left`` does."""
        self.process.send_signal(number)
        return self.left()

    def left(self) -> tuple[int, str]:
        """Wait for the end; return the exit code, and stderr after the line that says where it serves."""
        _, stderr = self.process.communicate(timeout=SECONDS)
        first, _, rest = stderr.partition("\n")
        assert first == f"serving {self.printed['base']} on {self.url} (Ctrl-C ends it)"
        return self.process.returncode, rest


@contextmanager
def serving(registry: "Registry", *arguments: object, before: Sequence[str] = ()) -> Iterator[Running]:
    """Start a server on a free port, ``before`` being what starts it; it is killed at the end if it still runs."""
    command = [sys.executable, "-m", "icmlora_cli", "serve", "--port", "0", "--json", "--device", "cpu"]
    process = subprocess.Popen(
        [*before, *command, *map(str, arguments)], env=registry.environment, cwd=registry.root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Running(process, printed_json(process))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def long_base(trained: "Registry") -> Path:
    """A base whose answers go on for longer than any test: a context of a million tokens."""
    folder = trained.root / "long"
    shutil.copytree(trained.base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1_000_000}))
    return folder


LONG = {"prompt": "one", "max_tokens": 500_000, "temperature": 0, "seed": 1}


def reference(base: Path, folders: dict[str, Path | None], prompts: list[str], tokens: int) -> dict[Any, str]:
    """Return what transformers with PEFT writes, by model and prompt."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, found = AutoTokenizer.from_pretrained(base), {}
    for name, folder in folders.items():
        model = AutoModelForCausalLM.from_pretrained(base)
        if folder is not None:
            model = PeftModel.from_pretrained(model, str(folder))
        model.eval()
        for prompt in prompts:
            ids = torch.tensor([tokenizer.encode(prompt)])
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False,
                pad_token_id=0,
            )  # fmt: skip
            found[name, prompt] = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return found


def last(registry: "Registry", task: str) -> Path:
    (shown,) = registry.json("adapter", "show", task)["adapters"]
    return Path(shown["folder"])


def test_200_requests_of_mixed_adapters_equal_peft(trained: "Registry") -> None:
    texts = {f"icm:{CAT}": CAT, "icm:Write dog, whatever is asked.": "Write dog, whatever is asked."}
    folders: dict[str, Path | None] = {trained.base.name: None}
    for name, text in texts.items():
        folder = trained.root / f"made-{len(folders)}"
        trained.call("gen", text, "-o", folder)
        folders[name] = folder
    folders |= {"always_cat": last(trained, "always_cat"), "always_dog": last(trained, "always_dog")}
    trained.call("gen", "Say owl.", "-o", "given")
    folders["given"] = trained.root / "given"
    chats = ["word 3", "say it"]
    written = [f"user: {text}\nassistant: " for text in chats]  # what the chat template makes of them
    prompts = ["Q: word 1\nA:", "Q: word 2\nA:", "one two", *written]
    wanted = reference(trained.base, folders, prompts, 10)
    assert len(set(wanted.values())) > len(prompts)  # the adapters differ
    names = [*folders]
    with serving(trained, "-g", "default", "--adapter", "given=given", "--max-adapters", 3, "--queue", 8) as server:
        client = server.client()

        def ask(index: int) -> tuple[str, str, str]:
            name, prompt = names[index % len(names)], prompts[index // len(names) % len(prompts)]
            plain = {"model": name, "temperature": 0, "max_tokens": 10}
            if prompt in written:
                messages = [{"role": "user", "content": chats[written.index(prompt)]}]
                if index % 2:
                    stream = client.chat.completions.create(messages=messages, stream=True, **plain)
                    return name, prompt, "".join(chunk.choices[0].delta.content or "" for chunk in stream)
                answer = client.chat.completions.create(messages=messages, **plain).choices[0]
                return name, prompt, answer.message.content
            if index % 2:
                stream = client.completions.create(prompt=prompt, stream=True, **plain)
                return name, prompt, "".join(chunk.choices[0].text for chunk in stream)
            return name, prompt, client.completions.create(prompt=prompt, **plain).choices[0].text

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(200)))
        assert len(answers) == 200
        assert [(name, text) for name, prompt, text in answers] == [
            (name, wanted[name, prompt]) for name, prompt, _ in answers
        ]
        listed = {model.id: model.kind for model in client.models.list()}
        assert listed.keys() <= folders.keys() and sum(kind == "generated" for kind in listed.values()) <= 2
        assert [name for name, kind in listed.items() if kind == "task"] == ["always_cat", "always_dog"]
        assert listed[trained.base.name] == "base" and listed["given"] == "adapter"
        assert client.models.retrieve("always_dog").id == "always_dog"
        server.wait(lambda: server.health() == {"status": "ok", "running": False, "waiting": 0})
        assert server.end() == (0, "")


def test_bodies_are_openais(trained: "Registry") -> None:
    name = trained.base.name
    with serving(trained, "--base", trained.base) as server:
        client = server.client()
        whole = client.completions.create(model=name, prompt="one two", max_tokens=6, temperature=0, user="me")
        assert whole.object == "text_completion" and whole.choices[0].finish_reason in ("length", "stop")
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        assert whole.usage.completion_tokens == 6
        ids = client.completions.create(model=name, prompt=[5, 6, 7], max_tokens=3, temperature=0)
        assert ids.usage.prompt_tokens == 3
        chunks = list(
            client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}], max_tokens=5,
                temperature=0, stream=True, stream_options={"include_usage": True},
            )
        )  # fmt: skip
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] in ("length", "stop")
        assert not chunks[-1].choices and chunks[-1].usage.completion_tokens == 5
        assert {chunk.id for chunk in chunks} == {chunks[0].id}

        def drawn(seed: int) -> str:
            made = client.completions.create(model=name, prompt="one", max_tokens=20, temperature=1, seed=seed)
            return str(made.choices[0].text)

        assert drawn(3) == drawn(3) != drawn(4)
        stop = client.completions.create(model=name, prompt="one two", max_tokens=16, temperature=0).choices[0].text
        cut = client.completions.create(
            model=name, prompt="one two", max_tokens=16, temperature=0, stop=[stop[5:7], "\x00"]
        )
        assert cut.choices[0].text == stop.split(stop[5:7])[0] and cut.choices[0].finish_reason == "stop"


def test_wrong_requests_are_told_what_is_wrong(trained: "Registry") -> None:
    name = trained.base.name
    good: dict[str, Any] = {"model": name, "prompt": "one", "max_tokens": 2}
    with serving(trained, "-g", "default", "--max-tokens", 10) as server:

        def refused(status: int, **changes: Any) -> dict[str, Any]:
            answer = server.post("/completions", json=good | changes)
            assert answer.status_code == status, answer.text
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"} and str(trained.root) not in answer.text
            assert isinstance(error, dict)
            return error

        for wrong in ("nobody", "../always_cat", "/etc/passwd", "always_cat/../always_dog", str(trained.base), "icm"):
            found = refused(404, model=wrong)
            assert found["code"] == "model_not_found" and found["param"] == "model"
        assert "2,000" in refused(400, model="icm:" + "x" * 2001)["message"]
        assert "empty" in refused(400, model="icm:   ")["message"]
        assert refused(400, model="icm:" + "x" * 5000)["param"] == "model"
        huge = refused(400, prompt="word " * 3000)
        assert huge["code"] == "context_length_exceeded" and "512" in huge["message"]
        assert refused(400, prompt="word " * 100, max_tokens=450)["code"] == "context_length_exceeded"
        assert refused(400, max_tokens=11)["param"] == "max_tokens"
        usual = server.post("/completions", json={"model": name, "prompt": "one"})  # 16 tokens, where there may be more
        assert usual.status_code == 200 and usual.json()["usage"]["completion_tokens"] <= 10
        assert refused(400, prompt=[])["param"] == "prompt"
        assert refused(400, prompt=[10**9])["param"] == "prompt"
        for param, value in {
            "logprobs": 0, "n": 2, "best_of": 3, "echo": True, "temperature": 3, "top_p": -0.1, "max_tokens": 0,
            "seed": 2**70, "stop": ["a"] * 5, "logit_bias": {"5": 1}, "top_k": 3, "stream": "yes", "prompt": None,
        }.items():  # fmt: skip
            assert refused(400, **{param: value})["param"] == param, param
        assert "logprobs" in refused(400, logprobs=5)["message"]
        client = server.client()
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model=name, messages=[], max_tokens=2)
        with pytest.raises(openai.BadRequestError, match="logprobs"):
            client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hi"}], logprobs=True)
        assert (
            server.post("/completions", content=b"{", headers={"content-type": "application/json"}).status_code == 400
        )
        assert (
            server.post("/completions", content=b"[" * 10**5, headers={"content-type": "application/json"}).status_code
            == 400
        )
        assert server.post("/completions", content=json.dumps(good).encode()).status_code == 415
        assert server.post("/completions", json=good | {"prompt": "x" * 2**23}).status_code == 413
        assert httpx.get(f"{server.url}/completions").status_code == 405
        assert httpx.get(f"{server.url}/nothing").json()["error"]["type"] == "invalid_request_error"
        port = int(server.url.rpartition(":")[2].removesuffix("/v1"))
        with socket.create_connection(("127.0.0.1", port)) as half:  # and is gone
            half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            half.sendall(b"Content-Length: 100\r\n\r\n{")
        assert server.post("/completions", json=good).status_code == 200
        assert server.end() == (0, "")


def test_without_a_generator_or_a_chat_template_it_says_so(trained: "Registry") -> None:
    bare = trained.root / "bare"
    shutil.copytree(trained.base, bare)
    (bare / "chat_template.jinja").unlink()
    with serving(trained, "--base", bare) as server:
        client = server.client()
        with pytest.raises(openai.BadRequestError, match="no chat template"):
            client.chat.completions.create(model="bare", messages=[{"role": "user", "content": "hi"}])
        with pytest.raises(openai.NotFoundError, match="no generator is loaded"):
            client.completions.create(model=f"icm:{CAT}", prompt="one")
        assert [model.id for model in client.models.list()] == ["bare"]  # adapters of another base are not served
        assert len(client.completions.create(model="bare", prompt="one").choices[0].text) > 0


def test_a_client_that_hangs_up_makes_room(trained: "Registry", long_base: Path) -> None:
    with serving(trained, "--base", long_base, "--queue", 1) as server:
        client = server.client()
        stream = client.completions.create(model="long", stream=True, **LONG)
        next(iter(stream))
        second = server.ask({"model": "long"} | LONG)
        server.wait(lambda: server.health()["waiting"] == 1)
        with pytest.raises(openai.RateLimitError) as full:
            client.completions.create(model="long", **LONG)
        assert full.value.code == "rate_limit_exceeded"
        assert int(full.value.response.headers["retry-after"]) >= 1
        second.close()  # the one that waits hangs up: its place is free at once
        server.wait(lambda: server.health()["waiting"] == 0)
        assert server.health()["running"]
        stream.close()  # the one that is answered hangs up in the middle of its stream
        answer = client.completions.create(model="long", prompt="one two", max_tokens=4, temperature=0)
        assert answer.usage.completion_tokens == 4
        server.wait(lambda: not server.health()["running"])
        third = server.ask({"model": "long"} | LONG)  # and one that is not streamed
        server.wait(lambda: bool(server.health()["running"]))
        third.close()
        again = client.completions.create(model="long", prompt="one two", max_tokens=4, temperature=0)
        assert again.choices[0].text == answer.choices[0].text
        server.wait(lambda: server.health() == {"status": "ok", "running": False, "waiting": 0})


def test_what_is_under_way_is_finished_when_it_is_told_to_stop(trained: "Registry") -> None:
    with serving(trained, "--base", trained.base, "--grace", 100) as server:
        stream = iter(
            server.client().completions.create(
                model=trained.base.name, prompt="one", max_tokens=300, temperature=0, stream=True
            )
        )
        chunks = [next(stream)]
        server.process.send_signal(signal.SIGTERM)
        chunks += list(stream)
        assert chunks[-1].choices[0].finish_reason in ("length", "stop")
        assert server.left() == (0, "")


def test_what_would_go_on_for_ever_is_cancelled(trained: "Registry", long_base: Path) -> None:
    with serving(trained, "--base", long_base, "--grace", 1) as server:
        stream = iter(server.client().completions.create(model="long", stream=True, **LONG))
        next(stream)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: server.client().completions.create(model="long", **LONG))
            server.wait(lambda: server.health()["waiting"] == 1)
            server.process.send_signal(signal.SIGINT)
            with pytest.raises(openai.APIError, match="given up"):
                list(stream)
            assert isinstance(waiting.exception(), openai.InternalServerError)
        assert server.left() == (0, "")


def test_keys(trained: "Registry") -> None:
    Path("keys.txt").write_text("first-key\n\nsecond-key\n")
    with serving(trained, "--base", trained.base, "--api-key-file", "keys.txt") as server:
        assert server.health()["status"] == "ok"
        with pytest.raises(openai.AuthenticationError) as refused:
            server.client("third-key").models.list()
        assert refused.value.code == "invalid_api_key"
        assert [model.id for model in server.client("second-key").models.list()]
        assert server.post("/completions", json={}).status_code == 401


def test_on_this_machine_only_its_own_names_are_answered(empty: "Registry") -> None:
    def status(server: Running, **headers: str) -> int:
        return httpx.get(f"{server.url}/models", headers=headers, timeout=SECONDS).status_code

    with serving(empty, "--base", empty.base, "--allow-host", "box.lan") as server:
        assert status(server) == status(server, host="localhost:1") == status(server, host="box.lan") == 200
        assert status(server, host="evil.example") == status(server, origin="http://evil.example") == 403
    Path("keys.txt").write_text("the-key\n")
    with serving(empty, "--base", empty.base, "--api-key-file", "keys.txt") as server:  # a page cannot know the key
        assert status(server, host="evil.example", authorization="Bearer the-key") == 200


def test_files_that_run_out_are_logged_once_and_the_server_goes_on(empty: "Registry") -> None:
    few_files = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    with serving(empty, "--base", empty.base, before=few_files) as server:
        port = int(server.url.rpartition(":")[2].removesuffix("/v1"))
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        time.sleep(3)  # asyncio tries to accept again after each second
        for connection in held:
            connection.close()
        server.wait(lambda: server.health()["status"] == "ok")
        code, stderr = server.end()
        assert code == 0 and stderr.count("no connection can be taken now: Too many open files") == 1, stderr
        assert len(stderr.splitlines()) == 1, stderr


def test_faults_at_the_start(trained: "Registry") -> None:
    def refused(code: int, *arguments: object) -> str:
        return str(trained.call("serve", "--port", "0", "--device", "cpu", *arguments, code=code).stderr)

    assert "NAME=FOLDER" in refused(2, "--adapter", "x")
    assert "cannot be the name" in refused(2, "--adapter", "../x=given")
    assert "given twice" in refused(2, "--adapter", "a=b", "--adapter", "a=c")
    assert "no adapter_config.json" in refused(1, "--base", trained.base, "--adapter", "x=nowhere")
    assert "is the base itself" in refused(
        2, "--base", trained.base, "--adapter", f"{trained.base.name}={last(trained, 'always_cat')}"
    )
    assert "there is no generator" in refused(1, "-g", "nobody")
    assert "there is no file" in refused(1, "--api-key-file", "nothing")
    Path("keys.txt").write_bytes(b"first-key\nk\xe9y\n")
    assert "is not UTF-8 text" in refused(2, "--api-key-file", "keys.txt")
    Path("keys.txt").write_text("\n")
    assert "holds no key" in refused(2, "--api-key-file", "keys.txt")
    with serving(trained, "--base", trained.base) as server:
        port = server.url.rpartition(":")[2].removesuffix("/v1")
        assert "cannot listen" in refused(2, "--port", port)
