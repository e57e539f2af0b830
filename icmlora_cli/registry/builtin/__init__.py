"""The built-in task pack: small text tasks in families, with examples drawn by code."""

from icmlora_cli.registry.builtin.catalog import builtin_names, builtin_task, families
from icmlora_cli.registry.builtin.types import BuiltinTask

__all__ = ["BuiltinTask", "builtin_names", "builtin_task", "families"]
