"""The ``push`` workflow: sends an adapter, a merged model or a generator to the hub, in one commit."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it names no exports
from huggingface_hub.utils.tqdm import disable_progress_bars

from icmlora_cli.errors import PushRefusedError, UsageError
from icmlora_cli.workflows.base.pull import offline_by_environment
from icmlora_cli.workflows.progress import OnProgress, Progress, silent
from icmlora_cli.workflows.push.plan import PushFile, PushPlan, plan

__all__ = ["PushFile", "PushPlan", "PushResult", "PushTarget", "plan", "ready", "run"]

MAIN = constants.DEFAULT_REVISION
BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
AGAIN = "check the network and the name, then push again: what the hub has already is not sent twice"
LOGIN = "hf auth login   (with a token that may write: https://huggingface.co/settings/tokens)"


@dataclass(frozen=True)
class PushTarget:
    """The repository and branch of the hub to which an output is sent.

    Args:
        repo_id: The repository, ``namespace/name``; a name alone takes the namespace of the token's owner.
        private: Whether the repository must be private: a new one becomes so, and an existing public one is refused.
        revision: The branch, which is made where it does not exist.
        message: The message of the commit; None says what kind of output was sent.
    """

    repo_id: str
    private: bool = False
    revision: str = MAIN
    message: str | None = None

    def check(self) -> None:
        """Check the names of repository and branch, and the message.

        Raises:
            UsageError: If the hub cannot have such a repository or branch, or the message is blank.
        """
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise UsageError(str(error), hint="icmlora push out/ NAME, or NAMESPACE/NAME") from error
        if not BRANCH.fullmatch(self.revision) or ".." in self.revision:
            raise UsageError(f"{self.revision[:100]!r} cannot be a branch", hint="--revision main")
        if self.message is not None and not self.message.strip():
            raise UsageError("--message is empty", hint='--message "what is new"')


@dataclass(frozen=True)
class PushResult:
    """The repository as it is after a push.

    Args:
        repo_id: The repository, ``namespace/name``.
        url: The address of the repository.
        commit: The hash of the commit, or of the last one where nothing had changed.
        private: Whether the repository is private.
    """

    repo_id: str
    url: str
    commit: str
    private: bool


def ready() -> str:
    """Return the token of the hub.

    Raises:
        PushRefusedError: If offline mode is on, or there is no token.
    """
    if offline_by_environment() or constants.is_offline_mode():
        raise PushRefusedError(
            "offline mode is on, and a push needs the hub",
            where="HF_HUB_OFFLINE",
            hint="unset HF_HUB_OFFLINE, or see with --dry-run what would be sent",
        )
    token = get_token()
    if not token:
        raise PushRefusedError(
            "there is no token for the hub on this machine", where=constants.HF_TOKEN_PATH, hint=LOGIN
        )
    return token


def run(planned: PushPlan, target: PushTarget, *, on_progress: OnProgress = silent) -> PushResult:
    """Send an output to the hub.

    Args:
        planned: What is sent, as ``plan`` returned it.
        target: The repository and branch.
        on_progress: Called at each of the four steps.

    Raises:
        PushRefusedError: If offline mode is on, there is no token, or the hub refuses or is out of reach.
        UsageError: If the hub cannot have such a repository or branch.
    """
    target.check()
    token = ready()
    disable_progress_bars()
    api = HfApi(token=token)
    with _hub_errors(api.endpoint):
        on_progress(Progress("push", "sign in", 0, 4))
        repo_id = _full(api, target.repo_id)
        on_progress(Progress("push", repo_id, 1, 4))
        url = api.create_repo(repo_id, private=target.private, exist_ok=True)
        private = bool(api.model_info(repo_id).private)
        if target.private and not private:
            raise PushRefusedError(
                f"{repo_id} is there already, and public",
                where=str(url),
                hint="name another repository, make that one private on the hub, or leave out --private",
            )
        if target.revision != MAIN:
            api.create_branch(repo_id, branch=target.revision, exist_ok=True)
        on_progress(Progress("push", f"send {len(planned.files)} files", 2, 4))
        message = target.message or f"Upload {'merged model' if planned.kind == 'merged' else planned.kind}"
        commit = api.create_commit(
            repo_id, _operations(planned.files), commit_message=message, revision=target.revision
        )
        on_progress(Progress("push", repo_id, 4, 4))
    return PushResult(repo_id, str(url), commit.oid, private)


def _full(api: HfApi, repo_id: str) -> str:
    """Return the repository's id with its namespace; this also checks the token."""
    name = api.whoami().get("name")
    return repo_id if "/" in repo_id else f"{name}/{repo_id}"


def _operations(sent: tuple[PushFile, ...]) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(item.name, os.fspath(item.path) if item.data is None else item.data) for item in sent]


@contextmanager
def _hub_errors(endpoint: str) -> Iterator[None]:
    """Turn the errors of the hub's client into a PushRefusedError that says what to do."""
    # httpx's base error, found this way since its module differs between releases
    http_error = next(kind for kind in HfHubHTTPError.__bases__ if issubclass(kind, Exception))
    try:
        yield
    except PushRefusedError:
        raise
    except HfHubHTTPError as error:
        code = error.response.status_code
        hint = {401: LOGIN, 403: f"ask for the right to write there, or: {LOGIN}", 429: "wait a while"}.get(code)
        if isinstance(error, RevisionNotFoundError):
            hint = "--revision main"
        raise PushRefusedError(f"the hub refuses: {_first(error)}", where=endpoint, hint=hint or AGAIN) from error
    except (http_error, OSError, RuntimeError, ValueError) as error:
        raise PushRefusedError(f"the push failed: {_first(error)}", where=endpoint, hint=AGAIN) from error


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)}"[:400]
