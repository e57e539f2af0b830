"""README.md of generators and generated adapters: model cards with the hub's metadata.

What a user typed, or what another's manifest says, stands in a card as code, in which Markdown and HTML stay text.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it names no exports

from icmlora_cli.manifests.generator import GeneratorAbout
from icmlora_cli.manifests.output import Generated, Output, Served
from icmlora_cli.provenance.licences import hub_datasets, no_derivatives, stated
from icmlora_cli.report.markup import code, quoted
from icmlora_cli.report.shown import one_line

CARD = "README.md"


@dataclass(frozen=True)
class CardData:
    """What a card tells of the data that a generator learned from.

    Args:
        licences: as the data state them.
        unlicensed: how many tasks state none.
        datasets: those of the hub, ``organisation/name``.
        cost: seconds and joules behind the generator, as its manifest holds them.
    """

    licences: Sequence[str] = ()
    unlicensed: int = 0
    datasets: Sequence[str] = ()
    cost: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, held: GeneratorAbout | Output) -> "CardData":
        """Return what a manifest says of it."""
        if isinstance(held, GeneratorAbout | Generated):
            datasets = hub_datasets(held.datasets)
            return cls(held.licences or (), held.unlicensed, datasets, held.cost or {})
        return cls(() if isinstance(held, Served) else held.licences or ())


def is_hub_id(name: str) -> bool:
    """Tell whether a base's name is one that the hub can have; a folder's is not."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _card(
    body: Sequence[str],
    *,
    base_model: str,
    library: str,
    tags: Sequence[str],
    data: CardData,
    relation: Literal["adapter", "merge"] | None = None,
) -> str:
    """Return a card: its metadata, checked by the hub's client, and the lines below."""
    licence = stated(data.licences, unlicensed=data.unlicensed)
    known = is_hub_id(base_model)  # the hub takes no folder
    metadata = ModelCardData(
        base_model=base_model if known else None,
        base_model_relation=relation if known else None,
        library_name=library,
        pipeline_tag="text-generation",
        license=licence.license,
        license_name=licence.name,
        datasets=list(data.datasets) or None,
        tags=list(tags),
    )
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n".join(body) + "\n"))


def _licences(data: CardData, *, generator: bool = True) -> list[str]:
    """Return what the data's licences are, and which of them forbid derivatives."""
    if not data.licences:
        return ["The training data states no licence."]
    of = "the data that the generator learned from" if generator else "the base and of the data behind the adapter"
    lines = [f"Licences of {of}:", "", *(f"- {code(name)}" for name in data.licences)]
    if data.unlicensed:
        lines += ["", f"{data.unlicensed} of its tasks state no licence."]
    forbidding = no_derivatives(data.licences)
    if forbidding:
        names = ", ".join(map(code, forbidding))
        lines += ["", f"Forbids derivatives: {names}. Whether this may be passed on is for its holder to say."]
    return lines


def _cost(cost: Mapping[str, float]) -> list[str]:
    """Return what the generator cost, in a sentence; nothing where it does not say."""
    spent = [
        f"{what} took {cost[f'{step}_seconds']:,.0f} s" + (f" and {joules / 1e3:,.1f} kJ" if joules else "")
        for step, what in (("harvest", "Harvesting its adapters"), ("train", "training the generator"))
        if f"{step}_seconds" in cost
        for joules in [cost.get(f"{step}_joules")]
    ]
    text = ", ".join(spent)
    return [f"{text[0].upper()}{text[1:]}.", ""] if text else []


def _peft(base_model: str) -> list[str]:
    """Return how PEFT loads an adapter."""
    return [
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({one_line(base_model)!r})",
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        "```",
    ]


def _llama_cpp(model: str, lora: str | None = None) -> list[str]:
    """Return how llama.cpp runs a model, and a LoRA beside it."""
    beside = f" --lora {lora}" if lora else ""
    return ["```bash", f'llama-cli -m {model}{beside} -p "..."', "```"]


def adapter_card(
    *,
    base_model: str,
    task_text: str,
    generator: str,
    tasks: int,
    seed: int | None,
    data: CardData,
    remarks: Sequence[str] = (),
    gguf: str | None = None,
) -> str:
    """Return the card of a generated adapter.

    Args:
        base_model: hub id of the base.
        task_text: what the adapter was asked for.
        generator: its generator's name.
        tasks: how many tasks the generator learned from.
        seed: seed of the sample; None for the prior's mean.
        data: that the generator learned from.
        remarks: sentences on how it was made, beside the text.
        gguf: name of its file, where it is written for llama.cpp.
    """
    z = (
        "its default (the mean of the prior, where there is one)"
        if seed is None
        else f"a sample of the prior with seed {seed}"
    )
    llama_cpp = [f"For llama.cpp, beside a GGUF file of {code(base_model)}:", "", *_llama_cpp("BASE.gguf", gguf)]
    body = [
        "# A generated LoRA adapter",
        "",
        "Generated, not trained, from this task text:",
        "",
        quoted(task_text),
        "",
        f"Generator: {code(generator)}, which learned from {tasks} tasks. Latent: {z}.",
        *remarks,
        "`icmlora.json` says how it was made.",
        "",
        *(_peft(base_model) if gguf is None else llama_cpp),
        "",
        "A generated adapter can be wrong, above all for tasks unlike those that the generator saw.",
        "Test it on examples.",
        "",
        *_cost(data.cost),
        *_licences(data),
    ]
    library = "peft" if gguf is None else "gguf"
    tags = ("lora", library, "icmlora", "generated")
    return _card(body, base_model=base_model, library=library, tags=tags, data=data, relation="adapter")


