"""A trained generator as a folder: ``generator.safetensors`` and ``generator.json``. The encoder is not kept."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.generator.conditions import ConditionSpace
from icmlora_cli.generator.interface import Network, NetworkConfig
from icmlora_cli.generator.networks import build
from icmlora_cli.generator.packing import Storage, packed, unpacked
from icmlora_cli.manifests.generator import FrameSeed, GeneratorAbout, GeneratorManifest, LayoutShapes, NetworkSizes
from icmlora_cli.registry.generators import CONFIG, WEIGHTS
from icmlora_cli.registry.upkeep.findings import REPAIR
from icmlora_cli.weights.adapter import Adapter, read_safetensors
from icmlora_cli.weights.codec import Codec
from icmlora_cli.weights.frame import FrameSpec, learned_directions, seeded_frame, with_directions
from icmlora_cli.weights.layout import Layout, ModuleShape


@dataclass(frozen=True)
class Generator:
    """Everything that generation needs beside the base model.

    Args:
        model: the networks, in eval mode.
        codec: the shared basis.
        space: the statistics of the conditions.
        module_scale: fp32 [modules]: what normalised cores are multiplied by.
        rank: rank of generated adapters.
        frame: what the codec's basis is made from; None where it was learned and is kept.
        saved: what ``generator.json`` says, once there is one.
    """

    model: Network
    codec: Codec
    space: ConditionSpace
    module_scale: torch.Tensor
    rank: int
    frame: FrameSpec | None = None
    saved: GeneratorManifest | None = None

    @property
    def manifest(self) -> GeneratorManifest:
        """What ``generator.json`` says: base, tasks, recipe, licences, figures.

        Raises:
            ValueError: if the generator was never saved.
        """
        if self.saved is None:
            raise ValueError("the generator was never saved")
        return self.saved

    def condition(self, text: torch.Tensor | None, demonstrations: torch.Tensor | None = None) -> torch.Tensor:
        """Return the condition c of a task, fp32 [condition]; see ``generate``."""
        with torch.no_grad():
            return self.model.read(self.space.support(text, demonstrations))[0]

    def generate(
        self, text: torch.Tensor | None, demonstrations: torch.Tensor | None, *, seed: int | None = None
    ) -> Adapter:
        """Return the adapter of a task.

        Args:
            text: reading of the description, fp32 [hidden] or [T, hidden], or None.
            demonstrations: reading of demonstrations, the same, or None.
            seed: z is drawn with this seed; None takes the network's one repeatable choice, such as the prior's mean.
        """
        with torch.no_grad():
            c = self.model.read(self.space.support(text, demonstrations))
            z = self.model.sample_latent(c, None if seed is None else torch.Generator().manual_seed(seed))
            tokens = self.model.decode(z, c)[0] * self.module_scale[:, None, None]
        return self.codec.decode(tokens, rank=self.rank)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what ``generator.safetensors`` holds: all that generation needs, and so no encoder."""
        weights = {
            f"model.{name}": item.detach().contiguous()
            for name, item in self.model.state_dict().items()
            if name.split(".")[0] not in self.model.ENCODER
        }
        basis = self.codec.tensors()
        if self.frame is not None:
            basis = learned_directions(self.codec, self.frame.width)
        return weights | basis | self.space.tensors() | {"module_scale": self.module_scale}


