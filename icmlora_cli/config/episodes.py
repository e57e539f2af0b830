"""The settings of episodes: in-context meta-learning through the frozen base."""

from typing import Annotated, Literal

from pydantic import Field

from icmlora_cli.config.recipe_model import Count, NotNegative, RecipeModel, Share


class QueryTemplate(RecipeModel):
    """How a query of an episode is written.

    Args:
        prompt: the text before the answer, with ``{input}`` in it.
        answer: the text that is learned, with ``{output}`` in it.
    """

    prompt: Annotated[str, Field(pattern=r"\{input\}")] = "Q: {input}\nA:"
    answer: Annotated[str, Field(pattern=r"\{output\}")] = " {output}\n"


class EpisodeRecipe(RecipeModel):
    """In-context meta-learning: a support becomes an adapter, whose loss on queries is taken through the frozen base.

    Args:
        rows: how many (task, query) pairs a step takes, each with an adapter of its own.
        micro_batch: rows in one forward pass; halved by itself when memory does not suffice. null: all rows.
        gradient_checkpointing: compute the base's activations twice rather than keep them, for larger bases.
        builtin: which built-in tasks are drawn beside the registered ones: ``none``, ``catalog`` (those that are not
            held out) or ``dense`` (these and all further ones that the families yield).
        builtin_exclude: names or patterns of built-in tasks never to draw, such as those that are to be measured on.
        per_family: at most so many built-in tasks of each family; null takes all.
        builtin_examples: how many examples are made of each built-in task.
        max_tokens: queries of more tokens are left out, unless a task has no shorter ones.
        registered_share: share of the rows that are of registered tasks, where there are any of both.
        phrasings: descriptions composed for each built-in task, beside its own.
        templates: how queries of built-in tasks are written, each as likely; registered tasks have their own.
        weight: the weight of the loss on queries; with 0 there are no queries, and episodes give the
            contrast of readings alone.
        prior_weight: the weight of KL(p(z | c) || N(0, I)), in nats per latent number, which limits what z can carry.
        contrast_weight: the weight of the contrastive loss, which pulls readings of one task together and others apart.
        contrast_tasks: the number of tasks in one contrastive batch, two readings each.
        swap_weight: the weight of the contrast of adapters: the NLL of a query under its own task's adapter has to be
            lower, by ``swap_margin``, than under the adapter of another task of the step. It costs one more pass.
        swap_margin: that margin, in nats per answer token.
        distill_weight: the weight of KL(harvested || generated), in nats per answer token, on queries of harvested
            tasks: of the likeliest tokens that the harvested adapter says come next.
        distill_examples: the number of training examples of each harvested task on which that is known, at most.
        validation_tasks: built-in tasks that are kept from training, to tell the best weights by the probability of
            their answers.
        validation_examples: the number of examples of each validation task.
        validate_every: the number of steps between two validations.
    """

    rows: Count = 12
    micro_batch: Count | None = None
    gradient_checkpointing: bool = False
    builtin: Literal["none", "catalog", "dense"] = "dense"
    builtin_exclude: tuple[str, ...] = ()
    per_family: Count | None = None
    builtin_examples: Count = 200
    max_tokens: Count = 64
    registered_share: Share = 0.5
    phrasings: Annotated[int, Field(ge=0)] = 12
    templates: Annotated[tuple[QueryTemplate, ...], Field(min_length=1)] = (QueryTemplate(),)
    weight: NotNegative = 1.0
    prior_weight: NotNegative = 0.001
    contrast_weight: NotNegative = 0.1
    contrast_tasks: Annotated[int, Field(ge=2)] = 32
    swap_weight: NotNegative = 0.0
    swap_margin: NotNegative = 0.5
    distill_weight: NotNegative = 0.0
    distill_examples: Count = 64
    validation_tasks: Annotated[int, Field(ge=0)] = 12
    validation_examples: Count = 12
    validate_every: Count = 250
