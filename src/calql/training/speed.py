"""How fast the learner is, and how close that is to the peak of this machine.

`train_steps` itself is timed, on synthetic data. The peak is the fastest square float32 matrix multiplication of the
same process; the two are measured alternately, so that changes of clock frequency and other programs affect both.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from calql.algorithms import CQL, SAC, CalQL
from calql.algorithms.protocol import UpdateRule
from calql.envs.make import make_env
from calql.machine import memory_mb, threads
from calql.networks import LATENT
from calql.paper.tasks import DEFAULT_TASK
from calql.replay import Replay, make_replay, sample
from calql.tasks import Task
from calql.training.learner import train_steps, with_statistics
from calql.training.options import experiment
from calql.types import InputError, Spec, Transition, is_image

BATCH = 256
ROUNDS = 8
"""Blocks of gradient steps per configuration; the multiplications are timed before each block and after the last."""


class Size(NamedTuple):
    """Shapes of one task and the settings of Cal-QL on it."""

    observation: int
    """|S|."""
    action: int
    """|A|."""
    settings: dict[str, Any]
    """Fields of `CalQL` that differ from the defaults, which are those of the antmaze script."""

    @property
    def spec(self) -> Spec:
        """A spec of these shapes."""
        return Spec(np.zeros(self.observation, np.float32), self.action)


LISTING = dict(num_random_actions=4, num_policy_actions=4, num_next_actions=0, num_target_actions=1)
SIZES = {
    "adroit": Size(45, 24, dict(actor_hidden=(512, 512), critic_hidden=(512, 512, 512), cql_alpha=1.0)),
    "antmaze": Size(29, 8, dict(cql_target_gap=0.8)),
    "laptop": Size(4, 2, dict(actor_hidden=(128, 128), critic_hidden=(128, 128), **LISTING)),
}
"""nakamotoo/Cal-QL `scripts/run_adroit.sh` (pen) and `run_antmaze.sh`; and a size for laptops, with the actions of
Listing 1 of the paper."""
ESTIMATE = dict(cql_every_nth_state=2, cql_gradient_actions=2)
"""The estimate of the conservative term that is measured beside the exact one."""
BFLOAT16 = dict(critic_precision="bfloat16")
"""Critics that multiply in bfloat16."""
SIZES |= {
    f"{name}-{mode}": size._replace(settings=size.settings | settings)
    for mode, settings in (("estimated", ESTIMATE), ("estimated-bfloat16", ESTIMATE | BFLOAT16))
    for name, size in SIZES.items()
}


def flops_per_update(algorithm: SAC, spec: Spec, batch_size: int) -> int:
    """Floating-point operations of the matrix multiplications in one update (a multiply-add is two).

    A network with c weights costs, per row, 2c forward, 2c for the gradient of its weights, and 2c minus its first
    layer for the gradients of its activations. With (state, action) pairs of the critic loss n forward and backward and
    k only forward (see `pairs`), m target actions, E critics of c weights and a policy of p weights, the rows per
    transition are:

    * critics: n forward and backward, k forward; target critics: m forward;
    * policy loss: 1 critic row forward and back to the action, 1 policy row forward and backward;
    * policy at s′: 1 row forward (its value at s is shared with the policy loss).

    Element-wise operations, sampling and optimisers are not counted.
    """
    observation = sum(int(np.shape(leaf)[-1]) for leaf in jax.tree.leaves(spec.observation))
    action = spec.action_dim
    c, c_first = _weights(observation + action, algorithm.critic_hidden, 1)
    p, p_first = _weights(observation, algorithm.actor_hidden, 2 * action)
    to_action = c - observation * algorithm.critic_hidden[0]
    both, forward = pairs(algorithm)
    critics = both * (3 * c - c_first) + (forward + algorithm.num_target_actions) * c + c + to_action
    return round(2 * batch_size * (algorithm.num_critics * critics + 4 * p - p_first))


def pairs(algorithm: SAC) -> tuple[float, float]:
    """(State, action) pairs per transition in the critic loss: forward and backward, and only forward."""
    if not isinstance(algorithm, CQL):
        return 1, 0
    n, few = algorithm.cql_every_nth_state, algorithm.cql_gradient_actions
    sampled = algorithm.actions_per_state - 1
    return 1 + (sampled if few is None else few) / n, 0 if few is None else (1 + sampled) / n


def _weights(inputs: int, hidden: tuple[int, ...], outputs: int) -> tuple[int, int]:
    """Number of entries of all weight matrices of an MLP, and of the first matrix."""
    widths = (inputs, *hidden, outputs)
    layers = [a * b for a, b in pairwise(widths)]
    return sum(layers), layers[0]


def synthetic(spec: Spec, count: int = 10_000) -> Transition:
    """`count` random transitions of those shapes, one episode. Values do not matter for speed."""
    random = np.random.default_rng(0)

    def some(leaf: np.ndarray) -> np.ndarray:
        shape = (count, *leaf.shape)
        if is_image(leaf):
            return random.integers(256, size=shape, dtype=np.uint8)
        return random.normal(size=shape).astype(np.float32)

    states, after = (jax.tree.map(some, spec.observation) for _ in range(2))
    actions = random.uniform(-0.9, 0.9, (count, spec.action_dim)).astype(np.float32)
    ones = np.ones(count, np.float32)
    return Transition(states, actions, -ones, after, ones, -50 * ones, -ones, np.arange(count, dtype=np.int32))


def stepper(size: Size, data: Transition | None = None) -> tuple[Callable[[int], None], float, float]:
    """Compile `train_steps` for a size: (run that many gradient steps, seconds to compile, FLOPs per update)."""
    algorithm, spec = CalQL(**size.settings), size.spec
    data = data or synthetic(spec)
    return *compiled(algorithm, spec, data, BATCH), flops_per_update(algorithm, spec, BATCH)


def compiled(
    algorithm: UpdateRule, spec: Spec, data: Transition, batch_size: int, crop: int = 4
) -> tuple[Callable[[int], None], float]:
    """Compile `train_steps` for an algorithm and data: (run that many gradient steps, seconds to compile)."""
    replay = make_replay(data, jax.tree.map(lambda x: x[0], data), 0)
    state = algorithm.init(jax.random.key(0), spec)
    rest = (replay, jax.random.key(1), jnp.int32(0))
    start = time.perf_counter()
    steps = train_steps.lower(algorithm, batch_size, crop, state, *rest, jnp.int32(1), jnp.float32(1.0)).compile()
    compile_s = time.perf_counter() - start

    def run(count: int) -> None:
        nonlocal state
        state, metrics = steps(state, *rest, jnp.int32(count), jnp.float32(1.0))
        jax.block_until_ready((state, metrics))

    return run, compile_s


def spec_of(task: Task) -> Spec:
    """An example of the observations of the task's environment, and its number of action dimensions."""
    env = make_env(task)
    observation, _ = env.reset(seed=0)
    env.close()
    assert env.action_space.shape  # [A]
    return Spec(observation, env.action_space.shape[0])


