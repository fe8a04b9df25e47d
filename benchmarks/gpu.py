"""The parts of `gpu.sh`, one per call: `python benchmarks/gpu.py PART --seconds N --out FOLDER --scratch FOLDER`.

Every measurement is appended to FOLDER/results.jsonl as soon as it is made. The measured function is
`calql.training.learner.train_steps` (draw, losses, optimisers, target update in one compiled loop) in blocks of 50
gradient steps, as in a run, waiting for the result after each; batch 256, the sizes of `calql bench`.

The precisions are those of float32 matrix products. JAX's `default` lets an Ampere GPU or a newer one round their
inputs to TF32 (10 bits of mantissa, sums in float32); `highest` is float32 throughout. Part `info` determines which one
is used from the error of a product. PyTorch uses float32 by default: d3rlpy is measured both ways.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import peers  # the file in this folder

BLOCK = 50
PRECISIONS = {"default": "high", "highest": "highest"}
"""JAX's name → PyTorch's name of the same precision."""
THEIR_SIZE = {"adroit": "adroit", "antmaze": "antmaze", "laptop": "laptop-listing"}
"""Size of `calql bench` → the same in peers.py."""
TASK, METHODS = "antmaze-large-diverse", ("cal-ql", "cql")
LIMIT_MB = 16
"""Larger packed runs are reported."""
GRAPHS = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL --xla_gpu_graph_min_graph_size=1"

FULL = dict(
    sizes=("antmaze", "adroit", "laptop"), precisions=("default", "highest"), processes=(1, 2, 4, 8, 16),
    seeds=(4, 8, 16), block_s=1.5, rounds=2, transitions=None,
)  # fmt: skip
TOY = dict(
    sizes=("laptop",), precisions=("default",), processes=(1, 2), seeds=(2,), block_s=0.1, rounds=1, transitions=500
)


class Part:
    """Time budget and output files of one part."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.name = args, args.part
        self.end = time.monotonic() + args.seconds
        for name, value in (TOY if args.rehearse else FULL).items():
            setattr(self, name, value)
        self.block = 5 if args.rehearse else BLOCK

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def record(self, **row: Any) -> None:
        """Append a line to results.jsonl."""
        line = json.dumps({"part": self.name} | row)
        print(line, flush=True)
        with (self.args.out / "results.jsonl").open("a") as file:
            file.write(line + "\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "table", "worker"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "calql-gpu")
    parser.add_argument("--rehearse", action="store_true", help="toy budgets, on the CPU")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of train")
    parser.add_argument("--workers", type=int, default=1, help="processes of data")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=PRECISIONS, default="default", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.part == "worker":
        serve(*WORKERS[args.worker](args))
    elif args.part == "table":
        print(table(read_rows(args.out / "results.jsonl")))
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("cut off: the time is over"))  # so that all is cleaned up
        PARTS[args.part](Part(args))
    return 0


# -- workers: processes that take gradient steps on request ------------------------------------------------------------

Run = Callable[[int], Any]


def ours(args: argparse.Namespace) -> tuple[dict[str, Run], dict[str, Any]]:
    """calql's `train_steps` of every size, with its compile time (or time to read the cache) and memory."""
    import jax

    from calql.training.speed import SIZES, stepper

    runs, compile_s = {}, {}
    with jax.default_matmul_precision(args.precision):
        for size in args.sizes:
            runs[size], compile_s[size], _ = stepper(SIZES[size])
            runs[size](1)
    return runs, {"compile_s": compile_s, "device_memory_mb": device_memory_mb()}


