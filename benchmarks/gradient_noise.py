"""The noise that estimates of the conservative term, and critics in bfloat16, add to the critics' gradient, on the data
and critics of a run.

python benchmarks/gradient_noise.py RUN [--step pretrained] [--batches 100] [--out FILE.json]

Prints, per estimate, the total variance of the gradient over batches relative to that of the exact term, the distance
to the exact gradient of the same batch relative to its length (root mean squares), and the matrix products of both in
multiply-adds. Batches are the same for all estimates; every batch has draws of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from calql.algorithms import CQL
from calql.data.load import load_for
from calql.data.transitions import to_transitions
from calql.training.policy import load_policy
from calql.training.record import read_record
from calql.training.run_dir import RunDir
from calql.training.speed import flops_per_update
from calql.types import PyTree, Transition

EXACT = dict(cql_every_nth_state=1, cql_gradient_actions=None, critic_precision="float32")
ESTIMATES = [EXACT, EXACT | dict(critic_precision="bfloat16")] + [
    EXACT | dict(cql_every_nth_state=n, cql_gradient_actions=k)
    for n, k in product((1, 2, 4), (None, 1, 2, 4))
    if (n, k) != (1, None)
]


@partial(jax.jit, static_argnums=0)
def gradient(rule: CQL, state: PyTree, batch: Transition, key: jax.Array) -> jax.Array:
    """The critics' gradient as one vector."""
    return ravel_pytree(rule.critic_gradient(state, batch, key)[1])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--step", default="pretrained", help="checkpoint: newest, best, pretrained or a gradient step")
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    made, policy = read_record(RunDir(asked.run)).experiment, load_policy(asked.run, asked.step)
    rule = policy.algorithm
    if not isinstance(rule, CQL):
        raise SystemExit(f"{made.title} has no conservative term")
    episodes = load_for(made.task, made.data.uri or "", made.data.cut_at_horizon).episodes
    tail = made.data.tail_bootstrap
    data = to_transitions(
        episodes, made.task.rewards, made.discount, action_clip=made.data.action_clip, tail_bootstrap=tail
    )
    size = made.phases[0].batch_size
    draws = np.random.default_rng(0).integers(len(data.rewards), size=(asked.batches, size))
    batches = [jax.tree.map(lambda x, rows=rows: jnp.asarray(x[rows]), data) for rows in draws]
    rows, exact = [], None
    for estimate in ESTIMATES:
        one = dataclasses.replace(rule, **estimate)
        found = np.stack([gradient(one, policy.state, batch, jax.random.key(i)) for i, batch in enumerate(batches)])
        exact = found if exact is None else exact
        distance = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
        variance, flops = float(found.var(axis=0, ddof=1).sum()), flops_per_update(one, policy.spec, size)
        rows.append(estimate | {"variance": variance, "distance": distance, "flops": flops})
        rows[-1] |= {"noise": variance / rows[0]["variance"], "cost": flops / rows[0]["flops"]}
        print(json.dumps(rows[-1]), flush=True)
    if asked.out:
        about = {"task": made.task.id, "method": made.method, "step": policy.step, "batch": size}
        asked.out.write_text(json.dumps(about | {"batches": asked.batches, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
