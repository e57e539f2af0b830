"""The bodies of the playground's requests."""

from typing import Annotated, Literal

from pydantic import Field

from icmlora_cli.serving.http.schema import RequestModel, Text
from icmlora_cli.serving.play.playground import MAX_ANSWER, MAX_BUDGET, MakeRequest, Question

TemplateName = Literal["qa", "chat", "text"]
Id = Annotated[str, Field(max_length=64)]


class MakeBody(RequestModel):
    """The body of ``make``; ``budget`` is in seconds."""

    text: Text
    examples: Text = ""
    budget: float = Field(default=60.0, ge=1, le=MAX_BUDGET)
    template: TemplateName = "qa"

    def as_request(self) -> MakeRequest:
        """Return the request in the playground's form."""
        return MakeRequest(self.text, self.examples, self.budget, self.template)


class AskBody(RequestModel):
    """The body of ``ask``; at most one of ``made`` and ``task`` names an adapter."""

    input: Text
    text: Text = ""
    made: Id | None = None
    task: Text | None = None
    template: TemplateName = "qa"
    max_tokens: int = Field(default=48, ge=1, le=MAX_ANSWER)

    def as_question(self) -> Question:
        """Return the question in the playground's form."""
        task = self.task if self.made is None else None
        return Question(self.input, self.text, self.made, task, self.template, self.max_tokens)
