"""A plugin for vLLM that finds an adapter in the registry, or generates it, when a client first asks for it.

vLLM finds ``register`` by the entry point ``icmlora`` in the group ``vllm.general_plugins``, and calls it in each of
its processes. It does nothing unless ``ICMLORA_VLLM_GENERATOR`` or ``ICMLORA_VLLM_BASE`` is set. vLLM asks resolvers
only with ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``. This module needs vLLM, and no other module of icmlora imports it.
"""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vllm.logger import init_logger
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import IcmloraError, UsageError
from icmlora_cli.serving.names import may_be_ours

if TYPE_CHECKING:
    from icmlora_cli.serving.folders import Folders

NAME_IN_VLLM = "icmlora"
GENERATOR, BASE, MODEL = "ICMLORA_VLLM_GENERATOR", "ICMLORA_VLLM_BASE", "ICMLORA_VLLM_MODEL"
DEVICE, MAX_ADAPTERS = "ICMLORA_VLLM_DEVICE", "ICMLORA_VLLM_MAX_ADAPTERS"
SHOWN_CHARACTERS = 120  # how much of a name stands in the log
logger = init_logger("vllm.icmlora")


class IcmloraResolver(LoRAResolver):  # type: ignore[misc]  # where vLLM is not installed, mypy takes its classes for Any
    """Resolves ``icm:TASK TEXT`` and the names of registered tasks.

    Args:
        settings: The values of the environment variables above; one that is missing takes its default.

    Raises:
        UsageError: If the number of adapters is no number.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Read the settings, and prepare the thread in which adapters are made."""
        self._settings = dict(settings)
        max_adapters = self._settings.get(MAX_ADAPTERS, "1000")
        if not max_adapters.isdecimal():
            raise UsageError(f"{MAX_ADAPTERS}={max_adapters} is not a number", hint=f"{MAX_ADAPTERS}=1000")
        self._max_adapters = int(max_adapters)
        # a single thread makes each adapter only once, while the event loop answers others
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="icmlora")

    @cached_property
    def _folders(self) -> "Folders":
        from icmlora_cli.serving.folders import (
            Folders,  # imported in the worker's thread, since this import takes seconds
        )

        get = self._settings.get
        home, device = Home.from_environment(), get(DEVICE) or "cpu"
        return Folders(home, get(GENERATOR), get(BASE), get(MODEL), device, self._max_adapters)

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """Return where the adapter of a name is.

        Args:
            base_model_name: The name of the base model that vLLM serves.
            lora_name: The name of the model that the client asks for.

        Returns:
            The request with the adapter's folder; None if the name is not one of icmlora's, or if the adapter cannot be
            made, for a reason that the log states.
        """
        if not may_be_ours(lora_name):
            return None
        loop = asyncio.get_running_loop()
        try:
            folder = await loop.run_in_executor(self._worker, self._folder, base_model_name, lora_name)
        except IcmloraError as error:
            logger.warning("icmlora: %r is not served: %s", lora_name[:SHOWN_CHARACTERS], error.message)
            return None
        except Exception:  # an exception here would make vLLM answer with an error of the server
            logger.exception("icmlora: %r is not served", lora_name[:SHOWN_CHARACTERS])
            return None
        if folder is None:
            return None
        number = 1 + int(folder.name[:7], 16)  # only has to be positive: vLLM replaces it by a number of its own
        return LoRARequest(
            lora_name=lora_name, lora_int_id=number, lora_path=str(folder), base_model_name=base_model_name
        )

    def _folder(self, model: str, name: str) -> Path | None:
        return self._folders.folder(model, name)


def register() -> None:
    """Register the resolver with vLLM if the environment asks for it; vLLM calls this by the entry point."""
    settings = {
        name: value for name in (GENERATOR, BASE, MODEL, DEVICE, MAX_ADAPTERS) if (value := os.environ.get(name))
    }
    if GENERATOR in settings or BASE in settings:
        LoRAResolverRegistry.register_resolver(NAME_IN_VLLM, IcmloraResolver(settings))
