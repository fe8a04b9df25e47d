"""Gradient steps per second of Cal-QL in calql and in d3rlpy, measured alternately on one machine.

    python benchmarks/peers.py [--sizes adroit antmaze laptop] [--seconds 60] [--threads 1]

creates d3rlpy's own environment under .cache/ at the first call (pip, CPU build of torch), starts one process of each
library with the same number of threads, lets them run blocks of gradient steps alternately, prints a table and writes
every block to results/peers.json.

The same on both sides: network widths (ReLU, two critics), batch of 256 drawn from 10,000 transitions (100 episodes of
100 steps), γ, τ, learning rates, Adam; n random actions, n of π(s), n of π(s′), importance sampled, bounded by the
Monte-Carlo return; the conservative weight, and in antmaze the Lagrange form with its gap; the target is the best of n
actions of π(s′) under the smaller critic (`max_q_backup=True, soft_q_backup=False`); float32.

Not the same:

* d3rlpy always evaluates π(s′) at s. Listing 1 of the paper does not. So `laptop` has 4 + 4 + 4 actions on both sides,
  which is equal work, and `laptop-listing` is what each library has to do for the listing: 4 + 4 + 0 here, 4 + 4 + 4
  there, one target action in both (there, the mean action).
* d3rlpy evaluates the data's action twice (TD error, conservative term), and its policy loss also computes gradients of
  the critics' weights, which it discards: about 4 % more multiplications than ours (9 % at the laptop's size). The
  log-std has a learned affine map here and a layer of its own beside the mean's there.
* There, critics and policy step one after the other; here all losses see the parameters before the step.
* d3rlpy draws transitions and sums up their returns in Python. Its second rate leaves all that out: one batch, made
  into tensors beforehand and used again. The ratio is against this second rate; ours always includes drawing.
* Ours is one compiled loop; its compilation is not in the rates but beside them, as `compile_s`. d3rlpy compiles only
  on CUDA.
* Ours is measured again with the estimate of the conservative term that `calql bench` measures, which d3rlpy does not
  have; with critics in bfloat16; and with both. d3rlpy's update is measured again under PyTorch's autocast to bfloat16,
  and ratios of ours in bfloat16 are against the faster of its two. Where Cal-QL learns with these as with the exact
  term in float32 is in results/README.md.

No evaluation on either side. The ratio depends on the processor: every row names it, with the terms of both sides. Peak
memory is of each whole process, interpreter and libraries included; ours holds four programs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".cache" / "peers"
REQUIREMENTS = [["torch==2.13.0"], ["d3rlpy==2.8.1"]]
"""Installed in this order: torch first, from whatever index pip is set up with; point it at a CPU build if there is a
choice, the default build of some indexes brings gigabytes of CUDA."""
ROUNDS = 8
EPISODES, LENGTH, BATCH = 100, 100, 256
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024

EQUAL_WORK = dict(num_random_actions=4, num_policy_actions=4, num_next_actions=4, num_target_actions=4)
LISTING = dict(num_random_actions=4, num_policy_actions=4, num_next_actions=0, num_target_actions=1)
SMALL = dict(actor_hidden=(128, 128), critic_hidden=(128, 128))
SIZES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "adroit": (45, 24, dict(actor_hidden=(512, 512), critic_hidden=(512, 512, 512), cql_alpha=1.0)),
    "antmaze": (29, 8, dict(cql_target_gap=0.8)),
    "laptop": (4, 2, SMALL | EQUAL_WORK),
    "laptop-listing": (4, 2, SMALL | LISTING),
}
"""|S|, |A|, and the fields of `calql.algorithms.CalQL` that differ from its defaults (the antmaze script's)."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds per size, over all blocks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "peers.json")
    parser.add_argument("--python", type=Path, help="an interpreter with d3rlpy; by default one is set up")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.worker:
        bind(args.threads)
        serve(WORKERS[args.worker](args.sizes[0], args.threads))
        return 0
    theirs = args.python or peer_python()
    rows = []
    for size in args.sizes:
        print(f"{size}: measuring for about {args.seconds:.0f} s", file=sys.stderr)
        terms = {"size": size, "cpu": cpu(), "threads": args.threads} | terms_of(size)
        rows.append(terms | compare(size, theirs, args.threads, args.seconds))
    show(rows, args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "benchmarks/peers.py", *(sys.argv[1:] if arguments is None else arguments)])
    record = {"command": command, "date": time.strftime("%Y-%m-%d"), "cpu": cpu(), "threads": args.threads}
    args.out.write_text(json.dumps(record | {"rows": rows}, indent=2) + "\n")
    return 0