def without_images(spec: Spec) -> Spec:
    """The spec with each image replaced by a latent as an encoder computes it."""
    latent = np.zeros(LATENT, np.float32)
    return spec._replace(observation=jax.tree.map(lambda x: latent if is_image(x) else x, spec.observation))


def measure_methods(methods: tuple[str, ...], seconds: float, task: str | None = None) -> list[dict[str, Any]]:
    """Update steps per second of fine-tuning on a task (or the default one) at `laptop` scale, measured alternately.

    `relative`: to the first method. `encoder_share`: the share of an update's time for images (crops, convolutions);
    the rest is the time of the same updates on latents. `refused`: why a method cannot take the task's observations.
    """
    task = task or DEFAULT_TASK
    spec = spec_of(experiment(task, methods[0]).task)
    images = any(map(is_image, jax.tree.leaves(spec.observation)))
    specs = [spec, without_images(spec)] if images else [spec]
    data = list(map(synthetic, specs))
    specs = specs if images else [with_statistics(spec, data[0])]
    rows, runs, refused = [], [], []
    for name in methods:
        made_for = experiment(task, name)
        phase, horizon = made_for.phases[-1], made_for.task.horizon
        try:
            made = [
                compiled(phase.algorithm, s, d, phase.batch_size, phase.random_crop)
                for s, d in zip(specs, data, strict=True)
            ]
        except InputError as error:
            refused.append({"method": name, "refused": str(error)})
            continue
        runs.append([_block(run, seconds / len(made))[0] for run, _ in made])
        each = phase.gradient_steps(horizon) / phase.length if phase.name == "online" else 0.0
        rule, compile_s = type(phase.algorithm).__name__, made[0][1]
        rows.append({"method": name, "rule": rule, "updates_per_step": each, "compile_s": compile_s})
    if not rows:
        raise InputError(refused[0]["refused"])
    rounds = [[[time_block().wall for time_block in kinds] for kinds in runs] for _ in range(ROUNDS)]
    taken = np.array(rounds)  # [rounds, methods, specs]
    measured = {
        "updates_per_s": 1.0 / taken[..., 0].min(axis=0),
        "relative": np.median(taken[:, :1, 0] / taken[..., 0], axis=0),
    }
    if images:
        measured["encoder_share"] = 1.0 - np.median(taken[..., 1] / taken[..., 0], axis=0)
    return [row | {name: float(x[i]) for name, x in measured.items()} for i, row in enumerate(rows)] + refused


