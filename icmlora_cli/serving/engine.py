"""Serve: one base in memory, the adapter of each request beside it, answers one after another from a bounded queue.

No HTTP here: ``serving/http`` speaks it.
"""

import copy
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import TemplateError

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import NotFoundError, RequestError, StoppedError, UsageError
from icmlora_cli.lm.adapter_base import adapter_base
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
from icmlora_cli.workflows.gen.generate import check, maker_on
from icmlora_cli.workflows.gen.generator import AdapterGenerator
from icmlora_cli.workflows.gen.options import GenRequest
from icmlora_cli.workflows.progress import OnProgress, silent

SHOWN = 120  # characters of a name in an error


@dataclass(frozen=True)
class GenerationRequest:
    """A request that can be answered.

    Args:
        prompt_ids: The prompt, one token or more.
        sampling: How the answer is drawn.
        adapter: One that is always in memory, or where it comes from; None for the base alone.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    adapter: Adapter | AdapterSource | None = None


@dataclass(frozen=True)
class ServedModel:
    """A name that may be asked for.

    Args:
        name: The name.
        kind: ``base``, ``adapter`` (given by ``--adapter``), ``task`` (harvested), ``generated`` (and in memory).
    """

    name: str
    kind: str


@dataclass(frozen=True)
class EngineSettings:
    """How much an engine takes on.

    Args:
        queue: How many requests may be read or wait beside the one that is answered.
        max_adapters: How many harvested and generated adapters are kept in memory.
        max_tokens: How long one answer may be; None allows as many tokens as the base's context has room for.
    """

    queue: int = 32
    max_adapters: int = 16
    max_tokens: int | None = None


class Engine:
    """Answers requests for the base and for adapters of it.

    Args:
        loaded: The base; its weights are never changed.
        sources: Finds the adapters of tasks and texts.
        pinned: Adapters by the names given with ``--adapter``, placed.
        adapter_generator: Makes adapters of texts; None where there is no generator.
        settings: How much it takes on.
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
        self._adapter_generator = adapter_generator
        self._cache = AdapterCache(settings.max_adapters)
        self._tokenizer_lock = threading.Lock()
        self._tokenizer = copy.deepcopy(loaded.tokenizer)  # the worker's own is not shared between threads
        self.context = max_tokens(loaded)
        self.started = int(time.time())
        self.queue: RequestQueue[GenerationRequest] = RequestQueue(self._answer, settings.queue)

    @property
    def base_name(self) -> str:
        """The base's name for clients: its alias or hub id; of a folder, the folder's name alone."""
        name = self.loaded.base.name
        return Path(name).name if Path(name).is_absolute() else name

    def models(self) -> tuple[ServedModel, ...]:
        """Return what may be asked for now, and the generated adapters that are in memory."""
        taken = {self.base_name, *self.pinned}
        generated = [source.name for source in self._cache.sources() if source.text is not None]
        return (
            ServedModel(self.base_name, "base"),
            *(ServedModel(name, "adapter") for name in self.pinned),
            *(ServedModel(name, "task") for name in self.sources.tasks() if name not in taken),
            *(ServedModel(name, "generated") for name in generated),
        )

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the tokens of a conversation, in the base's chat template.

        Raises:
            RequestError: If the base has none, it does not take these messages, or they are far too long.
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
            RequestError: If it is far too long.
        """
        self._check_characters(text, "prompt")
        with self._tokenizer_lock:
            return open_ids(self._tokenizer, text)

    @cached_property
    def _longest_token(self) -> int:
        """How many characters the vocabulary's longest token has."""
        return max(len(token) for token in self._tokenizer.get_vocab())

    def _check_characters(self, text: str, field: str) -> None:
        """Refuse, before the work of tokenising it, a text that cannot fit even if all its tokens are the longest."""
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
            prompt_ids: The prompt's tokens.
            field: The request's field that holds the prompt, for errors.
            wanted: What the request says; None where it says nothing.
            usual: What it is then, or less where there is less room; None takes all the room.

        Raises:
            RequestError: If the prompt is empty or too long, or more is wanted than there is room.
        """
        count, vocabulary = len(prompt_ids), self.loaded.model.get_input_embeddings().num_embeddings
        if not count or not all(0 <= item < vocabulary for item in prompt_ids):
            raise RequestError("the prompt is empty, or has tokens that the base does not know", param=field)
        left = self.context - count
        if left < max(1, wanted or 1):
            answer = f" and {wanted:,} of the answer" if wanted else ""
            raise RequestError(
                f"the base reads {self.context:,} tokens at once; there are {count:,} of the prompt{answer}",
                param=field,
                code="context_length_exceeded",
            )
        most = self.settings.max_tokens or left
        if wanted is not None and wanted > most:
            raise RequestError(f"this server writes at most {most:,} tokens an answer", param="max_tokens")
        return wanted or min(left, most, usual or left)

    def check_stop(self, stop: Sequence[str]) -> None:
        """Refuse stop texts of which a special token is only a part.

        Raises:
            RequestError: If there is one: answers are decoded without special tokens, so that it would never be found.
        """
        special = special_tokens(self._tokenizer) if stop else {}
        for text in stop:
            part = next((token for token in special if token in text and token != text), None)
            if part is not None and text not in special:
                raise RequestError(f"{text!r} has the special token {part!r} in it: give that alone", param="stop")

    def find_adapter(self, model: str) -> Adapter | AdapterSource | None:
        """Return what a model's name stands for; see ``GenerationRequest``.

        Raises:
            NotFoundError: If there is no such model.
            UsageError: If the task text is empty or too long.
            CorruptFileError: If the task or a manifest is damaged.
        """
        model_id = self.loaded.base.model_id
        if model == self.base_name or (model == model_id and not Path(model_id).is_absolute()):
            return None
        if model in self.pinned:
            return self.pinned[model]
        source = self.sources.find(model)
        if source is None:
            shown = f"{model[:SHOWN]}..." if len(model) > SHOWN else model
            lacks_generator = self._adapter_generator is None and model.startswith(PREFIX)
            why = ": no generator is loaded (icmlora serve -g)" if lacks_generator else ""
            raise NotFoundError(f"the model {shown!r} does not exist{why}")
        return source

    def close(self) -> None:
        """Cancel what is under way, and return once all has ended."""
        self.queue.close()

    def _answer(self, job: QueuedJob[GenerationRequest], request: GenerationRequest) -> None:
        adapter = request.adapter
        if isinstance(adapter, AdapterSource):
            adapter = self._loaded_adapter(adapter)
        with applied(self.loaded.model, adapter):
            answer: StreamedText = write(
                self.loaded, request.prompt_ids, request.sampling, job.report, job.cancelled.is_set
            )
        job.report(StoppedError("the answer was given up") if answer.finish == "cancelled" else answer)

    def _loaded_adapter(self, source: AdapterSource) -> Adapter:
        def load() -> Adapter:
            return placed(self.loaded.model, self.sources.get(source, self._generated_adapter))

        return self._cache.get(source, load)

    def _generated_adapter(self, text: str) -> Adapter:
        assert self._adapter_generator is not None
        return self._adapter_generator.make(text).adapter


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
    """Load the base, the generator and the adapters given by name, and start answering.

    Args:
        base: The base model.
        home: The registry.
        generator: Folder of a generator of this base; with None, texts are not served.
        adapters: PEFT folders by name, which may be foreign.
        any_base_name: Take adapters whose configuration names another base; their shapes must fit all the same.
        settings: How much to take on.
        device: Where the base runs.
        on_progress: Told of what the generator takes time for.

    Raises:
        BaseUnavailableError: If the generator is of another base.
        NotFoundError: If an adapter's folder is not there.
        CorruptFileError: If a file is broken, or an adapter does not fit the base.
        UnsupportedAdapterError: If an adapter is not a LoRA, or has parts that a LoRA cannot hold.
        UsageError: If the device is not there, or a name is the base's own.
        WrongBaseError: If an adapter is for another base.
    """
    request = GenRequest(generator or Path())
    networks, inputs = (None, None) if generator is None else check(request, base)
    for_base = adapter_base(base) if adapters else None
    read = {name: open_adapter(path, for_base, any_base_name=any_base_name) for name, path in (adapters or {}).items()}
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
