"""The table of scales: changes to the official defaults, which a task's and a method's own settings override."""

from __future__ import annotations

from typing import Any

from calql.tasks import Scale

SCALES: dict[Scale, dict[str, Any]] = {
    "smoke": dict(
        offline_steps=60, online_steps=100, batch_size=16, eval_every_offline=30, eval_every_online=50,
        eval_episodes=2, log_every=20, checkpoint_every=40, replay_capacity=1_000, actor_hidden=(16, 16),
        critic_hidden=(16, 16), variant="listing",
    ),
    "laptop": dict(
        offline_steps=10_000, online_steps=10_000, eval_every_offline=2_000, eval_every_online=500, eval_episodes=20,
        log_every=500, checkpoint_every=5_000, replay_capacity=100_000, actor_hidden=(128, 128),
        critic_hidden=(128, 128), variant="listing",
    ),
    "desk": dict(
        offline_steps=50_000, online_steps=50_000, eval_every_offline=6_250, eval_every_online=2_500, eval_episodes=20,
        log_every=1_000, checkpoint_every=10_000, actor_lr=3e-4, actor_hidden=(256, 256), critic_hidden=(256, 256),
        variant="listing", cql_every_nth_state=2, cql_gradient_actions=2,
    ),
    "paper": {},
}  # fmt: skip
"""smoke: seconds, for tests; laptop: minutes on one core; desk: up to an hour on one core, so that every cell of the
paper's tables can be had without a GPU (its pre-training alone is what `calql data grade` does); paper: the paper and
the release, as far as known.

What desk changes, and why: networks of two layers of 256, of which a core does some 100 updates per second, but only a
few of the official ones; 4 + 4 sampled actions (the paper's Listing 1) and an estimated conservative term, which learn
as the exact one does (`results/README.md`, "The estimated conservative term"); and budgets that fit in the hour. Adroit
keeps the official networks and sampled actions, and its critics multiply in bfloat16: 75 minutes measured beside a busy
core, hours where the processor does not multiply it.
"""
