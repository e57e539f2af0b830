"""Model cards (``README.md``) of generators, adapters and merged models, with the metadata that the hub reads.

Text that a user typed, or that comes from a manifest of others, stands in a card as code, so that no Markdown or HTML
in it has an effect.
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
from icmlora_cli.manifests.output import Generated, Output, ServedFolder
from icmlora_cli.provenance.licences import hub_datasets, no_derivatives, stated
from icmlora_cli.report.markup import code, quoted
from icmlora_cli.report.shown import one_line

CARD = "README.md"


@dataclass(frozen=True)
class CardData:
    """What a card says of the data behind an adapter, a model or a generator, of what these cost and of the base.

    Args:
        licences: the licences that the data state.
        unlicensed: the number of tasks that state no licence.
        datasets: the hub's datasets among the data, as ``organisation/name``.
        cost: the seconds and joules that the generator took, under the names that its manifest uses.
        loader: the class of transformers that loads the base.
    """

    licences: Sequence[str] = ()
    unlicensed: int = 0
    datasets: Sequence[str] = ()
    cost: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    loader: str = "AutoModelForCausalLM"

    @classmethod
    def of(cls, manifest: GeneratorAbout | Output) -> "CardData":
        """Return the data that a generator's or an output's manifest names."""
        if isinstance(manifest, GeneratorAbout | Generated):
            datasets = hub_datasets(manifest.datasets)
            return cls(manifest.licences or (), manifest.unlicensed, datasets, manifest.cost or {})
        return cls(() if isinstance(manifest, ServedFolder) else manifest.licences or ())


def is_hub_id(name: str) -> bool:
    """Return whether a base's name can be an id on the hub; the path of a folder cannot."""
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
    """Return the text of a card: its metadata, which the hub's client checks, and its body.

    Args:
        body: the lines below the metadata.
        base_model: the hub id of the base, or another name, which is left out of the metadata.
        library: the library that loads the weights, as the hub calls it.
        tags: the tags of the card.
        data: the data behind the weights, for licence and datasets.
        relation: how the weights relate to the base; None leaves that out.
    """
    licence = stated(data.licences, unlicensed=data.unlicensed)
    on_hub = is_hub_id(base_model)
    metadata = ModelCardData(
        base_model=base_model if on_hub else None,
        base_model_relation=relation if on_hub else None,
        library_name=library,
        pipeline_tag="text-generation",
        license=licence.license,
        license_name=licence.name,
        datasets=list(data.datasets) or None,
        tags=list(tags),
    )
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n".join(body) + "\n"))


def _licences(data: CardData, *, generator: bool = True) -> list[str]:
    """Return the lines that name the data's licences, and those of them that forbid derivatives.

    Args:
        data: the data behind the weights.
        generator: whether the data are those that a generator learned from, rather than those of base and adapter.
    """
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
    """Return a sentence on what the generator cost, and an empty line; no lines if its cost is not known."""
    spent = [
        f"{what} took {cost[f'{step}_seconds']:,.0f} s" + (f" and {joules / 1e3:,.1f} kJ" if joules else "")
        for step, what in (("harvest", "Harvesting its adapters"), ("train", "training the generator"))
        if f"{step}_seconds" in cost
        for joules in [cost.get(f"{step}_joules")]
    ]
    sentence = ", ".join(spent)
    return [f"{sentence[0].upper()}{sentence[1:]}.", ""] if sentence else []


def _peft(base_model: str, loader: str) -> list[str]:
    """Return the lines that show how PEFT loads an adapter, on a base that a class of transformers loads."""
    return [
        "```python",
        "from peft import PeftModel",
        f"from transformers import {loader}",
        "",
        f"base = {loader}.from_pretrained({one_line(base_model)!r})"
        if is_hub_id(base_model)
        else f'base = {loader}.from_pretrained("path/to/the/base")  # {one_line(base_model)}',
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        "```",
    ]


def _llama_cpp(model: str, lora: str | None = None) -> list[str]:
    """Return the lines that show how llama.cpp runs a model file, with the file of a LoRA if there is one."""
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
        base_model: the hub id of the base, or its name and the start of its weights' hash.
        task_text: the task text that the adapter was generated from.
        generator: the name of the generator.
        tasks: how many tasks the generator learned from.
        seed: the seed with which the latent z was drawn; None means the prior's mean.
        data: the data that the generator learned from.
        remarks: further sentences on how the adapter was made.
        gguf: the name of the adapter's file for llama.cpp; None if it is a PEFT folder.
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
        *(_peft(base_model, data.loader) if gguf is None else llama_cpp),
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
    """Return the card of an adapter that was exported from the registry.

    Args:
        base_model: the hub id of the base, or its name and the start of its weights' hash.
        task: the name of the adapter's task.
        step: the number of training steps of the checkpoint.
        figures: what was measured when the adapter was trained, by name.
        imported_from: where an imported adapter came from; None if icmlora trained it.
        facts: what else the adapter's manifest says, such as ``command``, by name.
        data: the data that the adapter learned from.
    """
    origin = f"Trained for {step} steps" if imported_from is None else f"Imported from {code(imported_from)}"
    body = [
        f"# LoRA adapter of the task {code(task)}",
        "",
        f"{origin}, for {code(base_model)}. `icmlora.json` says how it was made.",
        "",
        *_peft(base_model, data.loader),
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
        base_model: the hub id of the base, or its name and the start of its weights' hash.
        task_text: the task text that the adapter was generated from.
        generator: the name of the generator.
        data: the data that the generator learned from, with the base's licence among the licences.
        remarks: further sentences on how the adapter was made.
        gguf: the name of the model's file for llama.cpp; None if it is a folder for Transformers.
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
    """Return the card of an adapter that was trained on examples, starting from another adapter or afresh.

    Args:
        base_model: the hub id of the base, or its name and the start of its weights' hash.
        parent: the name of the folder of the adapter that the training started from; None if it started afresh.
        task_text: the task text that the parent was generated from; None if it was not generated.
        how: a sentence on the training.
        data: the data that the parent learned from.
    """
    parent_text = ["", "That was generated from this task text:", "", quoted(task_text), ""] if task_text else []
    body = [
        "# A LoRA adapter, trained on a few examples",
        "",
        f"Base: {code(base_model)}. Started from {code(parent) if parent else 'nothing'}.",
        *parent_text,
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
        base_model: the hub id of the base, or its name and the start of its weights' hash.
        adapters: the name and the weight of each adapter.
        data: the data that base and adapters learned from, with their licences as far as they state any.
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
        name: the name of the generator.
        base_model: the hub id of the base, or its name and the start of its weights' hash.
        tasks: the first description of each task that the generator learned from, by the task's name.
        numbers: how many parameters generation needs.
        error: the relative error of delta-W for adapters generated from the descriptions of training tasks, as a mean
            over these tasks.
        data: the data that the generator learned from.
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
