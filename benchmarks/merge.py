"""Merging a LoRA of rank 16 on q, k, v and o into a Llama of random bf16 weights: memory and time.

Each way runs in processes of its own: icmlora's merge, ``cp -r`` of the base, PEFT's load, merge_and_unload and
save_pretrained, and mergekit where it is installed. All of them end with their output on the disk (fsync). Memory is
the peak resident size above that after the imports; times are medians, without the imports. The base is recorded
before, as ``icmlora base pull`` does; what that takes (SHA-256 of its files, once) is told apart.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RANK = 16
SHARD = 500_000_000  # bytes
MEMORY_BAR, SPEED_BAR = 1.5, 0.70  # peak / largest shard at most; throughput / that of cp at least
NAMES = ("base", "adapter", "out", "home")


def make_inputs(root: Path, gigabytes: float) -> None:
    """Write base and adapter."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from icmlora_cli.lm.load import quiet_transformers
    from icmlora_cli.lm.meta_model import folder_shapes
    from icmlora_cli.weights.adapter import Adapter, Factors, write_adapter

    large = gigabytes >= 0.5
    hidden, inner, vocabulary = (2048, 5632, 32000) if large else (256, 704, 4000)
    layer = 2 * (4 * hidden * hidden + 3 * hidden * inner)  # bytes
    layers = max(1, round((gigabytes * 1e9 - 4 * hidden * vocabulary) / layer))
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    with quiet_transformers():
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        model.save_pretrained(root / "base", max_shard_size=min(SHARD, int(gigabytes * 2.5e8)))
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(root / "base")
    factors = {
        name: Factors(torch.randn(RANK, hidden) * 0.01, torch.randn(hidden, RANK) * 0.01)
        for name, _ in model.named_modules()
        if name.endswith(("q_proj", "k_proj", "v_proj", "o_proj"))
    }
    shapes = folder_shapes(root / "base", "base")
    write_adapter(root / "adapter", Adapter(str(root / "base"), 2.0 * RANK, factors), shapes)


def record(root: Path) -> Callable[[], None]:
    """Put the base at hand."""
    from icmlora_cli.disk.home import Home
    from icmlora_cli.workflows.base.pull import pull

    home = Home(root / "home", root / "home" / "cache")

    def work() -> None:
        pull(str(root / "base"), home, offline=True)

    return work


def icmlora(root: Path) -> Callable[[], None]:
    """Merge as ``icmlora merge`` does."""
    import transformers.models.llama.modeling_llama  # noqa: F401 - what building its outline imports

    from icmlora_cli.disk.home import Home
    from icmlora_cli.workflows.base.pull import resolve
    from icmlora_cli.workflows.merge.merge import find_shares, run

    home = Home(root / "home", root / "home" / "cache")

    def work() -> None:
        base = resolve(str(root / "base"), home, offline=True)
        run(find_shares([(str(root / "adapter"), 1.0)], home), root / "out", base)

    return work


def copy(root: Path) -> Callable[[], None]:
    """Copy the base."""
    from icmlora_cli.disk.files import sync_tree

    def work() -> None:
        subprocess.run(["cp", "-r", str(root / "base"), str(root / "out")], check=True)
        sync_tree(root / "out")

    return work


def peft(root: Path) -> Callable[[], None]:
    """Merge as PEFT does."""
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from icmlora_cli.disk.files import sync_tree
    from icmlora_cli.lm.load import quiet_transformers

    def work() -> None:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.bfloat16)
            PeftModel.from_pretrained(model, str(root / "adapter")).merge_and_unload().save_pretrained(
                root / "out", max_shard_size=SHARD
            )
            AutoTokenizer.from_pretrained(root / "base").save_pretrained(root / "out")
        sync_tree(root / "out")

    return work


def mergekit(root: Path) -> Callable[[], None]:
    """Merge as mergekit does, which has PEFT merge the LoRA first."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    from icmlora_cli.disk.files import sync_tree

    def work() -> None:
        models = [{"model": f"{root / 'base'}+{root / 'adapter'}"}]
        config = {"merge_method": "passthrough", "models": models, "dtype": "bfloat16"}
        options = MergeOptions(lora_merge_cache=str(root / "home" / "mergekit"), out_shard_size=SHARD)
        run_merge(MergeConfiguration.model_validate(config), str(root / "out"), options=options)
        sync_tree(root / "out")

    return work


WAYS = {way.__name__: way for way in (record, icmlora, copy, peft, mergekit)}


def resident(field: str) -> int:
    """Return VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def child(root: Path, way: str) -> None:
    """Import what a way needs, then do it; print seconds and bytes."""
    work = WAYS[way](root)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": resident("VmHWM") - before}))


def measured(root: Path, way: str) -> dict[str, float]:
    """Run one way in a process of its own."""
    for path in (root / "out", root / "home" / "mergekit"):
        shutil.rmtree(path, ignore_errors=True)
    os.sync()
    command = [sys.executable, __file__, "--root", str(root), "--way", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def main() -> None:
    """Make the inputs, run each way in turns, and print a row for each, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the base")
    parser.add_argument("--runs", type=int, default=3, help="of icmlora and cp, in turns; the others run once")
    parser.add_argument("--folder", type=Path, help="where the files go for the time; the temporary folder by default")
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=[*WAYS, "inputs"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way == "inputs":
        make_inputs(options.root, options.gigabytes)
    elif options.way:
        child(options.root, options.way)
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as root:
            compare(Path(root), options.gigabytes, options.runs)


def compare(root: Path, gigabytes: float, runs: int) -> None:
    """Run each way, and print what it took."""
    making = [sys.executable, __file__, "--root", str(root), "--way", "inputs", "--gigabytes", str(gigabytes)]
    subprocess.run(making, check=True)
    shards = sorted(path.stat().st_size for path in (root / "base").glob("*.safetensors"))
    print(f"base: {sum(shards) / 1e9:.2f} GB in {len(shards)} files, the largest {shards[-1] / 1e6:.0f} MB")
    print(f"recording it (SHA-256, once): {measured(root, 'record')['seconds']:.1f} s")
    ours, plain = [], []
    for _ in range(runs):
        plain.append(measured(root, "copy"))
        ours.append(measured(root, "icmlora"))
    rows = {"cp -r": plain, "icmlora": ours, "PEFT": [measured(root, "peft")]}
    if importlib.util.find_spec("mergekit") is None:
        print("mergekit: not installed")
    else:
        rows["mergekit"] = [measured(root, "mergekit")]
    took = {name: statistics.median(item["seconds"] for item in own) for name, own in rows.items()}
    for name, own in rows.items():
        told = "" if name == "cp -r" else f", peak {max(item['peak'] for item in own) / 1e6:.0f} MB"
        print(f"{name}: {took[name]:.2f} s, {sum(shards) / 1e6 / took[name]:.0f} MB/s{told}")
    print(f"bars: peak / largest file at most {MEMORY_BAR}, throughput / cp at least {SPEED_BAR}")
    for name, own in rows.items():
        if name != "cp -r":
            peak, speed = max(item["peak"] for item in own) / shards[-1], took["cp -r"] / took[name]
            print(f"{name}: peak / largest file {peak:.2f}, throughput / cp {speed:.2f}")


if __name__ == "__main__":
    main()
