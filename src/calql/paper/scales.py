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
    "grade": dict(
        offline_steps=50_000, online_steps=0, eval_every_offline=6_250, eval_episodes=20, log_every=1_000,
        checkpoint_every=25_000, actor_lr=3e-4, actor_hidden=(256, 256), critic_hidden=(256, 256), variant="listing",
    ),
    "paper": {},
}  # fmt: skip
"""smoke: seconds, for tests; laptop: minutes on one core; grade: pre-training alone, on a budget that shows what can be
learned from data (`calql data grade`); paper: the paper and the release, as far as known."""
