"""The fields of OpenAI's request bodies that are served.

Fields that would change the answer and are not served are refused; those that do not change it are ignored.
"""

import json
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import ErrorDetails

from icmlora_cli.disk.files import is_object
from icmlora_cli.errors import RequestError

MAX_NAME = 4096  # characters of a model's name; a task text has at most 2,000 once runs of spaces count as one
MAX_MESSAGES = 2048  # messages in a conversation
MAX_PARTS = 256  # parts in a message
MAX_DEPTH = 64  # levels of lists and objects in a body
LONGEST_NUMBER = 400  # digits of a whole number; a longer one is read as infinity, which its field refuses
COMPLETION_TOKENS = 16  # tokens of a completion without max_tokens, as in OpenAI's API


def _off(value: bool) -> bool:
    if value:
        raise ValueError("not served")
    return value


def _unicode(value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON may contain half a surrogate pair, which no tokenizer can read
        raise ValueError("a half of a surrogate pair is not text") from error
    return value


Text = Annotated[str, AfterValidator(_unicode)]
One = Annotated[int, Field(ge=1, le=1)]
Off = Annotated[bool, AfterValidator(_off)]
Zero = Annotated[float, Field(ge=0, le=0)]
EmptyText = Annotated[str, Field(max_length=0)]
EmptyList = Annotated[list[JsonValue], Field(max_length=0, fail_fast=True)]
Stop = Annotated[Text, Field(min_length=1, max_length=256)]


class RequestModel(BaseModel):
    """The base class of all that is read from a request: unknown keys and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(RequestModel):
    """The field ``stream_options``."""

    include_usage: bool = False
    include_obfuscation: bool = False  # asks for padding that hides lengths from a listener; ignored here


class ResponseFormat(RequestModel):
    """The field ``response_format``."""

    type: Literal["text"]


class IgnoredFields(RequestModel):
    """The fields that do not change an answer; they may have any value."""

    user: object = None
    metadata: object = None
    store: object = None
    service_tier: object = None
    safety_identifier: object = None
    prompt_cache_key: object = None


class UnservedFields(RequestModel):
    """The fields that would change an answer and are not served; only values that change nothing are allowed."""

    n: One | None = None
    best_of: One | None = None
    echo: Off | None = None
    logprobs: Off | None = None
    top_logprobs: None = None
    suffix: EmptyText | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, JsonValue], Field(max_length=0)] | None = None
    tools: EmptyList | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    functions: EmptyList | None = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None


class GenerationBody(IgnoredFields, UnservedFields):
    """The fields that both endpoints take."""

    model: Text = Field(min_length=1, max_length=MAX_NAME)
    max_tokens: int | None = Field(default=None, ge=1, lt=2**63)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts before which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wanted_tokens(self) -> int | None:
        """The most tokens that the answer may have; None if the body does not say."""
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(GenerationBody):
    """The body of ``/v1/completions``."""

    prompt: (
        Text
        | Annotated[list[int], Field(fail_fast=True)]
        | Annotated[list[Text], Field(min_length=1, max_length=1, fail_fast=True)]
    )

    @property
    def text_or_ids(self) -> str | list[int]:
        """The prompt as a text, or as tokens."""
        if isinstance(self.prompt, str):
            return self.prompt
        texts = [item for item in self.prompt if isinstance(item, str)]
        return texts[0] if texts else [item for item in self.prompt if isinstance(item, int)]


class ContentPart(RequestModel):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class ChatMessage(RequestModel):
    """A message of a conversation; messages from this server or from OpenAI's may be sent back unchanged."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    name: str | None = None
    refusal: Text | None = None
    annotations: EmptyList | None = None
    tool_calls: EmptyList | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        """Drop keys whose value is null: clients send messages back with all keys that they know."""
        return {key: item for key, item in value.items() if item is not None} if is_object(value) else value

    @model_validator(mode="after")
    def _says_something(self) -> "ChatMessage":
        if self.content is None and (self.role != "assistant" or self.refusal is None):
            raise ValueError("content is missing")
        return self

    def as_template_message(self) -> dict[str, str]:
        """Return the message as chat templates take it, with one text; the role ``developer`` becomes ``system``."""
        content = self.refusal or "" if self.content is None else self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatBody(GenerationBody):
    """The body of ``/v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=2**63)

    @property
    def wanted_tokens(self) -> int | None:
        """The most tokens that the answer may have; None if the body does not say."""
        return self.max_completion_tokens or self.max_tokens


BodyT = TypeVar("BodyT", bound=RequestModel)


def parse(kind: type[BodyT], data: bytes) -> BodyT:
    """Return the body of a request, checked.

    Args:
        kind: The model of the endpoint's body.
        data: The bytes of the body, which should be JSON.

    Raises:
        RequestError: If the body is not JSON, or has fields that are wrong or not served.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {str(error)[:200]}") from error
    _check_depth(value)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _request_error(error, value) from error


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_NUMBER else float(digits)


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if is_object(item) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise RequestError(f"the body is nested deeper than {MAX_DEPTH} levels")


def _request_error(error: ValidationError, body: object) -> RequestError:
    """Return the fault that lies deepest in the body, with its field, in the form of OpenAI's API."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    path, fault = max(((_path(item, body), item) for item in faults), key=lambda pair: len(pair[0]))
    if not path:
        return RequestError("the body is not a JSON object")
    field, place = path[0], ".".join(path)
    if field in UnservedFields.model_fields:
        return RequestError(f"this server does not do {field!r}: leave it out", param=field)
    if fault["type"] == "extra_forbidden":
        return RequestError(f"this server does not know {place!r}: leave it out", param=field)
    return RequestError(f"{place}: {fault['msg'].removeprefix('Value error, ')}", param=field)


def _path(fault: ErrorDetails, body: object) -> list[str]:
    """Return the keys in the body that lead to a fault, without the names of union types that pydantic adds."""
    path, value = [], body
    for step in fault["loc"]:
        if isinstance(value, list):
            if not isinstance(step, int):
                continue
            value = value[step]
        elif is_object(value) and step in value:
            value = value[step]
        elif not is_object(value) or fault["type"] != "missing":
            continue
        path.append(str(step).encode("utf-8", "backslashreplace").decode("utf-8")[:80])
    return path
