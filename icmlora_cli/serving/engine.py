"""Serve: one base in memory, the adapter of each request beside it, answers one after another from a bounded queue.

No HTTP here: ``cli/serve_app.py`` speaks it.
"""

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import NotFoundError, RequestError, StoppedError, UsageError
from icmlora_cli.lm.adapter_base import adapter_base
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.perplexity import max_tokens
from icmlora_cli.lm.prompts import open_ids
from icmlora_cli.lm.stream import Sampling, StreamedText, write
from icmlora_cli.registry.bases import Base
from icmlora_cli.serving.adapter_cache import AdapterCache
from icmlora_cli.serving.names import PREFIX
from icmlora_cli.serving.queue import QueuedJob, RequestQueue
from icmlora_cli.serving.sources import AdapterSource, AdapterSources
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.apply import applied, placed
from icmlora_cli.weights.foreign.open import open_adapter
from icmlora_cli.workflows.gen.generate import check, maker_on
from icmlora_cli.workflows.gen.generator import AdapterGenerator
from icmlora_cli.workflows.gen.options import PLAIN, GenRequest
from icmlora_cli.workflows.progress import OnProgress, silent

SHOWN = 120  # characters of a name in an error


@dataclass(frozen=True)
class Question:
    """A request that can be answered.

    Args:
        prompt_ids: one token or more.
        sampling: how to draw.
        adapter: one that is always in memory, or where it comes from; None for the base alone.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    adapter: Adapter | AdapterSource | None = None


@dataclass(frozen=True)
class ServedModel:
    """A name that may be asked for.

    Args:
        name: the name.
        kind: ``base``, ``adapter`` (given by ``--adapter``), ``task`` (harvested), ``generated`` (and in memory).
    """

    name: str
    kind: str


@dataclass(frozen=True)
class EngineSettings:
    """How much an engine takes on.

    Args:
        queue: requests that may wait beside the one that is answered.
        max_adapters: harvested and generated adapters that are kept in memory.
        max_tokens: of one answer; None: as many as the base's context has room for.
    """

    queue: int = 32
    max_adapters: int = 16
    max_tokens: int | None = None


class Engine:
    """Answers requests for the base and for adapters of it.

    Args:
        loaded: the base; its weights are never changed.
        sources: finds the adapters of tasks and texts.
        pinned: adapters by the names given with ``--adapter``, placed.
        adapter_generator: makes adapters of texts; None where there is no generator.
        settings: how much it takes on.
    """

    def __init__(
        self,
        loaded: LoadedBase,
        sources: AdapterSources,
        pinned: Mapping[str, Adapter],
        adapter_generator: AdapterGenerator | None,
        settings: EngineSettings,
    ) -> None:
        self.loaded, self.sources, self.pinned, self.settings = loaded, sources, dict(pinned), settings
        self._maker = adapter_generator
        self._shelf = AdapterCache(settings.max_adapters)
        self._encoding = threading.Lock()
        self._tokenizer = copy.deepcopy(loaded.tokenizer)  # the worker's own is not shared between threads
        self.context = max_tokens(loaded)
        self.started = int(time.time())
        self.line: RequestQueue[Question] = RequestQueue(self._answer, settings.queue)

    @property
    def base_name(self) -> str:
        """The base's name for clients: its alias or hub id; of a folder, the folder's name alone."""
        name = self.loaded.base.name
        return Path(name).name if Path(name).is_absolute() else name

    def models(self) -> tuple[ServedModel, ...]:
        """Return what may be asked for now, and the generated adapters that are in memory."""
        taken = {self.base_name, *self.pinned}
        generated = [source.name for source in self._shelf.sources() if source.text is not None]
        return (
            ServedModel(self.base_name, "base"),
            *(ServedModel(name, "adapter") for name in self.pinned),
            *(ServedModel(name, "task") for name in self.sources.tasks() if name not in taken),
            *(ServedModel(name, "generated") for name in generated),
        )

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the tokens of a conversation, in the base's chat template.

        Raises:
            RequestError: if the base has none, or it does not take these messages.
        """
        with self._encoding:
            if not self._tokenizer.chat_template:
                raise RequestError(
                    f"{self.base_name} has no chat template; ask /v1/completions with a prompt", param="messages"
                )
            try:
                text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except TemplateError as error:
                raise RequestError(
                    f"the chat template does not take these messages: {error}", param="messages"
                ) from error
            return list(self._tokenizer.encode(str(text), add_special_tokens=False, verbose=False))

    def text_ids(self, text: str) -> list[int]:
        """Return the tokens of a prompt."""
        with self._encoding:
            return open_ids(self._tokenizer, text)

    def room(self, prompt_ids: Sequence[int], asked: int | None, param: str) -> int:
        """Return how many tokens an answer may have.

        Args:
            prompt_ids: the prompt's.
            asked: what the request says; None: as many as there is room for.
            param: the prompt's field, for errors.

        Raises:
            RequestError: if the prompt is empty or too long, or more is asked for than there is room.
        """
        count, size = len(prompt_ids), self.loaded.model.get_input_embeddings().num_embeddings
        if not count or not all(0 <= item < size for item in prompt_ids):
            raise RequestError("the prompt is empty, or has tokens that the base does not know", param=param)
        left = self.context - count
        if left < max(1, asked or 1):
            wanted = f" and {asked:,} of the answer" if asked else ""
            raise RequestError(
                f"the base reads {self.context:,} tokens at once; there are {count:,} of the prompt{wanted}",
                param=param,
                code="context_length_exceeded",
            )
        most = self.settings.max_tokens or left
        if asked is not None and asked > most:
            raise RequestError(f"this server writes at most {most:,} tokens an answer", param="max_tokens")
        return asked or min(left, most)

    def find(self, model: str) -> Adapter | AdapterSource | None:
        """Return what a model's name stands for; see ``Question``.

        Raises:
            NotFoundError: if there is no such model.
            UsageError: if the task text is empty or too long.
            CorruptFileError: if the task or a manifest is damaged.
        """
        own = self.loaded.base.model_id
        if model == self.base_name or (model == own and not Path(own).is_absolute()):
            return None
        if model in self.pinned:
            return self.pinned[model]
        source = self.sources.find(model)
        if source is None:
            told = f"{model[:SHOWN]}..." if len(model) > SHOWN else model
            why = "" if self._maker or not model.startswith(PREFIX) else ": no generator is loaded (icmlora serve -g)"
            raise NotFoundError(f"the model {told!r} does not exist{why}")
        return source

    def ask(self, question: Question, tell: Callable[[object], None]) -> QueuedJob[Question]:
        """Put a request into the queue.

        Args:
            question: the request.
            tell: called in another thread, with each piece of the text, and at the end with a ``StreamedText`` or the
                error.

        Raises:
            Busy: if the queue is full.
            Stopped: if the engine is closed.
        """
        job = QueuedJob(question, tell)
        self.line.put(job)
        return job

    def close(self) -> None:
        """Cancel what is under way, and return once all has ended."""
        self.line.close()

    def _answer(self, job: QueuedJob[Question]) -> None:
        asked = job.work
        adapter = self._adapter(asked.adapter) if isinstance(asked.adapter, AdapterSource) else asked.adapter
        with applied(self.loaded.model, adapter):
            done: StreamedText = write(self.loaded, asked.prompt_ids, asked.sampling, job.tell, job.cancelled.is_set)
        job.tell(StoppedError("the answer was given up") if done.finish == "cancelled" else done)

    def _adapter(self, source: AdapterSource) -> Adapter:
        def make() -> Adapter:
            return placed(self.loaded.model, self.sources.get(source, self._made))

        return self._shelf.get(source, make)

    def _made(self, text: str) -> Adapter:
        assert self._maker is not None
        return self._maker.make(text).adapter


