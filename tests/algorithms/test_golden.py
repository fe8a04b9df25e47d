"""Twenty updates of every rule give the numbers that they gave when golden.json was written.

A change of numbers that is meant is written anew: python tests/algorithms/test_golden.py --write
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed import SMALL, STATE, A, batch

from calql.algorithms import AWAC, BC, CQL, IQL, O3F, ODT, SAC, SMAC, TD3BC, VARIANTS, CalQL, CalQLPlus
from calql.types import Spec, Window

FILE = Path(__file__).with_name("golden.json")
UPDATES, ROWS, STEPS = 20, 16, 3
NETWORKS = SMALL | dict(critic_hidden=(8, 8), actor_lr=1e-3, critic_lr=1e-3, tau=0.05)
LISTING = NETWORKS | VARIANTS["listing"]
RULES = {
    "sac": SAC(**NETWORKS),
    "sac-entropy": SAC(**NETWORKS, backup_entropy=True, alpha_multiplier=0.5, target_q_range=(-1.0, 1.0)),
    "rlpd": SAC(
        **NETWORKS, num_critics=10, critic_layer_norm=True, target_subset=2, actor_on_mean=True, num_target_actions=1,
        target_entropy_per_action=0.5, actor_every=4,
    ),
    "wsrl": SAC(
        **NETWORKS, num_critics=10, critic_layer_norm=True, actor_layer_norm=True, target_subset=2,
        num_target_actions=1, actor_every=4,
    ),
    "smac": SMAC(**NETWORKS, num_target_actions=1),
    "smac-muon": SMAC(
        **NETWORKS, num_target_actions=1, optimizer="muon", score_temperature=None, score_noise=(0.05, 0.5),
        num_critics=3, critic_layer_norm=True,
    ),
    "cal-ql-normalised": CalQL(
        **LISTING, num_critics=10, critic_layer_norm=True, actor_layer_norm=True, target_subset=2,
    ),
    "cql": CQL(**NETWORKS),
    "cql-listing": CQL(**LISTING),
    "cql-gap": CQL(**LISTING, cql_target_gap=0.8),
    "cql-plain": CQL(**LISTING, importance_sampling=False, cql_temperature=2.0, cql_clip=(-1.0, 5.0)),
    "cal-ql": CalQL(**LISTING),
    "cal-ql-fitted": CalQL(**LISTING, reference="fitted"),
    "cal-ql-fitted-v": CalQL(**LISTING, reference="fitted-v"),
    "cal-ql-plus": CalQLPlus(
        **LISTING, reference="fitted", num_critics=4, target_subset=2, critic_layer_norm=True, cql_gradient_actions=2,
        acting_candidates=4, weigh_by_calibration=True,
    ),
    "o3f": O3F(**LISTING, o3f_candidates=8, o3f_bonus=0.5),
    "iql": IQL(**NETWORKS),
    "iql-dropout": IQL(**NETWORKS, actor_dropout=0.3, weight_decay=1e-2),
    "awac": AWAC(**NETWORKS),
    "td3-bc": TD3BC(**NETWORKS),
    "bc": BC(actor_hidden=(8,), output_gain=1.0, actor_lr=1e-3),
    "odt": ODT(odt_width=8, odt_layers=1, odt_heads=2, odt_context=STEPS, odt_warmup=5, actor_lr=1e-3),
}  # fmt: skip


def data_of(rule):
    if not rule.context:
        return batch(ROWS)
    rows = jax.tree.map(lambda x: x.reshape(ROWS, STEPS, *x.shape[1:]), batch(ROWS * STEPS))
    now = jnp.broadcast_to(jnp.arange(STEPS, dtype=jnp.int32), rows.rewards.shape)
    return Window(rows.observations, rows.actions, rows.returns, now, now < 1 + jnp.arange(ROWS)[:, None] % STEPS)


def digest(tree):
    """Norm of all numbers in a tree, and a sum that knows their order and signs."""
    x = np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])
    return [float(np.linalg.norm(x)), float(x @ np.cos(np.arange(x.size)))]


def numbers(rule):
    """What is compared: digests of the learned fields of the state, the last metrics, and actions."""
    data, key = data_of(rule), jax.random.key(2)
    state = jax.jit(lambda key: rule.init(key, Spec(np.zeros(STATE, np.float32), A)))(jax.random.key(1))
    update = jax.jit(lambda state, key: rule.update(state, data, key))
    found = {"init": digest(state.actor)}
    for step in range(UPDATES):
        state, metrics = update(state, jax.random.fold_in(key, step))
    learned = {name: part for name, part in state._asdict().items() if part is not None}
    found |= {name: digest(part) for name, part in learned.items() if not name.endswith("optimizer")}
    found |= {f"metric {name}": [float(value)] for name, value in sorted(metrics.items())}
    if not rule.context:
        found["act"] = digest([rule.act(state, data.observations, k) for k in (None, key)])
    return found


@pytest.mark.parametrize("name", RULES)
def test_numbers_are_those_that_were_written(name):
    expected, found = json.loads(FILE.read_text())[name], numbers(RULES[name])
    assert found.keys() == expected.keys()
    for part, values in expected.items():
        np.testing.assert_allclose(found[part], values, rtol=1e-4, atol=1e-4 * max(map(abs, values)), err_msg=part)


def test_every_rule_has_numbers():
    assert json.loads(FILE.read_text()).keys() == RULES.keys()
    assert {type(rule) for rule in RULES.values()} == {AWAC, BC, CQL, IQL, O3F, ODT, SAC, SMAC, TD3BC, CalQL, CalQLPlus}


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    lines = (f"{json.dumps(name)}: {json.dumps(numbers(rule))}" for name, rule in RULES.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
