"""One training process or several (``accelerate launch``), and the loss trackers; both through accelerate."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from icmlora_cli.errors import UsageError


def main_process() -> bool:
    """Return whether this process is the one that prints, as the launcher's ``RANK`` says."""
    return os.environ.get("RANK", "0") == "0"


class Distributed:
    """The processes that train one generator together, and the tracker that logs its losses.

    Args:
        log_with: The name of a tracker that accelerate knows; None logs nothing.
        folder: The folder in which trackers write.
        project: The name of the run.
        settings: The resolved recipe, which trackers keep with the losses.

    Raises:
        UsageError: If the tracker is unknown or not installed.
    """

    def __init__(self, log_with: str | None, folder: Path, project: str, settings: Mapping[str, object]) -> None:
        """Start the accelerator, where several processes or a tracker ask for one."""
        self.accelerator: Any = None
        self.logs = log_with is not None
        if log_with is None and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return
        from accelerate import Accelerator
        from accelerate.utils import ProjectConfiguration

        try:
            config = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a tracker that is not installed is reported below
                self.accelerator = Accelerator(log_with=log_with, project_config=config)
            if self.logs:
                folder.mkdir(parents=True, exist_ok=True)
                flat = {key: str(value) for key, value in settings.items()}
                self.accelerator.init_trackers(project, config=flat)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"--log-with {log_with}: {error}", hint=f"pip install {log_with}, or leave --log-with out"
            ) from error
        if self.logs and not self.accelerator.trackers:
            raise UsageError(f"--log-with {log_with}: it is not installed", hint=f"pip install {log_with}")

    @property
    def device(self) -> str | None:
        """The torch device of this process where there are several; None for one process, whose caller chooses."""
        return str(self.accelerator.device) if self.processes > 1 else None

    @property
    def process(self) -> int:
        """The index of this process."""
        return int(self.accelerator.process_index) if self.accelerator is not None else 0

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return int(self.accelerator.num_processes) if self.accelerator is not None else 1

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.process == 0

    def reduce(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Average gradients over the processes, in place."""
        if self.processes == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(self.accelerator.reduce(parameter.grad, reduction="mean"))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log losses with the tracker, if there is one."""
        if self.logs:
            self.accelerator.log(dict(values), step=step)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.processes > 1:
            self.accelerator.wait_for_everyone()

    def __enter__(self) -> "Distributed":
        """Train within the body."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the trackers and the group of processes, also after a failure, without waiting for the others."""
        if self.accelerator is not None:
            self.accelerator.end_training()  # otherwise threads of the group abort the process when it exits
