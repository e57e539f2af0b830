"""What the playground's page can ask for: make an adapter, ask the base with and without it, look around.

Whatever needs the base is an ``EngineTask``, which waits for its turn among the engine's requests. It reports events as
dictionaries in JSON's types, whose key ``event`` says what they are.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Literal

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import NotFoundError, RequestError, StoppedError, UsageError
from icmlora_cli.lm.stream import Sampling
from icmlora_cli.registry.task_record import PromptTemplate
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.report.html import html_report
from icmlora_cli.report.result import Result
from icmlora_cli.report.shown import visible
from icmlora_cli.serving.engine import Engine, EngineTask, GenerationRequest
from icmlora_cli.serving.names import PREFIX
from icmlora_cli.serving.play.browse import Catalogue
from icmlora_cli.serving.play.made import MadeAdapter, MadeAdapters
from icmlora_cli.serving.play.pasted import read_pasted
from icmlora_cli.serving.sources import AdapterSource
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_text import MAX_TEXT, checked_text
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.apply import placed
from icmlora_cli.workflows.gen.explain import Explanation, Seen, explain, learned_texts, read_seen
from icmlora_cli.workflows.gen.generator import AdapterGenerator
from icmlora_cli.workflows.gen.options import GenInputs, GenOptions, Template
from icmlora_cli.workflows.gen.select import rows_of
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

Column = Literal["base", "described", "adapter"]
Event = Mapping[str, object]
Report = Callable[[object], None]
Cancelled = Callable[[], bool]
MAX_BUDGET = 600.0  # seconds for the examples; a longer search is for icmlora gen
MAX_ANSWER = 512  # tokens of one answer


@dataclass(frozen=True)
class MakeRequest:
    """What an adapter is to be made of.

    Args:
        text: The task in words.
        examples: Examples as they were pasted; empty for none.
        budget: The seconds that may be spent on the examples.
        template: The template by which the examples become prompts.
    """

    text: str
    examples: str = ""
    budget: float = 60.0
    template: Template = "qa"


@dataclass(frozen=True)
class Question:
    """An input that is to be answered in three ways.

    Args:
        input: The input.
        text: The task in words, for the base that is told it; empty leaves that answer out.
        made: The random name of an adapter that was made on the page; None takes that of ``task``.
        task: The name of a registered task, whose adapter and template are taken; None takes that of ``made``.
        template: The template by which the input becomes a prompt; a registered task has its own.
        max_tokens: The most tokens of each answer.
    """

    input: str
    text: str = ""
    made: str | None = None
    task: str | None = None
    template: Template = "qa"
    max_tokens: int = 48


class Playground:
    """What the page can ask of an engine that has a generator.

    Args:
        engine: The engine.
        home: The registry.
        result: An evaluation to show; None for none.
    """

    def __init__(self, engine: Engine, home: Home, result: Result | None = None) -> None:
        """Keep the engine and its generator."""
        if engine.adapter_generator is None:
            raise UsageError("the playground needs a generator", hint="--generator default")
        self.engine, self.home, self.result = engine, home, result
        self._generator = replace(engine.adapter_generator, on_progress=silent)
        self.made = MadeAdapters(engine.settings.max_adapters)
        self.catalogue = Catalogue(home, engine.loaded.base, self._generator.generator)
        self._seen: Seen | None = None

    def state(self) -> dict[str, object]:
        """Return what the page shows before anything is asked, in JSON's types."""
        learned = learned_texts(self._generator.generator)
        return {
            "base": self.engine.base_name,
            "generator": self._generator.request.folder.name,
            "learned": len(learned),
            "chat": bool(self.engine.loaded.tokenizer.chat_template),
            "results": self.result is not None,
            "limits": {"text": MAX_TEXT, "budget": MAX_BUDGET, "tokens": MAX_ANSWER},
            "made": [made.summary() for made in self.made.all()],
        }

    @cached_property
    def report(self) -> str:
        """The HTML report of the evaluation.

        Raises:
            NotFoundError: If no evaluation was given.
        """
        if self.result is None:
            raise NotFoundError("no evaluation was given: icmlora play --results DIR")
        return html_report(self.result)

    def making(self, wanted: MakeRequest) -> EngineTask:
        """Return the work that makes an adapter, and reports ``step``, ``progress``, ``made`` and ``near``.

        Raises:
            RequestError: If the text or the examples are wrong.
        """
        try:
            text = checked_text(wanted.text)
        except UsageError as error:
            raise RequestError(error.message, param="text") from error
        shown = read_pasted(wanted.examples, wanted.template)
        options = GenOptions(examples=shown.path if shown else None, budget=wanted.budget, template=wanted.template)
        request = replace(self._generator.request, options=options)
        generator = replace(self._generator, request=request, inputs=GenInputs(shown=shown))
        return EngineTask(lambda report, cancelled: self._make(text, generator, report, cancelled))

    def _make(self, text: str, generator: AdapterGenerator, report: Report, cancelled: Cancelled) -> None:
        if generator.inputs.shown is not None:
            _check_lengths(generator)
        started, on_progress = time.monotonic(), _progress(report, cancelled)
        report({"event": "step", "step": "make"})
        generated = replace(generator, on_progress=on_progress).make(text)
        adapter = placed(self.engine.loaded.model, generated.adapter)
        made = MadeAdapter(text, generated, adapter, generator, time.monotonic() - started)
        self.made.add(made)
        report({"event": "made", "made": made.summary()})
        if cancelled():
            raise StoppedError("given up")
        report({"event": "step", "step": "compare"})
        report({"event": "near", "id": made.id} | _near(self._explain(made, on_progress)))

    def _explain(self, made: MadeAdapter, on_progress: OnProgress) -> Explanation:
        """Return what a text and its adapter are near to; only the worker's thread may call this."""
        generator = self._generator
        if self._seen is None:
            self._seen = read_seen(generator.generator, generator.reader, on_progress)
        words = generator.reader.read_text(made.text)
        return explain(generator.generator, words, made.generated.adapter, self._seen, generator.learned)

    def asking(self, question: Question) -> EngineTask:
        """Return the work that answers an input in up to three ways, and reports ``column``, ``piece`` and ``end``.

        Raises:
            CorruptFileError: If the registered task is damaged.
            NotFoundError: If there is no such adapter.
            RequestError: If the input is empty, or too long.
        """
        if not question.input.strip():
            raise RequestError("the input is empty", param="input")
        adapter = self._adapter(question)
        template = self._template(question)
        text = " ".join(question.text.split())
        ways: list[tuple[Column, str | None, Adapter | AdapterSource | None]] = [("base", None, None)]
        if text:
            ways.append(("described", text, None))
        if adapter is not None:
            ways.append(("adapter", None, adapter))
        requests: dict[Column, tuple[_Prompt, GenerationRequest]] = {}
        for column, description, source in ways:
            prompt = self._prompt(question, template, description)
            requests[column] = prompt, self._request(question, prompt, source)
        return EngineTask(lambda report, cancelled: self._ask(requests, report, cancelled))

    def _adapter(self, question: Question) -> Adapter | AdapterSource | None:
        if question.made is not None:
            return self.made.get(question.made).adapter
        if question.task is None:
            return None
        source = None if question.task.startswith(PREFIX) else self.engine.sources.find(question.task)
        if source is None:
            raise NotFoundError(f"there is no adapter of {question.task[:120]!r} for this base")
        return source

    def _template(self, question: Question) -> PromptTemplate:
        if question.task is not None:
            return TaskStore(self.home).get(question.task).template
        return PromptTemplate.from_spec(question.template)

    def _prompt(self, question: Question, template: PromptTemplate, description: str | None) -> "_Prompt":
        """Return the prompt of an input, with a description before it or without one."""
        if template.kind == "text":  # the input is the beginning of a passage
            return _Prompt(f"{description}\n\n{question.input}" if description else question.input, "text")
        prompt, _ = template.render(Example(question.input, ""), description=description)
        return _Prompt(prompt, template.kind, ("\n",) if template.answer.endswith("\n") else ())

    def _request(
        self, question: Question, prompt: "_Prompt", adapter: Adapter | AdapterSource | None
    ) -> GenerationRequest:
        try:
            if prompt.kind == "chat":
                ids = self.engine.chat_ids([{"role": "user", "content": prompt.text}])
            else:
                ids = self.engine.text_ids(prompt.text)
            tokens = self.engine.answer_tokens(ids, "input", wanted=None, usual=question.max_tokens)
        except RequestError as error:
            raise RequestError(error.message, param="input", code=error.code) from error
        return GenerationRequest(tuple(ids), Sampling(tokens, temperature=0.0, stop=prompt.stop), adapter)

    def _ask(
        self, requests: "Mapping[Column, tuple[_Prompt, GenerationRequest]]", report: Report, cancelled: Cancelled
    ) -> None:
        for column, (prompt, request) in requests.items():
            report({"event": "column", "column": column, "prompt": prompt.text})
            answer = self.engine.answer(request, _piece(report, column), cancelled)
            report({"event": "end", "column": column, "tokens": answer.tokens, "finish": answer.finish})