def peer_python() -> Path:
    """The interpreter of an environment with d3rlpy, which the first call creates."""
    python = VENV / "bin" / "python"
    done = VENV / "installed.json"
    if not done.exists() or json.loads(done.read_text()) != REQUIREMENTS:
        print(f"installing d3rlpy in {VENV.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        for packages in REQUIREMENTS:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        done.write_text(json.dumps(REQUIREMENTS))
    return python


# -- the two sides -----------------------------------------------------------------------------------------------------


def episodes(size: str) -> dict[str, np.ndarray]:
    """Random episodes [100, 100, …] of the size's shapes; both sides learn from these."""
    observation, action, _ = SIZES[size]
    random = np.random.default_rng(0)
    return {
        "observations": random.normal(size=(EPISODES, LENGTH, observation)).astype(np.float32),
        "actions": random.uniform(-0.9, 0.9, (EPISODES, LENGTH, action)).astype(np.float32),
        "rewards": np.full((EPISODES, LENGTH), -1.0, np.float32),
    }


def returns_of(rewards: np.ndarray, discount: float) -> np.ndarray:
    """Discounted sum to the end of each episode, [episodes, steps]."""
    returns = rewards.copy()
    for step in reversed(range(rewards.shape[1] - 1)):
        returns[:, step] += discount * returns[:, step + 1]
    return returns


class Worker:
    """One library, ready to take gradient steps."""

    def __init__(self, kinds: dict[str, Callable[[int], None]], versions: dict[str, str], compile_s: float) -> None:
        self.kinds, self.versions, self.compile_s = kinds, versions, compile_s


def ours(size: str, count: int) -> Worker:
    """calql's `train_steps`, which draws its batches itself. Its number of threads follows from its CPU affinity."""
    from calql.training.speed import BFLOAT16, ESTIMATE, Size, stepper
    from calql.types import Transition

    data, shape = episodes(size), Size(*SIZES[size])
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in data.items()}
    following = np.concatenate([data["observations"][:, 1:], data["observations"][:, -1:]], axis=1)
    ones = np.ones(EPISODES * LENGTH, np.float32)
    transitions = Transition(
        flat["observations"],
        flat["actions"],
        flat["rewards"],
        following.reshape(flat["observations"].shape),
        ones,
        returns_of(data["rewards"], 0.99).reshape(-1),
    )
    modes = dict(whole={}, estimated=ESTIMATE, bfloat16=BFLOAT16, both=ESTIMATE | BFLOAT16)
    made = {
        mode: stepper(shape._replace(settings=shape.settings | settings), transitions)
        for mode, settings in modes.items()
    }
    return Worker(
        {mode: run for mode, (run, *_) in made.items()},
        {"calql": metadata.version("calql"), "jax": metadata.version("jax")},
        made["whole"][1],
    )


