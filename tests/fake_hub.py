"""A hub on this machine: an HTTP server that speaks what the client calls to make a repository and commit to it."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_good"


@dataclass
class Repository:
    """What the hub holds of one repository: branch to name to bytes, and the messages of its commits."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    messages: list[str] = field(default_factory=list)


@dataclass
class FakeHub:
    """The hub's state.

    Args:
        address: what ``HF_ENDPOINT`` is set to.
        repositories: by id.
        blobs: large files that were sent, by SHA-256.
        calls: method and path of each request, in order.
        forbidden: ids that the token may not write to.
    """

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.calls.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        if self.command != "PUT" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid username or password."})
        for command, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and command == self.command:
                return self._send(*answer(self.hub, body, *match.groups()))
        return self._send(404, {"error": f"no {path}"})

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, code: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


Answer = tuple[int, dict[str, Any]]


def _whoami(hub: FakeHub, body: bytes) -> Answer:
    return 200, {"type": "user", "name": "me", "fullname": "Me", "orgs": [], "auth": {"type": "access_token"}}


def _create(hub: FakeHub, body: bytes) -> Answer:
    asked = json.loads(body)
    repo = f"{asked['organization'] or 'me'}/{asked['name']}"
    url = f"{hub.address}/{repo}"
    if repo in hub.forbidden:
        return 403, {"error": "You don't have the rights to create a model under this namespace"}
    if repo in hub.repositories:
        return 409, {"error": "You already created this model repo", "url": url}
    hub.repositories[repo] = Repository(asked.get("visibility") == "private" or bool(asked.get("private")))
    return 200, {"url": url, "name": repo, "id": repo}


def _info(hub: FakeHub, body: bytes, repo: str) -> Answer:
    if repo not in hub.repositories:
        return 404, {"error": "Repository not found"}
    value = {"id": repo, "modelId": repo, "sha": "0" * 40, "private": hub.repositories[repo].private}
    return 200, value | {"siblings": [], "tags": [], "downloads": 0, "likes": 0}


def _validate(hub: FakeHub, body: bytes) -> Answer:
    return 200, {"errors": [], "warnings": []}


def _preupload(hub: FakeHub, body: bytes, repo: str, branch: str) -> Answer:
    files = [
        {"path": item["path"], "uploadMode": "lfs" if item["path"].endswith(".safetensors") else "regular"}
        | {"shouldIgnore": False}
        for item in json.loads(body)["files"]
    ]
    return 200, {"files": files}


def _batch(hub: FakeHub, body: bytes, repo: str) -> Answer:
    objects = [
        item | {"actions": {"upload": {"href": f"{hub.address}/lfs/{item['oid']}", "header": {}}}}
        for item in json.loads(body)["objects"]
    ]
    return 200, {"transfer": "basic", "objects": objects}


def _put(hub: FakeHub, body: bytes, oid: str) -> Answer:
    assert hashlib.sha256(body).hexdigest() == oid
    hub.blobs[oid] = body
    return 200, {}


def _branch(hub: FakeHub, body: bytes, repo: str, branch: str) -> Answer:
    branches = hub.repositories[repo].branches
    if branch in branches:
        return 409, {"error": "Reference already exists"}
    branches[branch] = dict(branches["main"])
    return 200, {}


def _commit(hub: FakeHub, body: bytes, repo: str, branch: str) -> Answer:
    found = hub.repositories[repo]
    if branch not in found.branches:
        return 404, {"error": "no such branch"}
    for line in body.decode().splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            found.messages.append(value["summary"])
        elif item["key"] == "file":
            found.branches[branch][value["path"]] = base64.b64decode(value["content"])
        else:
            found.branches[branch][value["path"]] = hub.blobs[value["oid"]]
    oid = hashlib.sha1(body).hexdigest()
    return 200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.address}/{repo}/commit/{oid}"}


_REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    ("GET", r"/api/whoami-v2", _whoami),
    ("POST", r"/api/repos/create", _create),
    ("GET", rf"/api/models/{_REPO}", _info),
    ("POST", r"/api/validate-yaml", _validate),
    ("POST", rf"/api/models/{_REPO}/preupload/([^/]+)", _preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _put),
    ("POST", rf"/api/models/{_REPO}/branch/([^/]+)", _branch),
    ("POST", rf"/api/models/{_REPO}/commit/([^/]+)", _commit),
)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Run a hub while the body runs."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