def measure_parts(size: Size, seconds: float, whole: float) -> dict[str, float]:
    """Milliseconds of the parts of an update that takes `whole` ms; each is compiled and timed on its own.

    `replay`: drawing the batch; `targets`: the target critics and the policy at s′; `policy`: the steps of policy and
    temperature; `critics`: TD error, optimiser and target networks; `conservative term`: what the whole update takes
    beyond that of SAC with the same networks.
    """
    algorithm, spec = CalQL(**size.settings), size.spec
    sac = SAC(**{field.name: getattr(algorithm, field.name) for field in dataclasses.fields(SAC)})
    data = synthetic(spec)
    replay = make_replay(data, jax.tree.map(lambda x: x[0], data), 0)
    state, key = algorithm.init(jax.random.key(0), spec), jax.random.key(1)
    calls: dict[str, Callable[[Any, Transition, jax.Array], tuple[Any, Any]]] = {
        "replay": lambda state, batch, key: (state, batch),
        "targets": lambda state, batch, key: (state, algorithm.target_q(state, batch, key)),
        "policy": lambda state, batch, key: (algorithm.improve_policy(state, batch, key)[0], ()),
        "without the term": lambda state, batch, key: (sac.update(state, batch, key)[0], ()),
    }

    def repeated(call: Callable[[Any, Transition, jax.Array], tuple[Any, Any]]) -> Callable[[int], None]:
        @jax.jit
        def loop(state: Any, replay: Replay, count: jax.Array) -> Any:
            def body(i: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
                state, total = carry
                keys = jax.random.split(jax.random.fold_in(key, i))
                state, result = call(state, sample(replay, keys[0], BATCH, 1.0), keys[1])
                return state, total + sum(x.sum() for x in jax.tree.leaves(result))  # so that nothing is left out

            return jax.lax.fori_loop(0, count, body, (state, jnp.zeros(())))

        return lambda count: jax.block_until_ready(loop(state, replay, jnp.int32(count)))

    blocks = {name: _block(repeated(call), seconds / len(calls))[0] for name, call in calls.items()}
    rounds = [{name: block().wall for name, block in blocks.items()} for _ in range(ROUNDS)]
    best = {name: 1e3 * min(taken[name] for taken in rounds) for name in calls}
    drawing = best["replay"]  # a part of every one of them
    parts = {"replay": drawing} | {name: best[name] - drawing for name in ("targets", "policy")}
    parts["critics"] = best["without the term"] - sum(parts.values())
    return parts | {"conservative term": whole - best["without the term"]}


def measure_size(size: Size, seconds: float) -> Iterator[dict[str, Any]]:
    """Time one size in `ROUNDS` blocks, each between two measurements of the peak; yields the results after each."""
    run, compile_s, flops = stepper(size)
    time_peak = _peak()
    time_block, count = _block(run, seconds)
    peaks, steps = [time_peak()], []
    for _ in range(ROUNDS):
        steps.append(time_block())
        peaks.append(time_peak())
        yield {}
    rates = sorted(flops / step.wall for step in steps)
    peak_rates = sorted(1.0 / peak.wall for peak in peaks)
    cpu_rates = [flops / step.cpu for step in steps], [1.0 / peak.cpu for peak in peaks]
    device = jax.local_devices()[0].memory_stats() or {}
    yield {
        "updates_per_s": rates[-1] / flops,
        "updates_per_s_median": rates[ROUNDS // 2] / flops,
        "gflop_per_update": flops / 1e9,
        "gflop_per_s": rates[-1] / 1e9,
        "peak_gflop_per_s": peak_rates[-1] / 1e9,
        "peak_gflop_per_s_median": peak_rates[len(peaks) // 2] / 1e9,
        "share_of_peak": rates[-1] / peak_rates[-1],
        "share_of_peak_cpu_time": median(cpu_rates[0]) / median(cpu_rates[1]),
        "cpu_held": median(peak.cpu / peak.wall for peak in peaks) / threads(),
        "compile_s": compile_s,
        "steps_timed": count * ROUNDS,
        "memory_mb": memory_mb(),
        "device_memory_mb": device["peak_bytes_in_use"] / 1e6 if "peak_bytes_in_use" in device else None,
    }


class Seconds(NamedTuple):
    """Time that one thing takes."""

    wall: float
    """Wall-clock time."""
    cpu: float
    """CPU time of all threads of this process, without the time of other programs."""


def _timed(call: Callable[[], Any], things: float = 1.0) -> Seconds:
    """Call a function once, which does so many things."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Seconds((time.perf_counter() - wall) / things, (time.process_time() - cpu) / things)


def _block(run: Callable[[int], None], seconds: float) -> tuple[Callable[[], Seconds], int]:
    """(a function that does one of `ROUNDS` blocks, `seconds` long in total, and times an update; its updates)."""
    run(1)
    count = max(1, round(seconds / ROUNDS / _timed(partial(run, 1)).wall))
    return lambda: _timed(partial(run, count), count), count


def _peak() -> Callable[[], Seconds]:
    """A function that times a floating-point operation of the fastest float32 matrix multiplication of some widths."""
    on_cpu = jax.default_backend() == "cpu"
    work = 4e9 if on_cpu else 4e12
    parts: list[tuple[Callable[[], Any], float]] = []
    for width in (256, 512, 1024) if on_cpu else (2048, 4096, 8192):
        repeats = max(1, round(work / (2 * width**3)))
        x = jnp.full((width, width), 1.0 / width)
        product = jax.jit(lambda x, n=repeats: jax.lax.fori_loop(0, n, lambda _, y: y @ x, x))
        parts.append((lambda f=product, x=x: jax.block_until_ready(f(x)), repeats * 2.0 * width**3))
    for product, _ in parts:
        product()
    return lambda: min(_timed(product, flops) for product, flops in parts)