def kept_card(
    *,
    base_model: str,
    task: str,
    step: int,
    figures: Mapping[str, float],
    imported_from: str | None,
    facts: Mapping[str, str],
    data: CardData,
) -> str:
    """Return the card of an adapter of the registry that was exported.

    Args:
        base_model: see ``adapter_card``.
        task: the task's name.
        step: of the checkpoint.
        figures: what was measured when it was made.
        imported_from: where others' adapter came from; None where icmlora trained it.
        facts: what else its manifest says, such as ``command``.
        data: that it learned from.
    """
    made = f"Trained for {step} steps" if imported_from is None else f"Imported from {code(imported_from)}"
    body = [
        f"# LoRA adapter of the task {code(task)}",
        "",
        f"{made}, for {code(base_model)}. `icmlora.json` says how it was made.",
        "",
        *_peft(base_model),
        "",
        *(f"- {name}: {value:.4g}" for name, value in figures.items()),
        *(f"- {name}: {code(value)}" for name, value in facts.items()),
        "",
        *_licences(data, generator=False),
    ]
    return _card(
        body, base_model=base_model, library="peft", tags=("lora", "peft", "icmlora"), data=data, relation="adapter"
    )


def merged_card(
    *,
    base_model: str,
    task_text: str,
    generator: str,
    data: CardData,
    remarks: Sequence[str] = (),
    gguf: str | None = None,
) -> str:
    """Return the card of a base model with a generated adapter merged into it.

    Args:
        base_model: see ``adapter_card``.
        task_text: the same.
        generator: the same.
        data: that base and generator learned from: the base's licence is one of these.
        remarks: the same.
        gguf: name of its file, where it is written for llama.cpp.
    """
    body = [
        "# A base model with a generated LoRA merged in",
        "",
        f"Base: {code(base_model)}. Generator: {code(generator)}. Task text:",
        "",
        quoted(task_text),
        "",
        *remarks,
        "`icmlora.json` says how it was made. Test it on examples before you rely on it.",
        *([] if gguf is None else ["", *_llama_cpp(gguf)]),
        "",
        *_licences(data, generator=False),
    ]
    library = "transformers" if gguf is None else "gguf"
    return _card(body, base_model=base_model, library=library, tags=("icmlora", "merged"), data=data, relation="merge")


def tuned_card(*, base_model: str, parent: str | None, task_text: str | None, how: str, data: CardData) -> str:
    """Return the card of an adapter that was trained on from another one, or from nothing.

    Args:
        base_model: see ``adapter_card``.
        parent: name of the adapter's folder; None: it started from nothing.
        task_text: what that was asked for, where it was generated.
        how: a sentence on the training.
        data: that what it started from learned from.
    """
    asked = ["", "That was generated from this task text:", "", quoted(task_text), ""] if task_text else []
    body = [
        "# A LoRA adapter, trained on a few examples",
        "",
        f"Base: {code(base_model)}. Started from {code(parent) if parent else 'nothing'}.",
        *asked,
        f"{how} `icmlora.json` says how it was made. Test it on other examples before you rely on it.",
        "",
        *(_licences(replace(data, unlicensed=0)) if parent else []),
        "",
        "The examples state no licence.",
    ]
    tags = ("lora", "peft", "icmlora", "finetuned")
    unlicensed = replace(data, unlicensed=data.unlicensed + 1)
    return _card(body, base_model=base_model, library="peft", tags=tags, data=unlicensed, relation="adapter")


def merge_card(*, base_model: str, adapters: Sequence[tuple[str, float]], data: CardData) -> str:
    """Return the card of a base model with adapters merged into it.

    Args:
        base_model: hub id of the base.
        adapters: name and weight of each.
        data: that base and adapters learned from: their licences, as far as they say.
    """
    body = [
        "# A base model with LoRA adapters merged in" if len(adapters) > 1 else "# A base model with a LoRA merged in",
        "",
        f"Base: {code(base_model)}. Merged into it, each delta-W times its weight:",
        "",
        *(quoted(f"{weight:g}  {name}") for name, weight in adapters),
        "",
        "`icmlora.json` says how it was made. Test it on examples before you rely on it.",
        "",
        *_licences(data, generator=False),
    ]
    return _card(
        body, base_model=base_model, library="transformers", tags=("icmlora", "merged"), data=data, relation="merge"
    )


def generator_card(
    *,
    name: str,
    base_model: str,
    tasks: Mapping[str, str],
    numbers: int,
    error: float,
    data: CardData,
) -> str:
    """Return the card of a generator.

    Args:
        name: the generator's.
        base_model: hub id of the base.
        tasks: name and first description of each task that it learned from.
        numbers: parameters that generation needs.
        error: mean relative error of delta-W over the training tasks, from their descriptions.
        data: that it learned from.
    """
    rows = [f"- {code(task)}" for task in tasks]
    body = [
        f"# Generator {code(name)}",
        "",
        f"Makes LoRA adapters for {code(base_model)} from a task in words. {numbers:,} numbers.",
        f"Relative error of delta-W on its own training tasks, from their descriptions: {error:.3f}.",
        "",
        "```",
        f'icmlora gen "..." -o out/ --generator {shlex.quote(one_line(name))}',
        "```",
        "",
        f"Learned from {len(tasks)} tasks:",
        "",
        *rows,
        "",
        *_cost(data.cost),
        *_licences(data),
    ]
    tags = ("lora", "icmlora", "weight-generation")
    return _card(body, base_model=base_model, library="icmlora", tags=tags, data=data)
