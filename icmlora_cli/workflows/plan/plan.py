"""The ``plan`` workflow: what a base and two recipes take, before anything of the base is fetched.

A ``config.json`` is enough. What nobody can know before (how many tasks there are, how long their rows are, how fast
the device is) is taken for granted, and said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.recipes import resolve
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.cost import meta_base, parameters_of
from icmlora_cli.lm.load import DTYPES
from icmlora_cli.lm.perplexity import max_tokens
from icmlora_cli.workflows.plan.phases import Phase, Planner, PlanOptions
from icmlora_cli.workflows.plan.sources import config_folder, kind_of
from icmlora_cli.workflows.progress import OnProgress, silent


@dataclass(frozen=True)
class PlanResult:
    """What a base and two recipes take.

    Args:
        base: The base's name, as it was given.
        architecture: Its model class, such as ``LlamaForCausalLM``.
        parameters: How many numbers its weights have.
        modules: How many modules get an adapter.
        harvest: The recipe of the harvest.
        train: The recipe of the training.
        options: What the plan takes for granted.
        phases: Harvest, training and generation, in this order.
    """

    base: str
    architecture: str
    parameters: int
    modules: int
    harvest: str
    train: str
    options: PlanOptions
    phases: tuple[Phase, ...]

    @property
    def fits(self) -> bool:
        """Whether the device's memory suffices for all phases, one after the other."""
        return all(phase.fits for phase in self.phases)


def run(
    recipes: Sequence[Path],
    base: str,
    options: PlanOptions,
    home: Home,
    *,
    offline: bool = False,
    on_progress: OnProgress = silent,
) -> PlanResult:
    """Return what harvest, training and generation take; a kind of recipe that is not given has its defaults.

    Args:
        recipes: A recipe of ``harvest``, one of ``train``, or both.
        base: An alias, a hub id, or a folder, which need not hold more than ``config.json``.
        options: What the plan takes for granted.
        home: The registry.
        offline: Whether nothing is fetched.
        on_progress: Called during the download of the configuration.

    Raises:
        BaseUnavailableError: If there is no configuration of the base.
        CorruptFileError: If the configuration cannot be read.
        SpecError: If a recipe has faults.
        UsageError: If a recipe is not there, or two are of one kind, or rows are longer than what the base reads.
    """
    given: dict[str, Path] = {}
    for reference in recipes:
        kind = kind_of(reference)
        if kind in given:
            raise UsageError(f"{given[kind]} and {reference} are both recipes of {kind}", hint="give one of them")
        given[kind] = reference
    harvest = resolve(HarvestRecipe, given.get("harvest"), "harvest", {})
    train = resolve(TrainRecipe, given.get("train"), "train", {})
    folder = config_folder(base, home, offline=offline, on_progress=on_progress)
    loaded = meta_base(folder, base, dtype=DTYPES[options.dtype])
    if options.tokens > max_tokens(loaded):
        raise UsageError(
            f"rows of {options.tokens:,} tokens are longer than what the base reads: {max_tokens(loaded):,}",
            hint=f"--tokens {max_tokens(loaded)}, or less",
        )
    parameters = parameters_of(loaded.model)
    planner = Planner(loaded, harvest, train, options)
    return PlanResult(
        base=base,
        architecture=loaded.base.architecture,
        parameters=parameters,
        modules=len(planner.layout.modules),
        harvest=str(given.get("harvest", "harvest/default")),
        train=str(given.get("train", "train/default")),
        options=options,
        phases=(planner.harvesting(), planner.training(), planner.generating()),
    )
