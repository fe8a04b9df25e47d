"""The table of methods: update rule × phases × data mix. Method ids appear only here."""

from __future__ import annotations

import dataclasses

from calql.algorithms import AWAC, BC, CQL, IQL, O3F, ODT, SAC, SMAC, TD3BC, CalQL, CalQLPlus
from calql.methods import Method
from calql.replay.buffer import UNION
from calql.tasks import load_attribute, nearest
from calql.types import InputError

ENSEMBLE = dict(
    num_critics=10,
    critic_layer_norm=True,
    target_subset=2,
    actor_on_mean=True,
    utd=20,
    actor_once_per_step=True,
    mixing=0.5,
)
"""RLPD's critics, UTD 20, half of each batch from the data (ikostrikov/rlpd, `configs/rlpd_config.py`)."""
FEWER = dict(utd=4)
"""The same for a CPU, in minutes."""
WSRL = dict(
    num_critics=10,
    critic_layer_norm=True,
    actor_layer_norm=True,
    target_subset=2,
    utd=4,
    actor_once_per_step=True,
    mixing=0.0,
    **{"finetune.num_target_actions": 1},
)
"""WSRL's networks, and fine-tuning without offline data (zhouzypaul/wsrl, `experiments/configs`, launch scripts)."""
WARMUP = {
    "": dict(warmup_steps=5_000),
    "smoke": dict(warmup_steps=20),
    # A fiftieth of the online steps, as about in WSRL's paper.
    "laptop": dict(warmup_steps=500),
    "laptop/pointmaze": dict(warmup_steps=100),
    "laptop/visual": dict(warmup_steps=40),
    "desk": dict(warmup_steps=1_500),
    "desk/pointmaze": dict(warmup_steps=400),
    "desk/visual": dict(warmup_steps=120),
}
"""Steps of the pre-trained policy before the first update, per scale."""
SMALL_TRANSFORMER = dict(
    actor_lr=1e-3, batch_size=64, odt_width=64, odt_layers=2, odt_heads=2, odt_context=10, eval_every_offline=1_000
)
"""ODT for a CPU."""
SMALL = dict(actor_lr=3e-4, actor_hidden=(256, 256), critic_hidden=(256, 256))
"""Networks of the original baselines, whatever a task's networks for Cal-QL are."""
RAW = {"rewards.scale": 1.0, "rewards.bias": 0.0}
"""Raw rewards of the environment."""

