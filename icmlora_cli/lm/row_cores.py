"""A different adapter for each row of a batch, in one forward pass: thin shared products and a small one a row.

Each module's update is U C_b V with U [out, R] and V [R, in] shared by all rows and the core C_b [R, R] of row b, so a
batch whose rows belong to different tasks costs little more than one of a single task (the idea of batched LoRA
serving, Chen et al., Punica, MLSys 2024; here with gradients to the cores).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.targets import module_shape


class RowCores:
    """Adds cores to a frozen model's modules.

    Args:
        model: the base.
        names: full names of the modules, in the order of the cores' second axis.
        left: per module, U [out, R].
        right: per module, V [R, in].

    Raises:
        CorruptFileError: if the model has no such module, or another shape there.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        names: Sequence[str],
        left: Sequence[torch.Tensor],
        right: Sequence[torch.Tensor],
    ) -> None:
        """Find the modules in the model and move each one's frame to its device, in the dtype of the model."""
        dtype = next(item.dtype for item in model.parameters() if item.is_floating_point())
        self.modules: list[torch.nn.Module] = []
        self.left: list[torch.Tensor] = []
        self.right: list[torch.Tensor] = []
        for name, u, v in zip(names, left, right, strict=True):
            try:
                module = model.get_submodule(name)
            except AttributeError as error:
                raise CorruptFileError(f"the base model has no module {name}: the frame is of another base") from error
            assert isinstance(module.weight, torch.nn.Parameter)
            if module_shape(module) != (u.shape[0], v.shape[1]):
                raise CorruptFileError(f"{name} has another shape in the base: the frame is of another base")
            self.modules.append(module)
            self.left.append(u.to(module.weight.device, dtype))  # the modules of a base may be on several devices
            self.right.append(v.to(module.weight.device, dtype))

    @contextmanager
    def applied(self, cores: torch.Tensor) -> Iterator[None]:
        """Add the cores to the model's forward passes within the body.

        Args:
            cores: [B, modules, R, R], of the dtype to compute in; row b of every batch gets cores[b]. A batch of one
                core serves all rows. Modules whose frame is narrower use the leading part.
        """
        handles = [module.register_forward_hook(self._hook(index, cores)) for index, module in enumerate(self.modules)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(
        self, index: int, cores: torch.Tensor
    ) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
        u, v = self.left[index], self.right[index]

        def add(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            core = cores[:, index, : u.shape[1], : v.shape[0]].to(u)  # (B, R, R')
            seen = args[0] @ v.T  # (B, T, R')
            if len(core) > 1:  # what is read of an image can be cut into windows, several in a row of the batch
                seen = seen.reshape(len(core), -1, v.shape[0])
            return output + ((seen @ core.transpose(1, 2)) @ u.T).reshape(output.shape)  # (B, T, out)

        return add