def d3rlpy(args: argparse.Namespace) -> tuple[dict[str, Run], dict[str, Any]]:
    """d3rlpy's update of one size: `eager` and `compiled` (torch.compile and CUDA graphs), without or with sampling.

    `update` repeats one batch that lies on the device; `whole` is what d3rlpy's own `fit` does at each
    step, without logging.
    """
    import torch
    from d3rlpy.algos import CalQLConfig
    from d3rlpy.dataset import MDPDataset
    from d3rlpy.models import VectorEncoderFactory
    from d3rlpy.torch_utility import TorchMiniBatch

    size, cuda = THEIR_SIZE[args.sizes[0]], torch.cuda.is_available()
    device, wait = ("cuda:0", torch.cuda.synchronize) if cuda else ("cpu:0", lambda: None)
    torch.set_float32_matmul_precision(PRECISIONS[args.precision])
    data, count = peers.episodes(size), peers.EPISODES * peers.LENGTH
    ends = [[step == peers.LENGTH - 1 for step in range(peers.LENGTH)]] * peers.EPISODES
    dataset = MDPDataset(
        data["observations"].reshape(count, -1),
        data["actions"].reshape(count, -1),
        data["rewards"].reshape(-1),
        0 * data["rewards"].reshape(-1),
        timeouts=peers.np.array(ends, peers.np.float32).reshape(-1),
    )
    settings = peers.peer_settings(peers.SIZES[size][2], VectorEncoderFactory)

    def runs_of(compiled: bool) -> dict[str, Run]:
        algorithm = CalQLConfig(**settings, compile_graph=compiled).create(device=device)
        algorithm.build_with_dataset(dataset)
        batch = TorchMiniBatch.from_batch(
            dataset.sample_transition_batch(peers.BATCH), gamma=0.99, compute_returns_to_go=True, device=device
        )

        def update(steps: int) -> None:
            for step in range(steps):
                algorithm.impl.update(batch, step)
            wait()

        def whole(steps: int) -> None:
            for _ in range(steps):
                algorithm.update(dataset.sample_transition_batch(peers.BATCH))
            wait()

        update(10)
        return {"update": update, "whole": whole}

    runs, prepare_s, errors = {}, {}, {}
    for name, compiled in {"eager": False, **({"compiled": True} if cuda else {})}.items():
        start = time.perf_counter()
        try:
            made = runs_of(compiled)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"[:500]
            continue
        runs |= {f"{name} {kind}": run for kind, run in made.items()}
        prepare_s[name] = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated() / 1e6 if cuda else None
    return runs, {"prepare_s": prepare_s, "errors": errors, "device_memory_mb": memory}


WORKERS = {"ours": ours, "d3rlpy": d3rlpy}


def serve(runs: dict[str, Run], about: dict[str, Any]) -> None:
    """Answer requests `{what, at, seconds, block}` on standard input with the steps taken, until it closes."""
    peers.answer(about | {"runs": list(runs)})
    for line in sys.stdin:
        asked = json.loads(line)
        time.sleep(max(0.0, asked["at"] - time.time()))
        start, count = time.perf_counter(), 0
        while (taken := time.perf_counter() - start) < asked["seconds"]:
            runs[asked["what"]](asked["block"])
            count += asked["block"]
        peers.answer({"rate": count / taken})


class Client:
    """The other end of `serve`."""

    def __init__(self, part: Part, worker: str, sizes: tuple[str, ...], precision: str, **environment: str) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `close`)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "worker", "--worker", worker, "--precision", precision, "--sizes", *sizes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | environment,
        )

    read = peers.Client.read

    def tell(self, what: str, at: float, seconds: float, block: int) -> None:
        """Let it take steps from time `at` on, for `seconds`."""
        self.process.stdin.write(json.dumps(dict(what=what, at=at, seconds=seconds, block=block)) + "\n")
        self.process.stdin.flush()

    close = peers.Client.close


@contextlib.contextmanager
def started(clients: list[Client]) -> Iterator[list[dict[str, Any]]]:
    """The workers' first messages once all are ready; stops the workers afterwards."""
    try:
        yield [client.read() for client in clients]
    finally:
        for client in clients:
            client.process.kill()
            client.close()


def together(clients: list[Client], what: str, seconds: float, block: int) -> float:
    """Update steps/s of all workers together, running at the same time."""
    at = time.time() + 0.2
    for client in clients:
        client.tell(what, at, seconds, block)
    return sum(client.read()["rate"] for client in clients)


# -- parts -------------------------------------------------------------------------------------------------------------


