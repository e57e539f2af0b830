"""The engine of ``icmlora serve``: it keeps one base in memory and answers requests one after another.

Each request is answered with the adapter that it names; requests wait in a bounded queue. Nothing here knows of HTTP,
which is in ``serving/http``.
"""

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import TemplateError

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import NotFoundError, RequestError, StoppedError, UsageError
from icmlora_cli.lm.adapter_base import adapter_base
from icmlora_cli.lm.architectures import only_decoders
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.perplexity import max_tokens
from icmlora_cli.lm.prompts import open_ids
from icmlora_cli.lm.stream import Sampling, StreamedText, special_tokens, write
from icmlora_cli.registry.bases import Base
from icmlora_cli.serving.adapter_cache import AdapterCache
from icmlora_cli.serving.names import PREFIX
from icmlora_cli.serving.queue import QueuedJob, RequestQueue
from icmlora_cli.serving.sources import AdapterSource, AdapterSources
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.apply import applied, placed
from icmlora_cli.weights.foreign.open import open_adapter
from icmlora_cli.workflows.gen.generate import adapter_generator_on, check
from icmlora_cli.workflows.gen.generator import AdapterGenerator
from icmlora_cli.workflows.gen.options import GenRequest
from icmlora_cli.workflows.progress import OnProgress, notes_of_memory, silent

SHOWN_CHARACTERS = 120  # how much of a model's name stands in an error


