"""One training of a generator: reading its tasks, fitting the networks, and measuring the result."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from icmlora_cli.config.train import NetworkRecipe, TrainRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.generator.checkpoint import Generator, module_scales
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics
from icmlora_cli.generator.fit import FitOptions, StepLosses, Validation, Watch, fit
from icmlora_cli.generator.interface import Network, NetworkConfig
from icmlora_cli.generator.networks import build
from icmlora_cli.generator.terms import TaskData, TrainingData
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.lm.teacher import top_tokens
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.generators import STATE
from icmlora_cli.registry.tasks import Task
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.codec import relative_error
from icmlora_cli.weights.compare import compare, norm
from icmlora_cli.weights.layout import Layout
from icmlora_cli.workflows.progress import OnProgress, Progress, notes_of_vectors
from icmlora_cli.workflows.train.distributed import Distributed
from icmlora_cli.workflows.train.episode_tasks import EpisodeTask, builtin_pool, read_tasks
from icmlora_cli.workflows.train.episodes import EpisodeTerm, TaskValidation
from icmlora_cli.workflows.train.inputs import Basis, Harvested, known_names
from icmlora_cli.workflows.train.sensitivity import error_weights
from icmlora_cli.workflows.train.watch import QUERIES, Probe, chosen

WATCHED = ("validation", "cosine", "own_nll", "swapped_nll")  # what is not new after every step


@dataclass
class Training:
    """One training of a generator, which ``train.run`` makes and runs once.

    Args:
        tasks: The registered tasks to learn from.
        harvested: Those of the tasks that have harvested adapters, with these.
        basis: The codec that writes adapters as tokens.
        loaded: The frozen base.
        recipe: How to train.
        home: The registry, for cached task vectors and the state of an interrupted training.
        name: The name of the generator.
        key: The hash of all that decides the training; a saved state of another key is not resumed.
        distributed: The processes that train together.
        meter: Measures seconds and joules.
        on_progress: Called for each task that is read, and after each step.
    """

    tasks: Sequence[Task]
    harvested: Sequence[Harvested]
    basis: Basis
    loaded: LoadedBase
    recipe: TrainRecipe
    home: Home
    name: str
    key: str
    distributed: Distributed
    meter: CostMeter
    on_progress: OnProgress

    def __post_init__(self) -> None:
        """Open the reader of task vectors, and read the supports of all tasks."""
        self.note = notes_of_vectors(self.on_progress)
        self.reader = VectorReader(self.loaded, self.recipe.data.vectors, self.home, self.note)
        self.state = self.home.generators / f"{self.name}{STATE}"
        self.builtin: list[EpisodeTask] = []
        self.validation: dict[str, float] = {}
        self.watched: dict[str, float] = {}
        self.passes: dict[str, float] = {}
        self._read()
        adapters = sum(len(item.adapters) for item in self.harvested)
        optimiser = self.recipe.optimiser
        self.epoch_steps = optimiser.epoch_steps(adapters)
        self.recipe = self.recipe.model_copy(update={"optimiser": optimiser.resolved(adapters)})

    def _read(self) -> None:
        """Read the supports of the harvested tasks, and of those that episodes draw from."""
        recipe = self.recipe
        self.pool: list[EpisodeTask] = []
        self.held: list[EpisodeTask] = []
        if recipe.episodes is not None:
            train, held = builtin_pool(recipe.episodes, recipe.seed, known_names(self.tasks, self.home))
            queried = [task for task in self.tasks if task.template.kind != "text" and task.has_examples]
            read = read_tasks(
                queried, [*train, *held], self.reader, recipe, recipe.episodes, on_progress=self.on_progress
            )
            count = len(read) - len(held)
            self.pool, self.held = self._taught(read[:count]), read[count:]
            self.builtin = [item for item in self.pool if not item.registered]
        read_already = {item.name: item for item in self.pool if item.registered}
        self.texts: list[list[torch.Tensor]] = []
        self.shown: list[list[torch.Tensor]] = []
        for index, item in enumerate(self.harvested):
            if item.task.name in read_already:
                self.texts.append(list(read_already[item.task.name].texts))
                self.shown.append(list(read_already[item.task.name].demonstrations))
                continue
            self.texts.append([self.reader.read_text(text) for text in item.task.descriptions])
            examples, kind = item.task.examples("train"), item.task.template.kind
            draws = self.reader.reading_draws(examples, seed=recipe.seed, kind=kind) if examples else []
            self.shown.append(draws)
            self.on_progress(Progress("vectors", "of tasks", index + 1, len(self.harvested)))

    def _taught(self, pool: Sequence[EpisodeTask]) -> list[EpisodeTask]:
        """Return the tasks, with what the harvested adapters say of their first queries if the recipe distils them."""
        episodes = self.recipe.episodes
        if episodes is None or not episodes.distill_weight:
            return list(pool)
        harvested = {item.task.name: item for item in self.harvested}
        names = [task.name for task in pool if task.registered and task.name in harvested]
        taught: list[EpisodeTask] = []
        for task in pool:
            if task.name not in names:
                taught.append(task)
                continue
            item, rows = harvested[task.name], task.queries[: episodes.distill_examples]
            sha256, folder = item.record.checkpoints[-1].sha256, self.home.vectors / "teachers"
            found = top_tokens(self.loaded, item.adapters[-1], sha256, rows, folder, on_note=self.note)
            taught.append(replace(task, teachers=tuple(found)))
            self.on_progress(Progress("vectors", "of answers", names.index(task.name) + 1, len(names)))
        return taught

    def _space(self) -> ConditionSpace:
        pooled = [item for item in self.pool if not item.registered or item.name not in self._names()]
        texts = [row for rows in self.texts for row in rows] + [row for item in pooled for row in item.texts]
        shown = [row for rows in self.shown for row in rows] + [row for item in pooled for row in item.demonstrations]
        nothing = torch.zeros(0, self.reader.size)
        return ConditionSpace(
            text=SlotStatistics.of(torch.cat([nothing, *(row.float() for row in texts)])),
            demonstrations=SlotStatistics.of(torch.cat([nothing, *(row.float() for row in shown)])),
        )

    def _names(self) -> set[str]:
        return {item.task.name for item in self.harvested}

    def fit(self) -> tuple[Generator, tuple[StepLosses, ...]]:
        """Train, and return the generator with its losses."""
        recipe, codec = self.recipe, self.basis.codec
        mask, space = codec.mask(), self._space()
        tokens = [torch.stack([codec.encode(adapter) for adapter in item.adapters]) for item in self.harvested]
        if tokens:
            scale = module_scales(torch.cat(tokens), mask)
        else:
            scale = torch.full((len(codec.layout.modules),), recipe.data.core_scale)
        weights = self._error_weights(scale)
        tasks = [
            TaskData(cores / scale[:, None, None], texts, shown, errors)
            for cores, texts, shown, errors in zip(tokens, self.texts, self.shown, weights, strict=True)
        ]
        data = TrainingData(tasks, space, mask, recipe.data.condition_noise, recipe.data.token_dropout)
        model = self._network(space).to(self.loaded.device)
        terms: list[EpisodeTerm] = []
        validation: Validation | None = None
        if recipe.episodes is not None:
            names = [item.name for item in codec.layout.modules]
            rows = RowCores(self.loaded.model, names, codec.left, codec.right)
            on_device = scale.to(self.loaded.device)
            process = (self.distributed.process, self.distributed.processes)
            terms = [EpisodeTerm(self.loaded, rows, on_device, self.pool, space, recipe, recipe.episodes, process)]
            if self.held and recipe.episodes.weight:
                score = TaskValidation(terms[0], self.held, recipe.episodes.validation_examples)
                last = len(model.stages(recipe.optimiser)) - 1
                validation = Validation(recipe.episodes.validate_every, score, last)
        curve = fit(
            model,
            data,
            recipe.objective,
            recipe.optimiser,
            self._options(),
            terms=terms,
            validation=validation,
            watch=self._watch(model, space, scale, terms),
        )
        if recipe.optimiser.epochs is not None:
            self.passes["epochs"] = curve[-1].step / self.epoch_steps
        if recipe.optimiser.patience is not None:
            ended = sum("flat" in losses.values for losses in curve)
            self.passes["flat"] = float(ended == len(model.stages(recipe.optimiser)))
        adapters = [adapter for item in self.harvested for adapter in item.adapters]
        rank = codec.width
        if self.basis.frame is None and not recipe.queries_base:  # what queries shaped has the full rank
            rank = min(rank, max(adapter.rank for adapter in adapters))
        if validation is not None:
            with torch.no_grad():
                self.validation["validation"] = validation.score(model.eval())
        return Generator(model.cpu().eval(), codec, space, scale, rank, self.basis.frame), curve

    def _error_weights(self, scale: torch.Tensor) -> list[torch.Tensor | None]:
        """Return how much the squared errors of each harvested task count; None where all count the same."""
        share, store = self.recipe.objective.sensitivity, AdapterStore(self.home)
        if not share:
            return [None] * len(self.harvested)
        return [error_weights(item, store, self.basis.codec, scale, share) for item in self.harvested]

    def _watch(
        self, model: Network, space: ConditionSpace, scale: torch.Tensor, terms: Sequence[EpisodeTerm]
    ) -> Watch | None:
        """Return what to watch: adapters of a few of the tasks that are learned; None where there is one task alone."""
        recipe, episodes, queries = self.recipe, self.recipe.episodes, None
        if episodes is not None and episodes.weight:
            tasks = [self.pool[index] for index in chosen(len(self.pool), recipe.seed)]
            texts, queries = [task.texts[0] for task in tasks], TaskValidation(terms[0], tasks, QUERIES)
        else:
            texts = [self.texts[index][0] for index in chosen(len(self.texts), recipe.seed)]
        if len(texts) < 2:
            return None
        probe = Probe([space.support(text, None) for text in texts], scale, self.basis.codec.mask(), queries)
        every = recipe.optimiser.save_every if episodes is None else episodes.validate_every
        # what is sampled before its diffusion has learned anything is no adapter
        first = len(model.stages(recipe.optimiser)) - 1 if recipe.network.arch == "p-diff" else 0
        return Watch(every, probe, first)

    def _options(self) -> FitOptions:
        reduce, main = self.distributed.reduce, self.distributed.main
        at_once = partial(self.loaded.micro_batch.whole, "generator")
        return FitOptions(self.state, self.key, self._report, self.recipe.seed, reduce, main, self.meter, at_once)

    def _network(self, space: ConditionSpace) -> Network:
        codec = self.basis.codec
        sizes = network_config(
            self.recipe.network,
            codec.layout,
            width=codec.width,
            framed=self.basis.frame is not None,
            hidden=space.hidden,
            harvested=len(self.harvested),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            return build(sizes)

    def _report(self, losses: StepLosses) -> None:
        self.distributed.log(losses.values, losses.step)
        self.watched |= {name: losses.values[name] for name in WATCHED if name in losses.values}
        shown = dict(losses.values) | self.watched  # the figures of the last look stay in sight
        if self.recipe.optimiser.epochs is not None:
            shown = {"epoch": losses.step / self.epoch_steps} | shown
        detail = ", ".join(f"{loss} {value:.4f}" for loss, value in shown.items())
        self.on_progress(Progress("train", self.name, losses.step, losses.steps, detail))

    def figures(self, generator: Generator, kept: Generator) -> dict[str, float]:
        """Return the figures that are recorded of the trained generator: its errors, and its validation score.

        Args:
            generator: The generator with the numbers that training ended with.
            kept: The same generator with its numbers rounded as they are stored.

        Raises:
            TrainingDivergedError: If one of its numbers, or of the figures, is not finite.
        """
        for name, item in kept.tensors().items():
            if item.is_floating_point() and not item.isfinite().all():
                raise self._diverged(f"{name} of the trained generator is not finite")
        everything = [adapter for item in self.harvested for adapter in item.adapters]
        pairs = list(zip(self.harvested, self.texts, strict=True))
        codec_errors = [relative_error(self.basis.codec, adapter) for adapter in everything]
        samples = [texts[0] for _, texts in pairs] or [item.texts[0] for item in self.pool[:16]]
        try:
            changes = [_relative(kept.generate(text, None), generator.generate(text, None)) for text in samples]
            errors = [_relative(kept.generate(texts[0], None), item.adapters[-1]) for item, texts in pairs]
        except TrainingDivergedError as error:
            raise self._diverged(error.message) from error
        left_out = sum(item.left_out for item in (*self.pool, *self.held))
        figures = {
            "error": _mean(errors),
            "codec_error": _mean(codec_errors),
            "storage_error": _mean(changes),
            **self.validation,
            **self.passes,
            **({"left_out": left_out} if left_out else {}),
        }
        for name, value in figures.items():
            if not math.isfinite(value):
                raise self._diverged(f"the figure {name} of the trained generator is {value}")
        return figures

    def _diverged(self, message: str) -> TrainingDivergedError:
        """Return the error for a generator that must not be written."""
        return TrainingDivergedError(
            f"{message}, and nothing is written",
            where=str(self.home.generators / self.name),
            hint="lower learning_rate in the train recipe",
        )


def network_config(
    network: NetworkRecipe, layout: Layout, *, width: int, framed: bool, hidden: int, harvested: int
) -> NetworkConfig:
    """Return the sizes of the networks that a recipe describes, for the modules of a base.

    Args:
        network: the recipe's settings of the networks.
        layout: the modules that get an adapter.
        width: R of the frame or of the learned basis.
        framed: whether the basis is a frame.
        hidden: how many numbers a hidden state of the base has.
        harvested: the number of tasks with harvested adapters, which a prior of neighbours remembers.
    """
    return NetworkConfig(
        arch=network.arch,
        places=layout.places(),
        width=width,
        hidden=hidden,
        latent_dim=network.latent_dim,
        hidden_dim=network.hidden_dim,
        code_dim=network.code_dim,
        shared_heads=network.heads == "shared" or (network.heads == "auto" and framed),
        code_norm=network.code_norm,
        output_scale=network.output_scale,
        mean_adapter=network.mean_adapter,
        bounded=network.bounded,
        learned_prior=network.prior != "standard",
        remembered=harvested if (network.arch, network.prior) == ("token", "neighbours") else 0,
        reader=network.reader,
        reader_dim=network.reader_dim,
        reader_layers=network.reader_layers,
        queries=network.queries,
        condition_dim=network.condition_dim,
        batch_norm=network.arch == "conv1d",
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _relative(adapter: Adapter, reference: Adapter) -> float:
    """Return ||adapter - reference|| / ||reference|| of delta-W over all modules; 0 where the reference is zero."""
    return compare(adapter, reference).all.error if norm(reference) else 0.0