def module_scales(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of each module's numbers over adapters.

    Args:
        tokens: fp32 [adapters, modules, R, R].
        mask: bool [modules, R, R].
    """
    squares = (tokens.square() * mask).sum(dim=(0, 2, 3))
    return (squares / (mask.sum(dim=(1, 2)) * tokens.shape[0])).sqrt().clamp(min=1e-8)


def stored(generator: Generator, storage: Storage) -> Generator:
    """Return the generator as it is once it has been stored."""
    return _assembled(generator, unpacked(packed(generator.tensors(), storage)))


def save_generator(folder: Path, generator: Generator, storage: Storage = "fp32", *, about: GeneratorAbout) -> None:
    """Write the generator's weights, then its JSON.

    Args:
        folder: where to.
        generator: what to write.
        storage: form of its numbers.
        about: what the JSON says beside what loading needs.

    Raises:
        OutOfSpaceError: if the disk is full.
    """
    tensors = packed(generator.tensors(), storage)
    files.write_with(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    layout, frame = generator.codec.layout, generator.frame
    GeneratorManifest(
        schema="icmlora.generator/1",
        network=NetworkSizes(**asdict(generator.model.config)),
        layout=LayoutShapes(
            modules=tuple((item.name, item.out_features, item.in_features) for item in layout.modules),
            fan_in_fan_out=layout.fan_in_fan_out,
        ),
        base_model=generator.codec.base_model,
        rank=generator.rank,
        frame=None if frame is None else FrameSeed(seed=frame.seed, width=frame.width),
        sha256=files.sha256_file(folder / WEIGHTS),
        **{name: value for name, value in about if name in about.model_fields_set},
    ).write(folder / CONFIG)


def read_config(folder: Path) -> GeneratorManifest:
    """Read ``generator.json``.

    Raises:
        NotFoundError: if the folder holds no generator.
        CorruptFileError: if it is not one that this version reads.
    """
    if not (folder / CONFIG).is_file():
        raise NotFoundError("there is no generator", where=str(folder), hint="train one: icmlora train")
    return GeneratorManifest.read(folder / CONFIG)


def load_generator(folder: Path) -> Generator:
    """Load a generator.

    Raises:
        NotFoundError: if the folder holds none.
        CorruptFileError: if a file is broken or not what the JSON says.
    """
    held = read_config(folder)
    tensors = read_safetensors(folder / WEIGHTS)
    if files.sha256_file(folder / WEIGHTS) != held.sha256:
        raise CorruptFileError(
            f"{WEIGHTS} is not the file that {CONFIG} describes", where=str(folder), hint=f"{REPAIR} && icmlora train"
        )
    sizes = {name: value for name, value in held.network if name in NetworkSizes.model_fields}
    spec = None if held.frame is None else FrameSpec(held.frame.seed, held.frame.width)
    shapes = Layout(tuple(ModuleShape(*row) for row in held.layout.modules), held.layout.fan_in_fan_out)
    try:
        found = unpacked(tensors)
        model = build(NetworkConfig(**sizes))
        codec = (
            Codec(shapes, (), (), model.config.width, held.base_model)
            if spec is None
            else seeded_frame(shapes, spec, held.base_model)
        )
        space = ConditionSpace.from_tensors(found)
        made = _assembled(Generator(model, codec, space, found["module_scale"], held.rank, spec, held), found)
        return replace(made, rank=min(held.rank, made.codec.width))  # a manifest may say more, and there is no more
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise CorruptFileError(f"the generator's files do not fit together: {error}", where=str(folder)) from error
    except CorruptFileError as error:
        raise CorruptFileError(error.message, where=str(folder), hint=error.hint) from error


def _assembled(like: Generator, tensors: dict[str, torch.Tensor]) -> Generator:
    """Return a generator with the tensors' values.

    Raises:
        CorruptFileError: if a tensor is missing.
    """
    weights = {name[6:]: item for name, item in tensors.items() if name.startswith("model.")}
    model = build(like.model.config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lost = [name for name in missing if name.split(".")[0] not in model.ENCODER]
    if lost or unexpected:
        raise CorruptFileError(f"the generator's weights lack {(lost or unexpected)[0]}")
    if like.frame is None:
        codec = Codec.from_tensors(tensors, like.codec.layout, like.codec.width, like.codec.base_model)
    else:
        codec = with_directions(seeded_frame(like.codec.layout, like.frame, like.codec.base_model), tensors)
    space = ConditionSpace.from_tensors(tensors)
    return replace(like, model=model.eval(), codec=codec, space=space, module_scale=tensors["module_scale"].float())
