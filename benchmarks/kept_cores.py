"""Keep harvests in a frame as their cores alone, and put them back into a registry, so that none is harvested again.

``save FILE`` writes the cores of all built-in tasks that the registry has harvested by one recipe, in half precision,
with what their manifests say. ``restore FILE`` makes adapters of them in the registry: a task whose data, base or
recipe would give another harvest today is left out, and said. The rounding is the only difference from the harvest.
``builtin_cores.safetensors`` beside this file holds 50 of harvest/builtin on SmolLM2-135M.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.recipes import resolve as resolve_recipe
from icmlora_cli.disk.home import Home
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.registry.adapters import MANIFEST, AdapterRecord, AdapterStore, checkpoint_of, read_record
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.tasks.builtin import builtin_names
from icmlora_cli.weights.adapter import read_adapter, write_adapter
from icmlora_cli.weights.codec import Codec
from icmlora_cli.weights.frame import FrameSpec, framed_adapter, seeded_frame
from icmlora_cli.workflows.base.pull import resolve
from icmlora_cli.workflows.harvest.keys import harvest_key

HERE = Path(__file__).parent


class Kept:
    """The registry, the base and the frame of a harvest recipe.

    Args:
        recipe: The name or path of a harvest recipe whose parametrization is ``frame``.
        base: The name of the base.
    """

    def __init__(self, recipe: str, base: str) -> None:
        """Load the base and draw the frame."""
        self.home = Home.from_environment()
        self.recipe: HarvestRecipe = resolve_recipe(HarvestRecipe, Path(recipe), "harvest", {})
        self.base = resolve(base, self.home)
        self.loaded = load_base(self.base, device="cpu")
        layout = target_layout(self.loaded.model, self.recipe.target_modules)
        self.frame: Codec = seeded_frame(layout, FrameSpec(self.recipe.seed, self.recipe.rank), self.base.model_id)
        self.store, self.tasks = AdapterStore(self.home), TaskStore(self.home)

    def save(self, path: Path) -> None:
        """Write the cores of all built-in tasks that are harvested by the recipe."""
        tensors, about = {}, {}
        for name in sorted(set(builtin_names()) & set(self.tasks.names())):
            task = self.tasks.get(name)
            record = self.store.find(self.base.slug, name, harvest_key(self.base, task, self.recipe))
            if record is not None:
                factors = read_adapter(record.last).factors
                cores = [
                    u.T @ factors[item.name].lora_b.float()
                    for u, item in zip(self.frame.left, self.frame.layout.modules, strict=True)
                ]
                tensors[name] = torch.stack(cores).half().contiguous()
                about[name] = (record.folder / MANIFEST).read_text(encoding="utf-8")
        save_file(tensors, path, metadata=about)
        print(f"{len(tensors)} tasks, {path.stat().st_size / 1e6:.2f} MB")

    def restore(self, path: Path) -> None:
        """Make the registry's adapters of the kept cores."""
        with safe_open(path, framework="pt") as file:
            for name, manifest in sorted(file.metadata().items()):
                key = harvest_key(self.base, self.tasks.add_builtin(name), self.recipe)
                record = _read(manifest)
                if key != record.key:
                    print(f"{name}: another base, recipe or data: left out")
                elif self.store.find(self.base.slug, name, key) is None:
                    self._record(record, file.get_tensor(name).float())

    def _record(self, record: AdapterRecord, cores: torch.Tensor) -> None:
        folder = self.store.folder(self.base.slug, record.task, record.key)
        checkpoint = folder / f"checkpoint-{self.recipe.steps:05d}"
        write_adapter(checkpoint, framed_adapter(self.frame, cores), self.loaded.shapes, revision=self.base.revision)
        self.store.record(replace(record, folder=folder, checkpoints=(checkpoint_of(checkpoint),), sensitivity=None))


def _read(manifest: str) -> AdapterRecord:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, MANIFEST)
        path.write_text(manifest, encoding="utf-8")
        return read_record(path)


def main() -> None:
    """Save or restore."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("save", "restore"))
    parser.add_argument("file", type=Path, nargs="?", default=HERE / "builtin_cores.safetensors")
    parser.add_argument("--recipe", default="harvest/builtin")
    parser.add_argument("--base", default="smollm2-135m")
    options = parser.parse_args()
    kept = Kept(options.recipe, options.base)
    getattr(kept, options.what)(options.file)


if __name__ == "__main__":
    main()