def d3rlpy(size: str, count: int) -> Worker:
    """d3rlpy's `sample_transition_batch` and `update` on `count` threads: its `fit` without the logging."""
    import torch
    from d3rlpy.algos import CalQLConfig
    from d3rlpy.dataset import MDPDataset
    from d3rlpy.models import VectorEncoderFactory
    from d3rlpy.torch_utility import TorchMiniBatch

    torch.set_num_threads(count)
    data = episodes(size)
    ends = np.zeros((EPISODES, LENGTH), np.float32)
    ends[:, -1] = 1.0
    dataset = MDPDataset(
        data["observations"].reshape(EPISODES * LENGTH, -1),
        data["actions"].reshape(EPISODES * LENGTH, -1),
        data["rewards"].reshape(-1),
        np.zeros(EPISODES * LENGTH, np.float32),
        timeouts=ends.reshape(-1),
    )
    algorithm = CalQLConfig(**peer_settings(SIZES[size][2], VectorEncoderFactory)).create(device="cpu:0")
    algorithm.build_with_dataset(dataset)
    batch = TorchMiniBatch.from_batch(
        dataset.sample_transition_batch(BATCH), gamma=0.99, compute_returns_to_go=True, device="cpu:0"
    )

    def whole(steps: int) -> None:
        for _ in range(steps):
            algorithm.update(dataset.sample_transition_batch(BATCH))

    def update(steps: int) -> None:
        for step in range(steps):
            algorithm.impl.update(batch, step)

    def bfloat16(steps: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            update(steps)

    versions = {name: metadata.version(name) for name in ("d3rlpy", "torch")}
    return Worker({"whole": whole, "update": update, "bfloat16": bfloat16}, versions, 0.0)


def terms_of(size: str) -> dict[str, Any]:
    """What both sides compute in an update, and where they differ."""
    from calql.algorithms import CalQL

    observation, action, settings = SIZES[size]
    rule = CalQL(**settings)
    theirs = peer_settings(settings, list)
    actions = [rule.num_random_actions, rule.num_policy_actions, rule.num_next_actions]
    samples, best = theirs["n_action_samples"], theirs["max_q_backup"]
    return {
        "observation": observation,
        "action": action,
        "batch_size": BATCH,
        "critics": rule.num_critics,
        "critic_hidden": rule.critic_hidden,
        "actor_hidden": rule.actor_hidden,
        "precision": {
            "ours": dict.fromkeys(("whole", "estimated"), "float32") | dict.fromkeys(("bfloat16", "both"), "bfloat16"),
            "d3rlpy": dict.fromkeys(("whole", "update"), "float32") | {"bfloat16": "autocast to bfloat16"},
        },
        "actions_per_state": {"ours": actions, "d3rlpy": [samples] * 3},
        "target_actions": {"ours": rule.num_target_actions, "d3rlpy": samples if best else 1},
        "compilation": {"ours": "XLA, not in the rates (compile_s)", "d3rlpy": "none: only on CUDA"},
        "evaluation": "none on either side",
    }


WORKERS = {"ours": ours, "d3rlpy": d3rlpy}


def peer_settings(settings: dict[str, Any], encoder: Callable[..., Any]) -> dict[str, Any]:
    """Fields of d3rlpy's `CalQLConfig` for fields of our `CalQL` (defaults filled in)."""
    antmaze = dict(actor_hidden=(256, 256), critic_hidden=(256,) * 4, num_random_actions=10, num_target_actions=10)
    ours = antmaze | dict(cql_alpha=5.0, cql_target_gap=None) | settings
    gap = ours["cql_target_gap"]
    return dict(
        batch_size=BATCH,
        gamma=0.99,
        tau=0.005,
        n_critics=2,
        actor_learning_rate=1e-4,
        critic_learning_rate=3e-4,
        temp_learning_rate=1e-4,
        alpha_learning_rate=0.0 if gap is None else 3e-4,
        initial_alpha=1.0 if gap is None else float(np.e),
        alpha_threshold=gap or 0.0,
        conservative_weight=ours["cql_alpha"],
        n_action_samples=ours["num_random_actions"],
        soft_q_backup=False,
        max_q_backup=ours["num_target_actions"] > 1,
        actor_encoder_factory=encoder(list(ours["actor_hidden"])),
        critic_encoder_factory=encoder(list(ours["critic_hidden"])),
    )


# -- measuring ---------------------------------------------------------------------------------------------------------


def serve(worker: Worker) -> None:
    """Answer requests `kind count` on standard input with the seconds they took, until it closes."""
    answer({"kinds": list(worker.kinds), "versions": worker.versions, "compile_s": worker.compile_s})
    for line in sys.stdin:
        kind, count = line.split()
        start, cpu_start = time.perf_counter(), time.process_time()
        worker.kinds[kind](int(count))
        answer(
            {
                "wall_s": time.perf_counter() - start,
                "cpu_s": time.process_time() - cpu_start,
                "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT / 1e6,
            }
        )


def answer(record: dict[str, Any]) -> None:
    print("@" + json.dumps(record), flush=True)


class Client:
    """The other end of `serve`, in a separate process."""

    def __init__(self, python: Path, worker: str, size: str, count: int) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = os.environ | {name: str(count) for name in names}
        environment.setdefault("JAX_PLATFORMS", "cpu")
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `close`)
        self.process = subprocess.Popen(
            [python, __file__, "--worker", worker, "--sizes", size, "--threads", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )
        self.about = self.read()

    def read(self) -> dict[str, Any]:
        """The next answer; other output of the libraries is skipped."""
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        self.log.seek(0)
        raise RuntimeError(f"{shlex.join(map(str, self.process.args))} ended early:\n{self.log.read()}")

    def run(self, kind: str, count: int) -> dict[str, Any]:
        """Let the worker take `count` steps."""
        self.process.stdin.write(f"{kind} {count}\n")
        self.process.stdin.flush()
        return self.read() | {"count": count}

    def close(self) -> None:
        """Stop the process."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def bind(count: int) -> None:
    """Pin this process to the last `count` of its processors, before any library starts threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])


