"""Push, in a process of its own, to a hub that runs on this machine: what arrives, and what never leaves."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from safetensors.torch import load
from typer.testing import CliRunner, Result

import icmlora_cli
from icmlora_cli.cli.app import app
from icmlora_cli.disk import checksums
from icmlora_cli.manifests.generator import GeneratorManifest
from icmlora_cli.registry.upkeep import checks
from tests.cli.conftest import Registry, _one_thread, _write
from tests.fake_hub import TOKEN, FakeHub, fake_hub

BASE, CAT = "tests/tiny", "Always answer with cat, not with /usr/bin/cat."
OFF = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT")


@dataclass(frozen=True)
class Pushing:
    """Outputs of a base that the hub knows, and the hub.

    Args:
        root: holds ``out`` (an adapter), ``whole`` (a merged model) and the registry with the generator ``mine``.
        hub: the hub.
    """

    root: Path
    hub: FakeHub

    @property
    def generator(self) -> Path:
        """The generator's folder."""
        return self.root / "icmlora-home" / "generators" / "mine"

    def environment(self, **changed: str | None) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in OFF}
        own: dict[str, str | None] = {
            "PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1]),
            "ICMLORA_HOME": str(self.root / "icmlora-home"),
            "ICMLORA_CACHE": str(self.root / "icmlora-cache"),
            "HF_HOME": str(self.root / "hf"),
            "HF_ENDPOINT": self.hub.address,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
        }
        return kept | {name: value for name, value in (own | changed).items() if value is not None}

    def run(self, *arguments: object, code: int = 0, **changed: str | None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "icmlora_cli", "push", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment(**changed), cwd=self.root, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: object, code: int = 0, **changed: str | None) -> dict[str, Any]:
        value = json.loads(self.run(*arguments, "--json", code=code, **changed).stdout)
        assert isinstance(value, dict)
        return value

    def failed(self, *arguments: object, **changed: str | None) -> str:
        """Run what has to fail before anything is sent, and return what is told."""
        error = self.json(*arguments, "--yes", code=1, **changed)["error"]
        assert not any(call.startswith(("PUT", "POST")) for call in self.hub.calls)
        return f"{error['kind']}: {error['message']}; {error['hint']}"

    def refused(self, *arguments: object, code: int = 1) -> str:
        """Check, in this process, what has to be refused without a hub, and return what is told."""
        result = CliRunner().invoke(app, ["push", *map(str, arguments), "--dry-run", "--json"])
        assert isinstance(result.exception, SystemExit) and result.exit_code == code, result.output
        error = json.loads(result.stdout)["error"]
        return f"{error['kind']}: {error['message']}; {error['hint']}"

    def listed(self, *arguments: object) -> Result:
        """Do a dry run in this process."""
        result = CliRunner().invoke(app, ["push", *map(str, arguments), "--dry-run"])
        assert result.exit_code == 0, result.output
        return result


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory, tiny_bases: dict[str, Path]) -> Path:
    """Outputs of a base with a hub's name: a snapshot in the hub client's own cache."""
    cached = Path(constants.HF_HUB_CACHE) / "models--tests--tiny"
    shutil.copytree(tiny_bases["llama"], cached / "snapshots" / ("a" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a" * 40)
    registry = Registry(tmp_path_factory.mktemp("push"), tiny_bases["llama"])
    _write(registry.root)
    with _one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(registry.root)
        for name in ("ICMLORA_HOME", "ICMLORA_CACHE"):
            patch.setenv(name, registry.environment[name])
        registry.call("task", "add", "tasks.yaml")
        registry.call("harvest", "--base", BASE, "--recipe", "harvest.yaml")
        secret = str(registry.root / "train.yaml")
        patch.setattr(sys, "argv", ["/secret/bin/icmlora", "train", "--recipe", secret, f"--log-with={secret}"])
        registry.call("train", "--base", BASE, "--recipe", secret, "--name", "mine")
        patch.setattr(sys, "argv", ["/secret/bin/icmlora", "gen", CAT, "-o", str(registry.root / "out")])
        registry.call("gen", CAT, "-o", registry.root / "out", "--generator", "mine")
        registry.call("gen", CAT, "-o", "whole", "--generator", "mine", "--merge")
        registry.call("gen", CAT, "-o", "gguf", "--generator", "mine", "--format", "gguf")
        registry.call("adapter", "export", "always_cat", "-o", "kept")
    shutil.rmtree(registry.root / "icmlora-cache")
    return registry.root


@pytest.fixture
def pushing(_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pushing]:
    root = tmp_path / "copy"
    shutil.copytree(_made, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("ICMLORA_HOME", str(root / "icmlora-home"))
    with fake_hub() as hub:
        yield Pushing(root, hub)


def edit(path: Path, **changed: object) -> None:
    value = json.loads(path.read_text(encoding="utf-8")) | changed
    path.write_text(json.dumps(value), encoding="utf-8")


def test_an_adapter_arrives_whole(pushing: Pushing) -> None:
    (pushing.root / "out" / "notes.txt").write_text("mine")
    done = pushing.json("out", "me/antonyms", "--private", "--yes", "-m", "first")
    repository = pushing.hub.repositories["me/antonyms"]
    sent = repository.branches["main"]
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "icmlora.json"}
    assert set(sent) == names == {item["name"] for item in done["files"]} and done["left"] == ["notes.txt"]
    for name in names - {"icmlora.json"}:
        assert sent[name] == (pushing.root / "out" / name).read_bytes()
    assert repository.private and done["private"] and repository.messages == ["first"]
    assert done["url"] == f"{pushing.hub.address}/me/antonyms" and len(done["commit"]) == 40
    assert sum(map(len, sent.values())) == done["bytes"]
    assert ModelCard(sent["README.md"].decode()).data.base_model == BASE


def test_no_path_of_this_machine_is_sent(pushing: Pushing) -> None:
    manifest = pushing.root / "out" / "icmlora.json"
    written = json.loads(manifest.read_bytes())
    assert written["command"] == f"icmlora gen '{CAT}' -o out"  # no folder is written down in the first place
    hostile = "/home/Jane Doe/My (old) Loras/O'Brien, x/out"  # as a version that wrote paths down would have it
    written["sources"][0]["source"] = f"imported from {hostile}"
    written["command"] = shlex.join(["icmlora", "gen", CAT, "-o", hostile, f"--examples={hostile}"])
    manifest.write_text(json.dumps(written), encoding="utf-8")
    before = manifest.read_bytes()
    done = pushing.json("out", "antonyms", "--yes")
    sent = pushing.hub.repositories["me/antonyms"].branches["main"]
    about = json.loads(sent["icmlora.json"])
    assert about["command"] == f"icmlora gen '{CAT}' -o out --examples=out" and about["task_text"] == CAT
    assert done["shortened"] == ["icmlora.json"] and done["repo_id"] == "me/antonyms"
    kept = json.loads(before)
    assert {key for key in kept if kept[key] != about[key]} == {"command", "sources"}
    for name, data in sent.items():
        assert not any(part in data for part in (b"Jane", b"My (old)", b"Brien", b"/home")), name
    assert (pushing.root / "out" / "icmlora.json").read_bytes() == before


def test_a_generator_goes_by_its_name_and_is_whole_where_it_arrives(pushing: Pushing, tmp_path: Path) -> None:
    pushing.run("mine", "me/maker", "--yes")
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, data in pushing.hub.repositories["me/maker"].branches["main"].items():
        (folder / name).write_bytes(data)
    assert checks.generator_flaws(folder) == []
    sent = checksums.read_checked(folder / "generator.json", GeneratorManifest.known_keys())
    assert sent["command"] == "icmlora train --recipe train.yaml --log-with=train.yaml"
    assert load((folder / "generator.safetensors").read_bytes())


def test_an_edited_card_is_sent_and_the_generator_stays_whole(pushing: Pushing, tmp_path: Path) -> None:
    card = pushing.generator / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nMore.\n", encoding="utf-8")
    pushing.run("mine", "me/maker", "--yes")
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, data in pushing.hub.repositories["me/maker"].branches["main"].items():
        (folder / name).write_bytes(data)
    assert checks.generator_flaws(folder) == [] and b"More." in (folder / "README.md").read_bytes()


def test_a_merged_model_on_a_branch(pushing: Pushing) -> None:
    pushing.run("whole", "me/model", "--yes", "--revision", "v1")
    branches = pushing.hub.repositories["me/model"].branches
    assert {"config.json", "model.safetensors", "tokenizer.json", "icmlora.json", "README.md"} <= set(branches["v1"])
    assert branches["main"] == {} and not pushing.hub.repositories["me/model"].private
    pushing.run("whole", "me/model", "--yes", "--revision", "v1")  # both are there already
    assert pushing.hub.repositories["me/model"].messages == ["Upload merged model"] * 2


def test_a_dry_run_needs_neither_hub_nor_token(pushing: Pushing) -> None:
    told = pushing.run("out", "me/x", "--dry-run", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN=None, HF_HUB_OFFLINE="1")
    for words in ("adapter_model.safetensors", "8,192", "me/x (public), branch main", "4 files, "):
        assert words in told.stdout
    assert pushing.hub.calls == []


def test_what_a_dry_run_tells(pushing: Pushing) -> None:
    assert "private" in pushing.listed("out", "me/x", "--private").stdout
    done = json.loads(pushing.listed("out", "me/x", "--json").stdout)
    assert done["dry_run"] and done["commit"] is None and done["kind"] == "adapter"
    assert pushing.listed("mine", "me/x", "-q").stdout.splitlines()[0].startswith("README.md\t")


def test_gguf_and_an_exported_adapter_are_known(pushing: Pushing) -> None:
    done = json.loads(pushing.listed("gguf", "me/x", "--json").stdout)
    assert done["kind"] == "gguf" and done["left"] == []
    assert {item["name"] for item in done["files"]} == {"README.md", "icmlora.json", "adapter.gguf"}
    done = json.loads(pushing.listed("kept", "me/x", "--json").stdout)
    assert done["kind"] == "adapter" and done["left"] == [] and len(done["files"]) == 4
    with Path("gguf/adapter.gguf").open("ab") as file:
        file.write(b"more")
    assert "another SHA-256" in pushing.refused("gguf", "me/x")


def test_nothing_is_sent_unasked(pushing: Pushing) -> None:
    error = pushing.json("out", "me/x", code=2)["error"]
    assert "nobody can be asked" in error["message"] and "--yes" in error["hint"] and pushing.hub.calls == []


def test_without_a_token_or_a_network(pushing: Pushing) -> None:
    assert "no token" in (told := pushing.failed("out", "me/x", HF_TOKEN=None)) and "hf auth login" in told
    assert "offline mode is on" in (told := pushing.failed("out", "me/x", HF_HUB_OFFLINE="1")) and "--dry-run" in told
    assert "the push failed" in pushing.failed("out", "me/x", HF_ENDPOINT="http://127.0.0.1:9")
    told = pushing.failed("out", "me/x", HF_TOKEN="hf_bad")
    assert "the hub refuses" in told and "hf auth login" in told


def test_what_the_hub_refuses_is_told(pushing: Pushing) -> None:
    pushing.hub.forbidden.add("them/x")
    told = pushing.json("out", "them/x", "--yes", code=1)["error"]
    assert told["kind"] == "PushRefusedError" and "rights" in told["message"] and "right to write" in told["hint"]
    assert pushing.hub.blobs == {}


def test_a_public_repository_is_no_place_for_what_is_to_be_private(pushing: Pushing) -> None:
    pushing.run("out", "me/x", "--yes")
    before = dict(pushing.hub.repositories["me/x"].branches["main"])
    error = pushing.json("whole", "me/x", "--yes", "--private", code=1)["error"]
    assert "public" in error["message"] and pushing.hub.repositories["me/x"].branches["main"] == before


@pytest.mark.parametrize("name", ["a/b/c", "../x", "me/..", "me/a--b", "me/x.git", "me/\x1b[31m", "x" * 97, "", "me/ü"])
def test_bad_repository_names(pushing: Pushing, name: str) -> None:
    assert "UsageError" in pushing.refused("out", name, code=2)


@pytest.mark.parametrize("branch", ["", "a b", "../x", "a\nb", "-x", "a" * 300])
def test_bad_branches(pushing: Pushing, branch: str) -> None:
    assert "cannot be a branch" in pushing.refused("out", "me/x", f"--revision={branch}", code=2)


def test_folders_that_are_nothing_of_icmloras(pushing: Pushing) -> None:
    (pushing.root / "empty").mkdir()
    (pushing.root / "many").mkdir()
    shutil.copytree(pushing.root / "out", pushing.root / "many" / "cat")
    assert "NotFoundError" in pushing.refused("empty", "me/x")
    assert "many/cat" in pushing.refused("many", "me/x")
    assert "mine" in pushing.refused("gone", "me/x")


def test_damaged_outputs(pushing: Pushing) -> None:
    weights = pushing.root / "out" / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "another SHA-256" in pushing.refused("out", "me/x")
    weights.unlink()
    assert "is missing" in pushing.refused("out", "me/x")
    (pushing.root / "whole" / "config.json").unlink()
    assert "config.json is missing" in pushing.refused("whole", "me/x")
    edit(pushing.generator / "generator.json", rank=3)
    assert "checksum" in pushing.refused("mine", "me/x")


def test_an_output_of_before_files_were_listed(pushing: Pushing) -> None:
    path = pushing.root / "out" / "icmlora.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    del about["files"]
    path.write_text(json.dumps(about), encoding="utf-8")
    assert len(json.loads(pushing.listed("out", "me/x", "--json").stdout)["files"]) == 4
    (pushing.root / "out" / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
    assert "CorruptFileError" in pushing.refused("out", "me/x")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "state.pt", "x.PKL"])
def test_pickles(pushing: Pushing, name: str) -> None:
    (pushing.root / "out" / "inner").mkdir()
    (pushing.root / "out" / "inner" / name).write_bytes(b"x")
    assert "pickle" in pushing.refused("out", "me/x")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("license: unknown", "license: mine"), "none that the hub knows"),
        (("license: unknown", "license: other"), "does not say which"),
        (("base_model: tests/tiny", "base_model: /home/me/model"), "id of a model"),
        (("base_model: tests/tiny\n", ""), "id of a model"),
        (("tags:", "tags: !!python/object/apply:os.system ['true']\nx:"), "cannot be read"),
        (("license: unknown", "- license"), "cannot be read"),
        (("# A generated LoRA adapter", "See /home/me/notes.md"), "names a path of this machine"),
    ],
)
def test_cards_that_are_not_fit(pushing: Pushing, change: tuple[str, str], told: str) -> None:
    card = pushing.root / "out" / "README.md"
    text = card.read_text(encoding="utf-8")
    assert change[0] in text
    card.write_text(text.replace(*change), encoding="utf-8")
    assert told in pushing.refused("out", "me/x")


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "adapter_model.safetensors"])
def test_links_lead_nowhere(pushing: Pushing, name: str) -> None:
    path, elsewhere = pushing.root / "out" / name, pushing.root / "elsewhere"
    path.touch()
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert f"{name} is a link to" in pushing.refused("out", "me/x")


