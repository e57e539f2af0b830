"""A trained generator as a folder with two files: ``generator.safetensors`` and ``generator.json``.

The encoder is not saved, because only training needs it.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, NotFoundError, TrainingDivergedError
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

REMEMBERED = "as for "  # how the name of a sample begins that is what is remembered of a training task


@dataclass(frozen=True)
class Generator:
    """A trained generator: everything that generation needs beside the base model.

    ``icmlora train`` makes and saves it, and ``load_generator`` reads it back.

    Args:
        model: the networks, in eval mode.
        codec: the codec that turns tokens into an adapter, with the basis that all adapters share.
        space: the statistics by which readings of a task are standardised.
        module_scale: the factor by which each module's normalised cores are multiplied, fp32 [modules].
        rank: the rank of the generated adapters.
        frame: the seed and width from which the codec's basis is computed; None if the basis was learned, and so is
            saved with the weights.
        saved: the content of ``generator.json``; None until the generator is saved.
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
        """The content of ``generator.json``: base, tasks, recipe, licences and figures.

        Raises:
            ValueError: If the generator was never saved.
        """
        if self.saved is None:
            raise ValueError("the generator was never saved")
        return self.saved

    def condition(self, text: torch.Tensor | None, demonstrations: torch.Tensor | None = None) -> torch.Tensor:
        """Return the condition c of a task, fp32 [condition].

        Args:
            text: the reading of the task's description, fp32 [hidden] or [T, hidden]; None leaves the slot empty.
            demonstrations: the reading of demonstrations, fp32 [hidden] or [T, hidden]; None leaves the slot empty.
        """
        with torch.no_grad():
            return self.model.read(self.space.support(text, demonstrations))[0]

    def generate(
        self, text: torch.Tensor | None, demonstrations: torch.Tensor | None, *, seed: int | None = None
    ) -> Adapter:
        """Return the adapter that is generated for a task.

        Args:
            text: the reading of the task's description, fp32 [hidden] or [T, hidden]; None leaves the slot empty.
            demonstrations: the reading of demonstrations, fp32 [hidden] or [T, hidden]; None leaves the slot empty.
            seed: the seed with which the latent z is drawn; None takes the choice that the architecture repeats every
                time, such as the prior's mean.

        Raises:
            TrainingDivergedError: If the numbers of the adapter would not be finite.
        """
        return self.codec.decode(self.cores(text, demonstrations, seed=seed), rank=self.rank)

    def cores(
        self, text: torch.Tensor | None, demonstrations: torch.Tensor | None, *, seed: int | None = None
    ) -> torch.Tensor:
        """Return the cores of the adapter that ``generate`` returns, fp32 [modules, R, R]; the arguments are its.

        Raises:
            TrainingDivergedError: If they would not be finite.
        """
        with torch.no_grad():
            c = self.model.read(self.space.support(text, demonstrations))
            z = self.model.sample_latent(c, None if seed is None else torch.Generator().manual_seed(seed))
            tokens = self.model.decode(z, c)[0] * self.module_scale[:, None, None]
        if not tokens.isfinite().all():
            raise TrainingDivergedError(
                "the adapter that the generator makes is not finite",
                hint="train another generator, with a lower learning_rate in the train recipe",
            )
        return tokens

    def samples(
        self,
        text: torch.Tensor | None,
        demonstrations: torch.Tensor | None,
        count: int,
        seed: int,
        *,
        remembered: int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return several cores that a task may have, fp32 [modules, R, R] each, by a word on where they come from.

        A prior of neighbours gives those of the tasks that are most like this one, by their names; any other prior is
        drawn from.

        Args:
            text: as for ``generate``.
            demonstrations: as for ``generate``.
            count: the number of samples that are drawn.
            seed: the seed of the first draw; each further one has the next higher seed.
            remembered: the number of tasks at most, where the prior remembers some; None takes ``count``.
        """
        with torch.no_grad():
            c = self.model.read(self.space.support(text, demonstrations))
            likeliest = self.model.likeliest(c, remembered or count)
        if likeliest is None:
            return {f"seed {at}": self.cores(text, demonstrations, seed=at) for at in range(seed, seed + count)}
        tasks, latents = likeliest
        names = [name for name in self.manifest.tasks if name in self.manifest.adapters]
        with torch.no_grad():
            tokens = self.model.decode(latents, c.expand(len(latents), -1)) * self.module_scale[:, None, None]
        return {f"{REMEMBERED}{names[task]}": cores for task, cores in zip(tasks, tokens, strict=True)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the named tensors of ``generator.safetensors``: all that generation needs, without the encoder."""
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
    """Return the root mean square of each module's core numbers over all adapters, fp32 [modules].

    Args:
        tokens: the cores of all adapters, fp32 [adapters, modules, R, R].
        mask: True where a core has numbers, bool [modules, R, R].
    """
    squares = (tokens.square() * mask).sum(dim=(0, 2, 3))
    return (squares / (mask.sum(dim=(1, 2)) * tokens.shape[0])).sqrt().clamp(min=1e-8)


def stored(generator: Generator, storage: Storage) -> Generator:
    """Return the generator with the rounding that storing its numbers brings, as a later load would give it."""
    return _assembled(generator, unpacked(packed(generator.tensors(), storage)))


def save_generator(folder: Path, generator: Generator, storage: Storage = "fp32", *, about: GeneratorAbout) -> None:
    """Write the generator's weights, then its JSON.

    Args:
        folder: the folder to write both files to.
        generator: the generator to write.
        storage: the form in which its numbers are stored: ``fp32``, ``bf16`` or ``int8``.
        about: what the JSON says beyond what loading needs, such as tasks, recipe and licences.

    Raises:
        OutOfSpaceError: If the disk is full.
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
    """Read the ``generator.json`` of a folder.

    Raises:
        NotFoundError: If the folder holds no generator.
        CorruptFileError: If the file is broken, or of a schema that this version cannot read.
    """
    if not (folder / CONFIG).is_file():
        raise NotFoundError("there is no generator", where=str(folder), hint="train one: icmlora train")
    return GeneratorManifest.read(folder / CONFIG)


def load_generator(folder: Path) -> Generator:
    """Load a generator from its folder.

    Raises:
        NotFoundError: If the folder holds no generator.
        CorruptFileError: If a file is broken, a number is not finite, or the weights are not those that the JSON
            describes.
    """
    manifest = read_config(folder)
    tensors = read_safetensors(folder / WEIGHTS)
    if files.sha256_file(folder / WEIGHTS) != manifest.sha256:
        raise CorruptFileError(
            f"{WEIGHTS} is not the file that {CONFIG} describes", where=str(folder), hint=f"{REPAIR} && icmlora train"
        )
    sizes = {name: value for name, value in manifest.network if name in NetworkSizes.model_fields}
    spec = None if manifest.frame is None else FrameSpec(manifest.frame.seed, manifest.frame.width)
    shapes = Layout(tuple(ModuleShape(*row) for row in manifest.layout.modules), manifest.layout.fan_in_fan_out)
    try:
        values = unpacked(tensors)
        for name, item in values.items():
            if item.is_floating_point() and not item.isfinite().all():
                raise CorruptFileError(f"{name} of the generator is not finite", hint=f"{REPAIR} && icmlora train")
        model = build(NetworkConfig(**sizes))
        codec = (
            Codec(shapes, (), (), model.config.width, manifest.base_model)
            if spec is None
            else seeded_frame(shapes, spec, manifest.base_model)
        )
        space = ConditionSpace.from_tensors(values)
        untrained = Generator(model, codec, space, values["module_scale"], manifest.rank, spec, manifest)
        generator = _assembled(untrained, values)
        # A manifest may name a higher rank than the codec's basis can give.
        return replace(generator, rank=min(manifest.rank, generator.codec.width))
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise CorruptFileError(f"the generator's files do not fit together: {error}", where=str(folder)) from error
    except CorruptFileError as error:
        raise CorruptFileError(error.message, where=str(folder), hint=error.hint) from error


def _assembled(like: Generator, tensors: dict[str, torch.Tensor]) -> Generator:
    """Return a generator of the same sizes and codec whose values are taken from the named tensors.

    Raises:
        CorruptFileError: If a tensor that generation needs is missing, or one is not part of the networks.
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