def info(part: Part) -> None:
    """Versions, the device, and the error of a float32 matrix product in either precision."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    if jax.default_backend() != "gpu" and not part.args.rehearse:
        raise SystemExit(f"JAX sees no GPU here, only {jax.devices()}; rehearse on the CPU with --rehearse")
    names = ("calql", "jax", "jaxlib", "jax-cuda13-plugin", "flax", "optax", "numpy", "gymnasium", "mujoco", "torch")
    versions = {}
    for name in (*names, "d3rlpy", "triton"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    x = np.random.default_rng(0).normal(size=(2, 512, 512)).astype(np.float32)
    exact = x[0].astype(np.float64) @ x[1].astype(np.float64)
    errors = {}
    for precision in PRECISIONS:
        with jax.default_matmul_precision(precision):
            product = np.asarray(jax.jit(jnp.matmul)(x[0], x[1]), np.float64)
        errors[precision] = float(np.linalg.norm(product - exact) / np.linalg.norm(exact))
    part.record(
        device=jax.devices()[0].device_kind,
        cpu=peers.cpu(),
        cores=os.cpu_count(),
        python=sys.version.split()[0],
        versions=versions,
        smi=smi("name,driver_version,memory.total,clocks.max.sm,power.limit"),
        product_error=errors,
        arithmetic={name: "float32" if error < 1e-5 else "TF32" for name, error in errors.items()},
    )


def data(part: Part) -> None:
    """Build the data; building is resumable and gives the same data for any number of workers."""
    from calql.cli.common import build
    from calql.paper.tasks import get_task

    start = time.perf_counter()
    workers = part.args.workers
    made = build(get_task(TASK), transitions=part.transitions, workers=workers)
    part.record(dataset=made, workers=workers, seconds=time.perf_counter() - start)


def compile_all(part: Part) -> None:
    """Fill JAX's cache: the first program alone, so that its time is meaningful, the others four at a time."""
    import jax

    from calql.training.speed import SIZES, stepper

    def single(size: str, precision: str) -> tuple[dict[str, Any], float]:
        with jax.default_matmul_precision(precision):
            return {"size": size, "precision": precision}, stepper(SIZES[size])[1]

    def seeds(size: str, count: int) -> tuple[dict[str, Any], float]:
        return {"size": size, "seeds": count}, seeds_stepper(size, count)[1]

    todo = [partial(single, size, precision) for precision in part.precisions for size in modes(part, precision)]
    todo += [partial(seeds, size, count) for size, count in seed_counts(part)]
    with ThreadPoolExecutor(4) as pool:
        for number, result in enumerate([todo[0](), *pool.map(lambda call: call(), todo[1:])]):
            part.record(**result[0], compile_s=result[1], beside_others=number > 0)


def modes(part: Part, precision: str) -> list[str]:
    """The sizes, each also with the estimated conservative term, and in the default precision with that and critics in
    bfloat16."""
    others = ("-estimated", "-estimated-bfloat16") if precision == "default" else ("-estimated",)
    return [size + mode for mode in ("", *others) for size in part.sizes]


def speed(part: Part) -> None:
    """One process: the measurement of `calql bench`, in both precisions."""
    import jax

    from calql.training.speed import SIZES, measure_size

    for precision in part.precisions:
        for size in modes(part, precision):
            with jax.default_matmul_precision(precision):
                *_, row = measure_size(SIZES[size], part.rounds * part.block_s)
            del row["device_memory_mb"]  # dominated by the multiplications
            part.record(size=size, label=precision, **row)


def shared(part: Part, **environment: str) -> None:
    """Several processes at a time, each with its own run, on one device."""
    most = max(part.processes)
    environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / most:.3f}"
    before = smi("memory.used")
    with started(clients := [Client(part, "ours", part.sizes, "default", **environment) for _ in range(most)]) as about:
        memory = {"device_memory_mb": about[0]["device_memory_mb"], "card_memory": [before, smi("memory.used")]}
        part.record(label="memory of all sizes in one process; of the device with and without all processes", **memory)
        for size in part.sizes:
            for count in part.processes:
                rates = [together(clients[:count], size, part.block_s, part.block) for _ in range(part.rounds)]
                part.record(size=size, label=str(count), updates_per_s=max(rates), rates=rates)


