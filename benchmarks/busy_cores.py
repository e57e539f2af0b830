"""How much slower is a harvest step where other work is on the same cores, by torch's threads and how they wait?

The threads of OpenMP spin while they wait for one another, which steals the cores from whatever else runs, and from
one another. Each row is a process of its own, as both settings are read when torch is loaded. The baseline is the first
row on idle cores. ``--spinners`` processes multiply matrices beside the busy rows, one thread each.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

SETTINGS: tuple[tuple[str, dict[str, str]], ...] = (
    ("all threads, as torch has it", {}),
    ("all threads, passive waiting", {"OMP_WAIT_POLICY": "PASSIVE"}),
    ("all threads, 1,000 spins", {"GOMP_SPINCOUNT": "1000"}),
    ("one thread", {"OMP_NUM_THREADS": "1"}),
)
SPIN = "import torch; torch.set_num_threads(1); a = torch.randn(1024, 1024)\nwhile True: a @ a"


def steps(count: int) -> None:
    """Print the median of the seconds of a training step of a frame on SmolLM2-135M, 12 rows of 24 tokens."""
    import torch

    from icmlora_cli.config.harvest import HarvestRecipe
    from icmlora_cli.disk.home import Home
    from icmlora_cli.lm.batching import answer_log_probs, collate
    from icmlora_cli.lm.load import load_base
    from icmlora_cli.lm.prompts import Encoded
    from icmlora_cli.lm.trainers import make_trainer
    from icmlora_cli.workflows.base.pull import resolve

    loaded = load_base(resolve("smollm2-135m", Home.from_environment()), device="cpu")
    trainer = make_trainer(loaded, HarvestRecipe(parametrization="frame", rank=16))
    trainer.reset()
    ids = torch.randint(100, 40_000, (12, 24), generator=torch.Generator().manual_seed(0)).tolist()
    batch = collate([Encoded(tuple(row[:20]), tuple(row[20:])) for row in ids], 0, loaded.device)
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        log_probs, _ = answer_log_probs(trainer.model, batch)
        torch.autograd.backward(-log_probs.mean())
        seconds.append(time.perf_counter() - started)
    print(statistics.median(seconds[2:]))


def measured(extra: dict[str, str], options: argparse.Namespace) -> float:
    """Return the median seconds of a step in a process with some further environment variables."""
    command = [sys.executable, __file__, "--child", "--steps", str(options.steps)]
    done = subprocess.run(command, env=os.environ | extra, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure all settings on idle and on busy cores, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--spinners", type=int, default=os.cpu_count())
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return steps(options.steps)
    idle = [measured(extra, options) for _, extra in SETTINGS]
    beside = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(options.spinners)]
    try:
        busy = [measured(extra, options) for _, extra in SETTINGS]
    finally:
        for process in beside:
            process.kill()
    print("| setting | idle | ratio | busy | ratio |\n|---|---|---|---|---|")
    for (name, _), alone, other in zip(SETTINGS, idle, busy, strict=True):
        print(f"| {name} | {alone:.2f} s | {alone / idle[0]:.2f} | {other:.2f} s | {other / idle[0]:.2f} |")
    return None


if __name__ == "__main__":
    main()