def test_no_card(pushing: Pushing) -> None:
    (pushing.root / "out" / "README.md").unlink()
    assert "there is no README.md" in pushing.refused("out", "me/x")


def test_a_base_or_setting_that_is_a_path_of_this_machine(pushing: Pushing) -> None:
    config, about = pushing.root / "out" / "adapter_config.json", pushing.root / "out" / "icmlora.json"
    value = json.loads(about.read_text(encoding="utf-8"))
    edit(about, files=None, base=value["base"] | {"model_id": "/home/me/model"})
    assert "nobody else can load" in pushing.refused("out", "me/x")
    edit(about, base=value["base"])
    edit(config, base_model_name_or_path="C:\\models\\tiny")
    assert "nobody else can load" in pushing.refused("out", "me/x")
    edit(config, base_model_name_or_path=BASE, auto_mapping={"parent_library": "/home/me/lib"})
    assert "auto_mapping.parent_library" in pushing.refused("out", "me/x")


def test_licences_that_forbid_derivatives_are_told(pushing: Pushing) -> None:
    edit(pushing.root / "out" / "icmlora.json", licences=["CC-BY-ND-4.0"])
    done = pushing.listed("out", "me/x", "--json")
    assert json.loads(done.stdout)["no_derivatives"] == ["CC-BY-ND-4.0"] and "forbid derivatives" in done.stderr