def mps(part: Part) -> None:
    """The same under CUDA MPS, whose clients share one context: their kernels may run at the same time."""
    with mps_daemon(part) as environment:
        if environment is None:
            part.record(skipped="there is no nvidia-cuda-mps-control")
        else:
            part.processes, part.rounds = tuple(count for count in part.processes if count != 2), 1
            shared(part, **environment)


@contextlib.contextmanager
def mps_daemon(part: Part) -> Iterator[dict[str, str] | None]:
    """Environment variables for MPS clients; None if MPS is not installed. Stops the daemon afterwards."""
    if not shutil.which("nvidia-cuda-mps-control"):
        yield None
        return
    folder = part.args.scratch / "mps"
    folder.mkdir(exist_ok=True)
    environment = {f"CUDA_MPS_{name}_DIRECTORY": str(folder) for name in ("PIPE", "LOG")}
    command = partial(subprocess.run, env=os.environ | environment, check=True, timeout=20)
    command(["nvidia-cuda-mps-control", "-d"])
    try:
        yield environment
    finally:
        command(["nvidia-cuda-mps-control"], input=b"quit\n")


def seed_counts(part: Part) -> list[tuple[str, int]]:
    """All counts for the first size, and the middle count for the others."""
    first, *others = part.sizes
    return [(first, count) for count in part.seeds] + [(size, part.seeds[len(part.seeds) // 2]) for size in others]


def seeds_stepper(size: str, count: int) -> tuple[Run, float]:
    """`train_steps` of several seeds in one program, over one data set: (run that many steps, seconds to compile)."""
    import jax
    import jax.numpy as jnp

    from calql.algorithms import CalQL
    from calql.replay import make_replay
    from calql.training.learner import train_steps
    from calql.training.speed import BATCH, SIZES, synthetic

    algorithm, spec = CalQL(**SIZES[size].settings), SIZES[size].spec
    transitions = synthetic(spec)
    replay = make_replay(transitions, jax.tree.map(lambda x: x[0], transitions), 0)
    states = [algorithm.init(jax.random.key(seed), spec) for seed in range(count)]
    states = jax.tree.map(lambda *x: jnp.stack(x), *states)
    keys = jax.vmap(jax.random.key)(jnp.arange(count))
    step = jax.vmap(partial(train_steps, algorithm, BATCH, 0), in_axes=(0, None, 0, None, None, None))
    rest = replay, keys, jnp.int32(0)
    start = time.perf_counter()
    steps = jax.jit(step, donate_argnums=0).lower(states, *rest, jnp.int32(1), jnp.float32(1.0)).compile()
    compile_s = time.perf_counter() - start

    def run(steps_each: int) -> dict[str, jax.Array]:
        nonlocal states
        states, metrics = steps(states, *rest, jnp.int32(steps_each), jnp.float32(1.0))
        return jax.block_until_ready((states, metrics))[1]

    return run, compile_s


def vmap(part: Part) -> None:
    """Several seeds in one program: update steps/s of all together (a prototype; runs do not do this)."""
    for size, count in seed_counts(part):
        run, compile_s = seeds_stepper(size, count)
        run(2)
        rates = [count * rate(run, part) for _ in range(part.rounds)]
        memory = device_memory_mb()
        part.record(size=size, label=str(count), updates_per_s=max(rates), rates=rates, compile_s=compile_s,
                    device_memory_mb_so_far=memory)  # fmt: skip


def graphs(part: Part) -> None:
    """One process with the whole loop as a CUDA graph, so that the CPU launches no kernels."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {GRAPHS}".strip()
    for size in part.sizes:
        start = time.monotonic()
        with started([client := Client(part, "ours", (size,), "default", XLA_FLAGS=flags)]) as (about,):
            rates = [together([client], size, part.block_s, part.block) for _ in range(part.rounds)]
        part.record(size=size, label="whole loop", updates_per_s=max(rates), rates=rates, xla_flags=GRAPHS,
                    compile_s=about["compile_s"][size])  # fmt: skip
        if part.left() < 1.2 * (time.monotonic() - start):
            return


def compare(part: Part) -> None:
    """d3rlpy's Cal-QL and ours, alternately; all are prepared first, then one at a time runs."""
    if missing := [name for name in ("torch", "d3rlpy") if importlib.util.find_spec(name) is None]:
        part.record(skipped=f"not installed: {', '.join(missing)}")
        return
    precisions = part.precisions[::-1]
    mine = {precision: Client(part, "ours", part.sizes, precision) for precision in precisions}
    theirs = {
        (size, precision): Client(part, "d3rlpy", (size,), precision, TORCHINDUCTOR_COMPILE_THREADS="2")
        for precision in precisions
        for size in part.sizes
    }
    with started([*mine.values(), *theirs.values()]) as about:
        for ((size, precision), client), said in zip(theirs.items(), about[len(mine) :], strict=True):
            turns = [("ours", mine[precision], size)] + [(name, client, name) for name in said["runs"]]
            rates: dict[str, list[float]] = {name: [] for name, *_ in turns}
            for _ in range(part.rounds):
                for name, worker, what in turns:
                    rates[name].append(together([worker], what, part.block_s / 1.5, part.block))
            part.record(
                size=size,
                precision=precision,
                updates_per_s_of={name: max(found) for name, found in rates.items()},
                rates=rates,
                **{name: said[name] for name in ("prepare_s", "errors", "device_memory_mb")},
                settings=described(size),
            )


def described(size: str) -> dict[str, Any]:
    """The settings given to d3rlpy."""
    settings = peers.peer_settings(peers.SIZES[THEIR_SIZE[size]][2], lambda widths: widths)
    return settings | {"actions_per_state": 3 * settings["n_action_samples"], "size_in_peers": THEIR_SIZE[size]}


def train(part: Part) -> None:
    """Start or continue parallel runs; stop them when the time is over and pack what is needed to continue."""
    scale = "smoke" if part.args.rehearse else "paper"
    runs = {(m, s): part.args.scratch / "runs" / TASK / m / f"seed-{s}" for s in part.args.seeds for m in METHODS}
    with contextlib.ExitStack() as stack:
        environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / len(runs):.3f}"}
        earlier = [*read_rows(part.args.scratch / "earlier.jsonl"), *read_rows(part.args.out / "results.jsonl")]
        if mps_pays(earlier, len(runs)):
            environment |= stack.enter_context(mps_daemon(part)) or {}
        processes = {}
        for (method, seed), folder in runs.items():
            continued = (folder / "config.json").exists()
            arguments = ["--resume"] if continued else ["--task", TASK, "--method", method, "--seed", str(seed)]
            arguments += [] if continued else ["--scale", scale, "--set", "checkpoint_every=2000"]
            folder.parent.mkdir(parents=True, exist_ok=True)
            with folder.with_suffix(".log").open("a") as log:
                processes[method, seed] = subprocess.Popen(
                    [sys.executable, "-m", "calql", "train", "--out", str(folder), *arguments],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=os.environ | environment,
                )
        packing = 2 + len(runs)
        while part.left() > packing and any(process.poll() is None for process in processes.values()):
            time.sleep(0.5)
        stopped = {run for run, process in processes.items() if process.poll() is None}
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            process.wait()
    failed = []
    for (method, seed), folder in runs.items():
        row = {"method": method, "seed": seed, "mps": "CUDA_MPS_PIPE_DIRECTORY" in environment}
        try:
            pack(folder, target := part.args.out / f"run-{method}-{seed}.tar.gz")
            part.record(**row, **run_summary(folder), packed_mb=target.stat().st_size / 1e6)
            if target.stat().st_size > LIMIT_MB * 2**20:
                print(f"{target.name} is larger than {LIMIT_MB} MiB")
        except FileNotFoundError as error:
            part.record(**row, lost=f"nothing to pack yet: {error}")
        if (method, seed) not in stopped and processes[method, seed].returncode:
            failed.append(f"{method} seed {seed}")
            print(folder.with_suffix(".log").read_text()[-2000:])
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def mps_pays(rows: list[dict[str, Any]], count: int) -> bool:
    """Whether `count` processes were at least a tenth faster under MPS, at the size of the runs."""
    here = [row for row in rows if (row.get("size"), row.get("label")) == ("antmaze", str(count))]
    found = {row["part"]: row["updates_per_s"] for row in here if row["part"] in ("shared", "mps")}
    return len(found) == 2 and found["mps"] > 1.1 * found["shared"]


def newest(folder: Path) -> Path:
    """The newest checkpoint of a run. Raises FileNotFoundError if there is none."""
    complete = sorted(path for path in (folder / "checkpoints").glob("step-*") if (path / "meta.json").exists())
    if not complete:
        raise FileNotFoundError(f"no checkpoint in {folder}")
    return complete[-1]


def pack(folder: Path, target: Path) -> None:
    """Pack what is needed to continue the run, below TASK/METHOD/SEED: settings, rows and newest checkpoint."""
    names = ("config.json", "eval.csv", "train.csv", "summary.json", "DONE")  # some of them appear only later
    parts = [newest(folder), *(folder / name for name in names if (folder / name).exists())]
    with tarfile.open(target, "w:gz", compresslevel=3) as archive:
        for path in parts:
            archive.add(path, path.relative_to(folder.parents[2]))


def run_summary(folder: Path) -> dict[str, Any]:
    """Progress, time and latest scores of a run."""
    from calql.training.run_dir import RunDir

    meta = json.loads((newest(folder) / "meta.json").read_text())
    counters = meta["counters"]
    rows = RunDir(folder).read_rows("eval.csv")
    return {
        "grad_steps": counters["total_grad_step"],
        "env_steps": counters["env_step"],
        "wall_s": meta["wall_s"],
        "scores": {row["grad_step"]: float(row["score_mean"]) for row in rows[-4:]},
    }


PARTS = {
    "info": info,
    "data": data,
    "compile": compile_all,
    "speed": speed,
    "shared": shared,
    "vmap": vmap,
    "graphs": graphs,
    "peers": compare,
    "mps": mps,
    "train": train,
}


# -- helpers -----------------------------------------------------------------------------------------------------------


def rate(run: Run, part: Part) -> float:
    """Steps per second of a loop of blocks."""
    start, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < part.block_s:
        run(part.block)
        count += part.block
    return count / taken


def device_memory_mb() -> float | None:
    """Peak device memory of this process."""
    import jax

    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if peak is None else peak / 1e6


def smi(fields: str) -> str | None:
    """Output of nvidia-smi for these fields; None if there is no device."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Lines of a results.jsonl; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """The rates, one line per part and size; then the runs."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if "updates_per_s" in row:
            share = f" ({row['share_of_peak']:.1%} of the peak)" if "share_of_peak" in row else ""
            cell = f"{row['label']}: {row['updates_per_s']:.4g}{share}"
            lines.setdefault((row["part"], row["size"]), []).append(cell)
        elif "updates_per_s_of" in row:
            cells = [f"{name}: {value:.4g}" for name, value in row["updates_per_s_of"].items()]
            cells += [f"{name}: {error[:60]}" for name, error in row["errors"].items()]
            lines[row["part"], row["size"], row["precision"]] = cells
        elif "grad_steps" in row:
            scores = ", ".join(f"{step}: {score:.2f}" for step, score in row["scores"].items())
            about = f"{row['grad_steps']} gradient steps in {row['wall_s']:.0f} s of training; score {scores}"
            lines[row["part"], row["method"], f"seed {row['seed']}"] = [about]
        elif "skipped" in row or "lost" in row:
            lines.setdefault((row["part"],), []).append(row.get("skipped") or row["lost"])
    body = [f"{' '.join(key):28s} {' | '.join(cells)}" for key, cells in lines.items()]
    return "\n".join(["update steps/s (total of all processes or seeds):", *body])


if __name__ == "__main__":
    sys.exit(main())
