"""README.md of generators and generated adapters: model cards with the hub's metadata."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import yaml


def _card(metadata: Mapping[str, object], body: Sequence[str]) -> str:
    front = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n".join(body) + "\n"


def quoted(text: str) -> str:
    """Return text as an indented code block, in which Markdown and HTML stay text."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return f"    {printable}"


def _licences(licences: Sequence[str]) -> list[str]:
    if not licences:
        return ["The training data states no licence."]
    return ["Licences of the data that the generator learned from:", "", *(f"- `{name}`" for name in licences)]


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


def adapter_card(
    *,
    base_model: str,
    task_text: str,
    generator: str,
    tasks: int,
    seed: int | None,
    licences: Sequence[str],
    cost: Mapping[str, float] = MappingProxyType({}),
    remarks: Sequence[str] = (),
) -> str:
    """Return the card of a generated adapter.

    Args:
        base_model: hub id of the base.
        task_text: what the adapter was asked for.
        generator: its generator's name.
        tasks: how many tasks the generator learned from.
        seed: seed of the sample; None for the prior's mean.
        licences: of the generator's training data.
        cost: seconds and joules behind the generator, as its manifest holds them.
        remarks: sentences on how it was made, beside the text.
    """
    z = (
        "its default (the mean of the prior, where there is one)"
        if seed is None
        else f"a sample of the prior with seed {seed}"
    )
    metadata = {"base_model": base_model, "library_name": "peft", "tags": ["lora", "peft", "icmlora", "generated"]}
    body = [
        "# A generated LoRA adapter",
        "",
        "Generated, not trained, from this task text:",
        "",
        quoted(task_text),
        "",
        f"Generator: `{generator}`, which learned from {tasks} tasks. Latent: {z}.",
        *remarks,
        "`icmlora.json` says how it was made.",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({base_model!r})",
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        "```",
        "",
        "A generated adapter can be wrong, above all for tasks unlike those that the generator saw.",
        "Test it on examples.",
        "",
        *_cost(cost),
        *_licences(licences),
    ]
    return _card(metadata, body)


def merged_card(*, base_model: str, task_text: str, generator: str, remarks: Sequence[str] = ()) -> str:
    """Return the card of a base model with a generated adapter merged into it; see ``adapter_card``."""
    metadata = {"base_model": base_model, "library_name": "transformers", "tags": ["icmlora", "merged"]}
    body = [
        "# A base model with a generated LoRA merged in",
        "",
        f"Base: `{base_model}`. Generator: `{generator}`. Task text:",
        "",
        quoted(task_text),
        "",
        *remarks,
        "`icmlora.json` says how it was made. Test it on examples before you rely on it.",
    ]
    return _card(metadata, body)


def merge_card(*, base_model: str, adapters: Sequence[tuple[str, float]], licences: Sequence[str]) -> str:
    """Return the card of a base model with adapters merged into it.

    Args:
        base_model: hub id of the base.
        adapters: name and weight of each.
        licences: of the base and the adapters, as far as they say.
    """
    metadata = {"base_model": base_model, "library_name": "transformers", "tags": ["icmlora", "merged"]}
    body = [
        "# A base model with LoRA adapters merged in" if len(adapters) > 1 else "# A base model with a LoRA merged in",
        "",
        f"Base: `{base_model}`. Merged into it, each delta-W times its weight:",
        "",
        *(quoted(f"{weight:g}  {name}") for name, weight in adapters),
        "",
        "`icmlora.json` says how it was made. Test it on examples before you rely on it.",
        "",
        "Licences of the base and the adapters: " + (", ".join(f"`{name}`" for name in licences) or "none is stated."),
    ]
    return _card(metadata, body)


def generator_card(
    *,
    name: str,
    base_model: str,
    tasks: Mapping[str, str],
    numbers: int,
    licences: Sequence[str],
    error: float,
    cost: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """Return the card of a generator.

    Args:
        name: the generator's.
        base_model: hub id of the base.
        tasks: name and first description of each task that it learned from.
        numbers: parameters that generation needs.
        licences: of the training data.
        error: mean relative error of delta-W over the training tasks, from their descriptions.
        cost: seconds and joules behind it, as its manifest holds them.
    """
    metadata = {"base_model": base_model, "library_name": "icmlora", "tags": ["lora", "icmlora", "weight-generation"]}
    rows = [f"- `{task}`" for task in tasks]
    body = [
        f"# Generator `{name}`",
        "",
        f"Makes LoRA adapters for `{base_model}` from a task in words. {numbers:,} numbers.",
        f"Relative error of delta-W on its own training tasks, from their descriptions: {error:.3f}.",
        "",
        "```",
        f'icmlora gen "..." -o out/ --generator {name}',
        "```",
        "",
        f"Learned from {len(tasks)} tasks:",
        "",
        *rows,
        "",
        *_cost(cost),
        *_licences(licences),
    ]
    return _card(metadata, body)
