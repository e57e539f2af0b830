"""OpenAI's response bodies: whole answers, chunks of a stream, and errors."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from icmlora_cli.errors import BusyError, IcmloraError, NotFoundError, RequestError, StoppedError, UsageError
from icmlora_cli.lm.stream import StreamedText

Body = Mapping[str, object]


def error_body(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> Body:
    """Return an error in the form of OpenAI's API.

    Args:
        message: What is wrong.
        kind: OpenAI's type of the error, such as ``invalid_request_error``.
        param: The field of the request that is at fault; None if none is.
        code: OpenAI's code of the error; None if it has none.
    """
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def status_of(error: Exception) -> tuple[int, Body]:
    """Return an error's HTTP status and body, which hold no paths of this machine."""
    wrong = "invalid_request_error"
    if isinstance(error, NotFoundError):
        return 404, error_body(error.message, wrong, param="model", code="model_not_found")
    if isinstance(error, RequestError):
        return 400, error_body(error.message, wrong, param=error.param, code=error.code)
    if isinstance(error, UsageError):
        return 400, error_body(error.message, wrong, param="model")
    if isinstance(error, BusyError):
        return 429, error_body(error.message, "requests", code="rate_limit_exceeded")
    if isinstance(error, StoppedError):
        return 503, error_body(error.message, "server_error", code="server_stopping")
    message = error.message if isinstance(error, IcmloraError) else "the server failed; its log says how"
    return 500, error_body(message, "server_error")


def _usage(answer: StreamedText, prompt_tokens: int) -> Body:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": answer.tokens,
        "total_tokens": prompt_tokens + answer.tokens,
    }


class Reply(ABC):
    """Makes the response bodies of one answer.

    Args:
        model: The name of the model, as the client wrote it.
        prompt_tokens: The number of tokens of the prompt.
    """

    prefix: str
    whole_object: str
    chunk_object: str

    def __init__(self, model: str, prompt_tokens: int) -> None:
        """Draw an id for the answer, and keep the time."""
        self._prompt_tokens = prompt_tokens
        self._identity = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    @abstractmethod
    def _choice(self, text: str) -> Body:
        """Return the content of the choice in a whole answer."""

    @abstractmethod
    def _delta(self, text: str | None) -> Body:
        """Return the content of the choice in a chunk of a stream; ``text`` is None in the last one."""

    def whole(self, answer: StreamedText) -> Body:
        """Return the body of a whole answer."""
        choice = self._with_finish(self._choice(answer.text), answer.finish)
        head = {"object": self.whole_object} | self._identity
        return head | {"choices": [choice], "usage": _usage(answer, self._prompt_tokens)}

    def opening(self, *, usage: bool) -> Sequence[Body]:
        """Return the chunks that are sent before the first piece of text."""
        return ()

    def piece(self, text: str, *, usage: bool) -> Body:
        """Return the chunk of a piece of text."""
        return self._chunk([self._with_finish(self._delta(text), None)], usage)

    def ending(self, answer: StreamedText, *, usage: bool) -> Body:
        """Return the chunk that says why the answer has ended."""
        return self._chunk([self._with_finish(self._delta(None), answer.finish)], usage)

    def counts(self, answer: StreamedText) -> Body:
        """Return the chunk with the counts of tokens."""
        return dict(self._chunk([], True)) | {"usage": _usage(answer, self._prompt_tokens)}

    def _chunk(self, choices: Sequence[Body], usage: bool) -> Body:
        return (
            {"object": self.chunk_object} | self._identity | {"choices": choices} | ({"usage": None} if usage else {})
        )

    def _with_finish(self, choice: Body, finish: str | None) -> Body:
        return {"index": 0} | dict(choice) | {"logprobs": None, "finish_reason": finish}


class CompletionReply(Reply):
    """Makes the response bodies of ``/v1/completions``."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def _choice(self, text: str) -> Body:
        return {"text": text}

    def _delta(self, text: str | None) -> Body:
        return {"text": text or ""}


class ChatReply(Reply):
    """Makes the response bodies of ``/v1/chat/completions``."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def _choice(self, text: str) -> Body:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _delta(self, text: str | None) -> Body:
        return {"delta": {} if text is None else {"content": text}}

    def opening(self, *, usage: bool) -> Sequence[Body]:
        """Return the chunk that says that a message of the assistant follows."""
        choice = self._with_finish({"delta": {"role": "assistant", "content": ""}}, None)
        return (self._chunk([choice], usage),)
