"""A plugin for vLLM: an adapter that it does not know is found in the registry or generated when it is first asked for.

vLLM finds ``register`` by the entry point ``icmlora`` of ``vllm.general_plugins``, and calls it in each of its
processes. It does nothing unless ``ICMLORA_VLLM_GENERATOR`` or ``ICMLORA_VLLM_BASE`` is set. vLLM asks resolvers only
with ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``. Nothing else of icmlora imports this module, as it needs vLLM.
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
SHOWN = 120  # characters of a name in the log
logger = init_logger("vllm.icmlora")


class IcmloraResolver(LoRAResolver):  # type: ignore[misc]  # vLLM is not always there to be read
    """Resolves ``icm:TASK TEXT`` and the names of registered tasks.

    Args:
        settings: the environment variables above; those that are missing have their defaults.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Read how many adapters are kept, and start the thread that makes them."""
        self._settings = dict(settings)
        max_adapters = self._settings.get(MAX_ADAPTERS, "1000")
        if not max_adapters.isdecimal():
            raise UsageError(f"{MAX_ADAPTERS}={max_adapters} is not a number", hint=f"{MAX_ADAPTERS}=1000")
        self._max_adapters = int(max_adapters)
        # one thread: adapters are made one after another, so each name once, and the event loop goes on meanwhile
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="icmlora")

    @cached_property
    def _folders(self) -> "Folders":
        from icmlora_cli.serving.folders import Folders  # in the worker's thread: it loads torch's models

        get = self._settings.get
        home, device = Home.from_environment(), get(DEVICE) or "cpu"
        return Folders(home, get(GENERATOR), get(BASE), get(MODEL), device, self._max_adapters)

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """Return where the adapter of a name is; None where the name is not ours or it cannot be made (see the log).

        Args:
            base_model_name: what vLLM serves.
            lora_name: what the client asks for as its model.
        """
        if not may_be_ours(lora_name):
            return None
        loop = asyncio.get_running_loop()
        try:
            folder = await loop.run_in_executor(self._worker, self._folder, base_model_name, lora_name)
        except IcmloraError as error:
            logger.warning("icmlora: %r is not served: %s", lora_name[:SHOWN], error.message)
            return None
        except Exception:  # vLLM would answer every request for it with a failure of the server
            logger.exception("icmlora: %r is not served", lora_name[:SHOWN])
            return None
        if folder is None:
            return None
        number = 1 + int(folder.name[:7], 16)  # vLLM puts its own in its place
        return LoRARequest(
            lora_name=lora_name, lora_int_id=number, lora_path=str(folder), base_model_name=base_model_name
        )

    def _folder(self, model: str, name: str) -> Path | None:
        return self._folders.folder(model, name)


def register() -> None:
    """Register the resolver with vLLM, if the environment asks for it; the entry point."""
    settings = {
        name: value for name in (GENERATOR, BASE, MODEL, DEVICE, MAX_ADAPTERS) if (value := os.environ.get(name))
    }
    if GENERATOR in settings or BASE in settings:
        LoRAResolverRegistry.register_resolver(NAME_IN_VLLM, IcmloraResolver(settings))
