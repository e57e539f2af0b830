"""The built-in tasks: small text tasks in families, whose examples are drawn by code."""

from icmlora_cli.tasks.builtin.catalog import builtin_names, builtin_task, dense_tasks, families
from icmlora_cli.tasks.builtin.phrasing import phrase
from icmlora_cli.tasks.builtin.types import BuiltinTask

__all__ = ["BuiltinTask", "builtin_names", "builtin_task", "dense_tasks", "families", "phrase"]