METHODS: dict[str, Method] = {
    method.id: method
    for method in [
        Method("cal-ql", "Cal-QL", CalQL, CalQL, summary="calibrated Q-learning (Eq. 5.1)"),
        Method("cql", "CQL", CQL, CQL, summary="conservative Q-learning in both phases (Eq. 3.1)"),
        Method("cql-sac", "CQL+SAC", CQL, SAC, summary="CQL pre-training, then SAC on offline and online data"),
        Method("hybrid", "Hybrid RL", None, SAC, summary="SAC from scratch, fixed share of offline data"),
        Method(
            "sac-offline",
            "SAC + offline data",
            None,
            SAC,
            settings={"": dict(mixing=UNION)},
            summary="SAC from scratch on the union of offline and online data",
        ),
        Method(
            "sac",
            "SAC",
            None,
            SAC,
            settings={"": dict(mixing=0.0)},
            summary="SAC from scratch on its own experience",
        ),
        Method(
            "iql",
            "IQL",
            IQL,
            IQL,
            settings={
                "": RAW,
                "pointmaze": dict(iql_expectile=0.9, iql_temperature=10.0),
                "antmaze": {"rewards.bias": -1.0, "iql_expectile": 0.9, "iql_temperature": 10.0},
                "kitchen": dict(iql_expectile=0.7, iql_temperature=0.5, actor_dropout=0.1),
                "visual": dict(iql_expectile=0.7, iql_temperature=10.0),
                "adroit": dict(iql_expectile=0.8, iql_temperature=3.0, exploration_std=0.03, mixing=0.2),
                "paper": SMALL,
            },
            summary="implicit Q-learning: expectiles of the data's values",
        ),
        Method(
            "awac",
            "AWAC",
            AWAC,
            AWAC,
            settings={
                "": RAW | dict(num_target_actions=1, mixing=UNION),
                "adroit": dict(awac_lambda=0.3),
                "paper": dict(
                    actor_lr=3e-4,
                    batch_size=1024,
                    actor_hidden=(256,) * 4,
                    critic_hidden=(256,) * 4,
                    one_buffer=True,
                ),
                "paper/kitchen": dict(online_steps=1_500_000),
                "paper/adroit": dict(offline_steps=25_000),
            },
            summary="imitation weighted by advantages",
        ),
        Method(
            "td3-bc",
            "TD3+BC",
            TD3BC,
            TD3BC,
            settings={
                "": dict(actor_every=2),
                "paper": SMALL,
            },
            summary="deterministic policy gradient with a pull to the data",
        ),
        Method("o3f", "O3F", O3F, O3F, summary="CQL with optimistic actions online (best effort)"),
        Method(
            "odt",
            "ODT",
            ODT,
            ODT,
            settings={
                "": RAW | dict(updates_per_episode=300, mixing=UNION),
                "smoke": dict(updates_per_episode=10, odt_width=16, odt_layers=1, odt_heads=2, odt_context=4),
                "laptop": SMALL_TRANSFORMER | dict(odt_warmup=300, offline_steps=3_000, updates_per_episode=50),
                "desk": SMALL_TRANSFORMER | dict(odt_warmup=1_000, offline_steps=7_000, updates_per_episode=100),
                "paper": dict(
                    actor_lr=1e-3,
                    odt_width=1024,
                    odt_weight_decay=0.0,
                    offline_steps=7_000,
                    eval_every_offline=1_000,
                    one_buffer=True,
                    replay_capacity=1_500_000,
                ),
            },
            summary="online decision transformer: sequences conditioned on their return",
        ),
        Method(
            "rlpd",
            "RLPD",
            None,
            SAC,
            settings={
                "": ENSEMBLE | dict(num_target_actions=1, target_entropy_per_action=0.5, start_steps=5_000),
                "antmaze": RAW | {"rewards.bias": -1.0},
                "adroit": RAW,
                "smoke": dict(start_steps=20, utd=2),
                "laptop": FEWER | dict(start_steps=500),
                "desk": FEWER | dict(start_steps=2_000),
                "desk/visual": dict(start_steps=500),
                "paper": dict(actor_lr=3e-4, actor_hidden=(256,) * 3, critic_hidden=(256,) * 3),
            },
            summary="SAC from scratch with ten critics and twenty updates per step, half of each batch from the data",
        ),
        Method(
            "cal-ql-utd20",
            "Cal-QL (UTD 20)",
            CalQL,
            CalQL,
            settings={"": ENSEMBLE, "smoke": dict(utd=2), "laptop": FEWER, "desk": FEWER},
            summary="Cal-QL on RLPD's critics, twenty updates per step (Fig. 7)",
        ),
        Method(
            "cal-ql-plus",
            "Cal-QL+",
            CalQLPlus,
            CalQLPlus,
            settings=WARMUP
            | {
                "": WARMUP[""]
                | dict(
                    reference="fitted",
                    critic_layer_norm=True,
                    num_critics=4,
                    target_subset=2,
                    cql_every_nth_state=2,
                    cql_gradient_actions=2,
                    acting_tau=1e-3,
                ),
                # Budgets of a few thousand steps, in which a policy can be learned within a few hundred updates.
                "pointmaze": dict(acting_tau=1e-2),
                "visual": dict(acting_tau=1e-2),
            },
            summary="Cal-QL with a learned reference, four critics, a warm-up, and an average of the policy that acts",
        ),
        Method("bc", "BC", BC, None, summary="behaviour cloning; no fine-tuning"),
        Method(
            "wsrl",
            "WSRL",
            CalQL,
            SAC,
            settings=WARMUP
            | {
                "": WARMUP[""] | WSRL,
                "smoke": WARMUP["smoke"] | dict(utd=2),
                "paper/antmaze": {"finetune.num_target_actions": 10, "cql_alpha": 1.0, "online_steps": 500_000},
                "paper/kitchen": {
                    "rewards.bias": -4.0,
                    "horizon": 280,
                    "tail_bootstrap": False,
                    "offline_steps": 250_000,
                    "online_steps": 500_000,
                },
                "paper/adroit": dict(online_steps=500_000),
            },
            summary="Cal-QL pre-training, a warm-up of the policy, then SAC with ten critics and no offline data",
        ),
        Method(
            "smac",
            "SMAC",
            SMAC,
            SAC,
            settings={"": dict(optimizer="muon", num_target_actions=1)},
            summary="SAC with critics whose action gradient follows the score of the data's actions, then plain SAC",
        ),
    ]
}

DEFAULT_METHOD = "cal-ql"
"""The method of commands that name none, and the one that reports compare the others with."""
RIVAL = "cql"
"""The method that `calql demo` compares it with."""
GRADING = ("bc", "iql")
"""The methods that `calql data grade` trains if none is named: with and without the rewards."""


def get_method(name: str) -> Method:
    """The method of that id, or the user's own from `package.module:row`.

    Raises InputError for an unknown name, with the nearest ones.
    """
    if name in METHODS:
        return METHODS[name]
    if ":" not in name:
        raise nearest(name, METHODS, "method")
    made = load_attribute(name)
    if not isinstance(made, Method):
        raise InputError(f"'{name}' is a {type(made).__name__}; it must be a calql.methods.Method")
    return dataclasses.replace(made, id=name)  # a later --resume finds it by this name