@dataclass(frozen=True)
class _Prompt:
    """A prompt as it is shown to the base.

    Args:
        text: The prompt, before any chat template.
        kind: The kind of the template: ``plain``, ``chat`` or ``text``.
        stop: The texts before which an answer ends.
    """

    text: str
    kind: str
    stop: tuple[str, ...] = ()


def _piece(report: Report, column: Column) -> Callable[[str], None]:
    return lambda text: report({"event": "piece", "column": column, "text": text})


def _progress(report: Report, cancelled: Cancelled) -> OnProgress:
    """Return what reports progress as an event, and gives the work up once nobody waits for it."""

    def on_progress(progress: Progress) -> None:
        if cancelled():
            raise StoppedError("given up")
        report({"event": "progress", "label": progress.label, "done": progress.done, "total": progress.total})

    return on_progress


def _check_lengths(generator: AdapterGenerator) -> None:
    """Check that each example fits into what the base reads at once.

    Raises:
        RequestError: If one does not.
    """
    assert generator.inputs.shown is not None
    try:
        rows_of(generator.loaded, generator.inputs.shown)
    except UsageError as error:
        raise RequestError(error.message, param="examples") from error


def _near(explanation: Explanation) -> dict[str, object]:
    """Return what the page shows of an explanation, in JSON's types."""
    near, distances = explanation.adapter, explanation.range
    return {
        "nearest": [{"task": item.task, "text": visible(item.description), "alike": item.cosine}
                    for item in explanation.nearest],
        "adapter": None if near is None else asdict(near),
        "range": asdict(distances),
    }  # fmt: skip