def load_engine(
    base: Base,
    home: Home,
    *,
    generator: Path | None = None,
    adapters: Mapping[str, Path] | None = None,
    settings: EngineSettings | None = None,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> Engine:
    """Load the base, the generator and the adapters given by name, and start answering.

    Args:
        base: the base model.
        home: the registry.
        generator: folder of a generator of this base; None: texts are not served.
        adapters: PEFT folders by name.
        settings: how much to take on.
        device: where the base runs.
        on_progress: told of what the generator takes time for.

    Raises:
        BaseUnavailableError: if the generator is of another base.
        NotFoundError: if an adapter's folder is not there.
        CorruptFileError: if a file is broken, or an adapter does not fit the base.
        UnsupportedAdapterError: if an adapter is of another kind than LoRA, or more than one.
        WrongBaseError: if an adapter is for another base.
        UsageError: if the device is not there, or a name is the base's own.
    """
    request = GenRequest(generator or Path(), False, None, PLAIN)
    networks, inputs = (None, None) if generator is None else check(request, base)
    for_base = adapter_base(base) if adapters else None
    read = {name: open_adapter(path, for_base) for name, path in (adapters or {}).items()}
    loaded = load_base(base, device=device)
    adapter_generator = None
    if networks is not None and inputs is not None:
        adapter_generator = maker_on(loaded, request, networks, inputs, home, on_progress)
    pinned = {name: placed(loaded.model, adapter) for name, adapter in read.items()}
    engine = Engine(
        loaded, AdapterSources(base, home, networks), pinned, adapter_generator, settings or EngineSettings()
    )
    if engine.base_name in pinned:
        engine.close()
        raise UsageError(f"{engine.base_name} is the base itself", hint="--adapter with another name")
    return engine