def compare(size: str, theirs: Path, count: int, seconds: float) -> dict[str, Any]:
    """Alternating blocks of both libraries: every block, and the summary."""
    clients = {
        "ours": Client(Path(sys.executable), "ours", size, count),
        "d3rlpy": Client(theirs, "d3rlpy", size, count),
    }
    turns = [(name, kind) for name, client in clients.items() for kind in client.about["kinds"]]
    blocks: dict[tuple[str, str], list[dict[str, Any]]] = {turn: [] for turn in turns}
    steps = {}
    for name, kind in turns:
        clients[name].run(kind, 2)
        once = clients[name].run(kind, 2)["wall_s"] / 2
        steps[name, kind] = max(1, round(seconds / ROUNDS / len(turns) / once))
    for _ in range(ROUNDS):
        for name, kind in turns:
            blocks[name, kind].append(clients[name].run(kind, steps[name, kind]))
    for client in clients.values():
        client.close()
    return summary({f"{name}_{kind}": done for (name, kind), done in blocks.items()}) | {
        "compile_s": clients["ours"].about["compile_s"],
        "versions": clients["ours"].about["versions"] | clients["d3rlpy"].about["versions"],
    }


def summary(blocks: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Best rates, memory and ratios of alternating blocks. Ratios are relative to d3rlpy's update alone.

    `ratio` compares best blocks; `ratio_cpu_time` compares medians of CPU time, which exclude other programs. Those of
    our modes in bfloat16 are relative to the faster of d3rlpy's update in float32 and its autocast to bfloat16.
    """
    best = {name: max(block["count"] / block["wall_s"] for block in done) for name, done in blocks.items()}
    cpu_time = {name: median(block["cpu_s"] / block["count"] for block in done) for name, done in blocks.items()}
    fastest = max(best["d3rlpy_update"], best["d3rlpy_bfloat16"])
    return {
        "updates_per_s": best,
        "ratio": best["ours_whole"] / best["d3rlpy_update"],
        "ratio_with_sampling": best["ours_whole"] / best["d3rlpy_whole"],
        "ratio_cpu_time": cpu_time["d3rlpy_update"] / cpu_time["ours_whole"],
        "ratio_estimated": best["ours_estimated"] / best["d3rlpy_update"],
        "ratio_bfloat16": best["ours_bfloat16"] / fastest,
        "ratio_both": best["ours_both"] / fastest,
        "memory_mb": {
            side: max(block["memory_mb"] for name, done in blocks.items() if name.startswith(side) for block in done)
            for side in ("ours", "d3rlpy")
        },
        "blocks": blocks,
    }


def show(rows: list[dict[str, Any]], count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    rates = {
        "ours_whole": "ours",
        "ours_estimated": "estimated",
        "ours_bfloat16": "bfloat16",
        "ours_both": "both",
        "d3rlpy_whole": "theirs",
        "d3rlpy_update": "without sampling",
        "d3rlpy_bfloat16": "in bfloat16",
    }
    ratios = {
        "ratio": "ratio",
        "ratio_cpu_time": "in CPU time",
        "ratio_estimated": "estimated",
        "ratio_bfloat16": "bfloat16",
        "ratio_both": "both",
    }
    speeds, compared = Table("size", *rates.values()), Table("size", *ratios.values(), "our MB", "their MB")
    for row in rows:
        speeds.add_row(row["size"], *(f"{row['updates_per_s'][name]:.4g}" for name in rates))
        memory = (f"{row['memory_mb'][side]:.0f}" for side in ("ours", "d3rlpy"))
        compared.add_row(row["size"], *(f"{row[name]:.2f}" for name in ratios), *memory)
    Console().print(speeds)
    Console().print(compared)
    print(
        f"gradient steps per second, {cpu()}, threads: {count}; the ratio is ours to theirs without sampling (above 1: "
        "ours is faster), of best blocks and of medians of CPU time; then with our estimated conservative term, with "
        "our critics in bfloat16, and with both, these two relative to the faster of theirs in float32 and bfloat16"
    )


def cpu() -> str:
    """Model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    sys.exit(main())
