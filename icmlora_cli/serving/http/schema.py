"""OpenAI's request bodies as far as they are served; what would change the answer and is not served is refused."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icmlora_cli.errors import RequestError

MAX_NAME = 4096  # characters of a model's name: a task text has 2,000 at most, once its spaces are squeezed
COMPLETION_TOKENS = 16  # of /v1/completions without max_tokens, as OpenAI's
IGNORED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
NEUTRAL: Mapping[str, tuple[object, ...]] = {  # the values that ask for nothing
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "top_logprobs": (),
    "suffix": ("",),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
Stop = Annotated[str, Field(min_length=1, max_length=256)]


class _RequestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StreamOptions(_RequestModel):
    """``stream_options``."""

    include_usage: bool = False
    include_obfuscation: bool = False  # OpenAI's padding against a listener; nothing is padded here


class GenerationBody(_RequestModel):
    """What both endpoints take."""

    model: str = Field(min_length=1, max_length=MAX_NAME)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(GenerationBody):
    """The body of ``/v1/completions``."""

    prompt: str | list[int] | Annotated[list[str], Field(min_length=1, max_length=1)]

    @property
    def given(self) -> str | list[int]:
        """The prompt as a text, or as tokens."""
        if isinstance(self.prompt, str):
            return self.prompt
        texts = [item for item in self.prompt if isinstance(item, str)]
        return texts[0] if texts else [item for item in self.prompt if isinstance(item, int)]


class ContentPart(_RequestModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(_RequestModel):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | list[ContentPart]

    @property
    def text(self) -> str:
        """Its content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(GenerationBody):
    """The body of ``/v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


T = TypeVar("T", bound=GenerationBody)


def completion(body: object) -> CompletionBody:
    """Return the body of a completion.

    Raises:
        RequestError: if it cannot be served.
    """
    return _read(CompletionBody, body)


def chat(body: object) -> ChatBody:
    """Return the body of a chat completion.

    Raises:
        RequestError: if it cannot be served.
    """
    return _read(ChatBody, body)


def _read(kind: type[T], body: object) -> T:
    if not isinstance(body, dict):
        raise RequestError("the body is not a JSON object")
    for name in NEUTRAL.keys() & body.keys():
        value = body[name]
        if value is not None and not any(type(value) is type(item) and value == item for item in NEUTRAL[name]):
            raise RequestError(f"this server does not do {name!r}: leave it out", param=name)
    kept = {name: value for name, value in body.items() if name not in IGNORED and name not in NEUTRAL}
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(item) for item in first["loc"])
        param = str(first["loc"][0]) if first["loc"] else None
        raise RequestError(f"{place}: {first['msg']}", param=param) from error