@dataclass(frozen=True)
class GenerationRequest:
    """A request that has been checked, as the engine answers it.

    Args:
        prompt_ids: The tokens of the prompt, at least one.
        sampling: How the tokens of the answer are drawn.
        adapter: The adapter, if it is always in memory, or else where it comes from; None takes the base alone.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    adapter: Adapter | AdapterSource | None = None


@dataclass(frozen=True)
class EngineTask:
    """Other work with the base, such as the making of an adapter, which waits for its turn as requests do.

    Args:
        do: Does the work in the worker's thread; it is given what reports a result of it, and what tells whether nobody
            waits for it any more. Once it returns, the engine reports None.
    """

    do: Callable[[Callable[[object], None], Callable[[], bool]], None]


EngineWork = GenerationRequest | EngineTask


@dataclass(frozen=True)
class ServedModel:
    """A model that a client may name in a request.

    Args:
        name: The name of the model.
        kind: What it is: ``base``; ``adapter``, which ``--adapter`` gave; ``task``, a registered task's harvested or
            imported adapter; or ``generated``, a generated adapter that is in memory.
    """

    name: str
    kind: str


@dataclass(frozen=True)
class EngineSettings:
    """The limits of an engine.

    Args:
        queue: How many requests may be read or wait, besides the one that is being answered.
        max_adapters: How many harvested and generated adapters are kept in memory.
        max_tokens: How many tokens one answer may have; None allows as many as the base's context has room for.
    """

    queue: int = 32
    max_adapters: int = 16
    max_tokens: int | None = None


class Engine:
    """Answers requests for the base and for adapters of it.

    Args:
        loaded: The loaded base; its weights are never changed.
        sources: Finds the adapters of registered tasks and of task texts.
        pinned: The adapters that ``--adapter`` gave, by name, on the base's device; they always stay in memory.
        adapter_generator: Makes adapters of task texts; None where no generator is loaded.
        settings: The limits of the engine.
    """

    def __init__(
        self,
        loaded: LoadedBase,
        sources: AdapterSources,
        pinned: Mapping[str, Adapter],
        adapter_generator: AdapterGenerator | None,
        settings: EngineSettings,
    ) -> None:
        """Keep the base and start the queue of its requests."""
        self.loaded, self.sources, self.pinned, self.settings = loaded, sources, dict(pinned), settings
        self.adapter_generator = adapter_generator
        self._cache = AdapterCache(settings.max_adapters)
        self._tokenizer_lock = threading.Lock()
        self._tokenizer = copy.deepcopy(loaded.tokenizer)  # the worker's thread uses the other one
        self.context = max_tokens(loaded)
        self.started = int(time.time())
        self.queue: RequestQueue[EngineWork] = RequestQueue(self._work, settings.queue)

    @property
    def base_name(self) -> str:
        """The base's name for clients: its alias or hub id; of a folder, the folder's name alone."""
        name = self.loaded.base.name
        return Path(name).name if Path(name).is_absolute() else name

    def models(self) -> tuple[ServedModel, ...]:
        """Return the models that a client may name, including the generated adapters that are in memory now."""
        hidden_tasks = {self.base_name, *self.pinned}  # a task of such a name cannot be reached by it
        generated = [source.name for source in self._cache.sources() if source.text is not None]
        return (
            ServedModel(self.base_name, "base"),
            *(ServedModel(name, "adapter") for name in self.pinned),
            *(ServedModel(name, "task") for name in self.sources.tasks() if name not in hidden_tasks),
            *(ServedModel(name, "generated") for name in generated),
        )

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the tokens of a conversation that the base's chat template has rendered.

        Args:
            messages: The messages, each with ``role`` and ``content``.

        Raises:
            RequestError: If the base has no chat template, if the template does not take these messages, or if they
                are far too long.
        """
        with self._tokenizer_lock:
            if not self._tokenizer.chat_template:
                raise RequestError(
                    f"{self.base_name} has no chat template; ask /v1/completions with a prompt", param="messages"
                )
            try:
                text = str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            except TemplateError as error:
                raise RequestError(
                    f"the chat template does not take these messages: {error}", param="messages"
                ) from error
            self._check_characters(text, "messages")
            return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def text_ids(self, text: str) -> list[int]:
        """Return the tokens of a prompt.

        Raises:
            RequestError: If the text is far too long.
        """
        self._check_characters(text, "prompt")
        with self._tokenizer_lock:
            return open_ids(self._tokenizer, text)

    @cached_property
    def _longest_token(self) -> int:
        """The number of characters of the vocabulary's longest token."""
        return max(len(token) for token in self._tokenizer.get_vocab())

    def _check_characters(self, text: str, field: str) -> None:
        """Refuse a text, before it is tokenised, that would be too long even in the vocabulary's longest tokens."""
        if len(text) > self.context * self._longest_token:
            raise RequestError(
                f"the base reads {self.context:,} tokens at once; {len(text):,} characters are more",
                param=field,
                code="context_length_exceeded",
            )

    def answer_tokens(
        self, prompt_ids: Sequence[int], field: str, *, wanted: int | None, usual: int | None = None
    ) -> int:
        """Return how many tokens an answer may have.

        Args:
            prompt_ids: The tokens of the prompt.
            field: The field of the request that holds the prompt, which errors name.
            wanted: The number of tokens that the request asks for; None if it does not say.
            usual: The number of tokens of a request that does not say, if there is room for so many; None takes all
                the room there is.

        Raises:
            RequestError: If the prompt is empty, too long or has unknown tokens, or if the answer that the request
                asks for does not fit.
        """
        count, vocabulary = len(prompt_ids), self.loaded.model.get_input_embeddings().num_embeddings
        if not count or not all(0 <= item < vocabulary for item in prompt_ids):
            raise RequestError("the prompt is empty, or has tokens that the base does not know", param=field)
        room = self.context - count
        if room < max(1, wanted or 1):
            answer = f" and {wanted:,} of the answer" if wanted else ""
            raise RequestError(
                f"the base reads {self.context:,} tokens at once; there are {count:,} of the prompt{answer}",
                param=field,
                code="context_length_exceeded",
            )
        limit = self.settings.max_tokens or room
        if wanted is not None and wanted > limit:
            raise RequestError(f"this server writes at most {limit:,} tokens an answer", param="max_tokens")
        return wanted or min(room, limit, usual or room)

    def check_stop(self, stop: Sequence[str]) -> None:
        """Refuse a stop text that contains a special token and something else.

        Answers are decoded without special tokens, so that such a text would never be found in one.

        Raises:
            RequestError: If a stop text contains a special token without being one.
        """
        special = special_tokens(self._tokenizer) if stop else {}
        for text in stop:
            part = next((token for token in special if token in text and token != text), None)
            if part is not None and text not in special:
                raise RequestError(f"{text!r} has the special token {part!r} in it: give that alone", param="stop")

    def find_adapter(self, model: str) -> Adapter | AdapterSource | None:
        """Return the adapter that a model's name stands for, or its source; None for the base alone.

        Raises:
            NotFoundError: If there is no such model.
            UsageError: If the name is a task text that is empty or too long.
            CorruptFileError: If the registered task or a manifest is damaged.
        """
        model_id = self.loaded.base.model_id
        if model == self.base_name or (model == model_id and not Path(model_id).is_absolute()):
            return None
        if model in self.pinned:
            return self.pinned[model]
        source = self.sources.find(model)
        if source is None:
            short_name = f"{model[:SHOWN_CHARACTERS]}..." if len(model) > SHOWN_CHARACTERS else model
            lacks_generator = self.adapter_generator is None and model.startswith(PREFIX)
            why = ": no generator is loaded (icmlora serve -g)" if lacks_generator else ""
            raise NotFoundError(f"the model {short_name!r} does not exist{why}")
        return source

    def close(self) -> None:
        """Cancel the requests that wait or are being answered, and return once the worker has ended."""
        self.queue.close()

    def answer(
        self, request: GenerationRequest, on_text: Callable[[str], None], cancelled: Callable[[], bool]
    ) -> StreamedText:
        """Return the answer to a request; only the worker's thread may call this.

        Args:
            request: The request.
            on_text: Called with each piece of the text.
            cancelled: Asked after each token whether nobody waits for the answer any more.

        Raises:
            StoppedError: If the answer was given up.
        """
        adapter = request.adapter
        if isinstance(adapter, AdapterSource):
            adapter = self._loaded_adapter(adapter)
        with applied(self.loaded.model, adapter):
            answer = write(self.loaded, request.prompt_ids, request.sampling, on_text, cancelled)
        if answer.finish == "cancelled":
            raise StoppedError("the answer was given up")
        return answer

    def _work(self, job: QueuedJob[EngineWork], work: EngineWork) -> None:
        cancelled = job.cancelled.is_set
        if isinstance(work, GenerationRequest):
            job.report(self.answer(work, job.report, cancelled))
        else:
            work.do(job.report, cancelled)
            job.report(None)

    def _loaded_adapter(self, source: AdapterSource) -> Adapter:
        def load() -> Adapter:
            return placed(self.loaded.model, self.sources.get(source, self._generated_adapter))

        return self._cache.get(source, load)

    def _generated_adapter(self, text: str) -> Adapter:
        assert self.adapter_generator is not None
        return self.adapter_generator.make(text).adapter


def load_engine(
    base: Base,
    home: Home,
    *,
    generator: Path | None = None,
    adapters: Mapping[str, Path] | None = None,
    any_base_name: bool = False,
    settings: EngineSettings | None = None,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> Engine:
    """Load the base, the generator and the given adapters, and return an engine that answers requests.

    Args:
        base: The base model.
        home: The registry.
        generator: The folder of a generator that was trained for this base; with None, no task texts are served.
        adapters: PEFT folders by the names under which they are served; others may have trained them.
        any_base_name: Whether adapters may name another base in their configuration; their shapes must fit all the
            same.
        settings: The limits of the engine; None takes the default ones.
        device: The torch device on which the base runs; None takes the best one.
        on_progress: Called with the progress of what takes time.

    Raises:
        BaseUnavailableError: If the generator was trained for another base.
        NotFoundError: If there is no folder of an adapter.
        CorruptFileError: If a file is damaged, or an adapter does not fit the base.
        UnsupportedAdapterError: If an adapter is not a LoRA, or has parts that a LoRA cannot hold.
        UsageError: If there is no such device, the base has an encoder, or an adapter has the name of the base.
        WrongBaseError: If an adapter is for another base.
    """
    request = GenRequest(generator or Path())
    networks, inputs = (None, None) if generator is None else check(request, base)
    for_base = adapter_base(base) if adapters else None
    read = {name: open_adapter(path, for_base, any_base_name=any_base_name) for name, path in (adapters or {}).items()}
    loaded = load_base(base, device=device, on_note=notes_of_memory(on_progress))
    only_decoders(loaded.model, base.public_name, "icmlora serve")
    adapter_generator = None
    if networks is not None and inputs is not None:
        adapter_generator = adapter_generator_on(loaded, request, networks, inputs, home, on_progress)
    pinned = {name: placed(loaded.model, adapter) for name, adapter in read.items()}
    engine = Engine(
        loaded, AdapterSources(base, home, networks), pinned, adapter_generator, settings or EngineSettings()
    )
    if engine.base_name in pinned:
        engine.close()
        raise UsageError(f"{engine.base_name} is the base itself", hint="--adapter with another name")
    return engine
