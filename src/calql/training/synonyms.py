"""What other libraries call an option, so that whoever comes from there is told its name here."""

from __future__ import annotations

from collections.abc import Iterable

from calql.tasks import close, nearest

SYNONYMS: dict[str, tuple[str, ...]] = {
    "gamma": ("discount",),
    "polyak": ("tau",),
    "soft_target_update_rate": ("tau",),
    "lr": ("actor_lr", "critic_lr"),
    "learning_rate": ("actor_lr", "critic_lr"),
    "actor_learning_rate": ("actor_lr",),
    "policy_lr": ("actor_lr",),
    "critic_learning_rate": ("critic_lr",),
    "qf_lr": ("critic_lr",),
    "hidden_dim": ("actor_hidden", "critic_hidden"),
    "hidden_dims": ("actor_hidden", "critic_hidden"),
    "policy_arch": ("actor_hidden",),
    "qf_arch": ("critic_hidden",),
    "n_critics": ("num_critics",),
    "utd_ratio": ("utd",),
    "updates_per_step": ("utd",),
    "mixing_ratio": ("mixing",),
    "conservative_weight": ("cql_alpha",),
    "min_q_weight": ("cql_alpha",),
    "cql_min_q_weight": ("cql_alpha",),
    "cql_temp": ("cql_temperature",),
    "alpha_threshold": ("cql_target_gap",),
    "cql_lagrange": ("cql_target_gap",),
    "cql_target_action_gap": ("cql_target_gap",),
    "n_action_samples": ("num_random_actions", "num_policy_actions", "num_next_actions"),
    "cql_n_actions": ("num_random_actions", "num_policy_actions", "num_next_actions"),
    "cql_importance_sample": ("importance_sampling",),
    "max_timesteps": ("offline_steps", "online_steps"),
    "n_steps": ("offline_steps", "online_steps"),
    "reward_scale": ("task.rewards.scale",),
    "reward_bias": ("task.rewards.bias",),
    "eval_n_trajs": ("eval_episodes",),
    "n_episodes": ("eval_episodes",),
}
"""A name in the release of Cal-QL, CORL, d3rlpy or RLPD → options that together mean the same."""


def unknown_option(name: str, known: Iterable[str]) -> str:
    """The message for an option that is not among `known`: its name here, the most similar names, or all short ones."""
    known = {*known}
    if found := [here for here in SYNONYMS.get(name, ()) if here in known]:
        return f"unknown option '{name}'; here it is {', '.join(found)}"
    short = {option for option in known if "." not in option}
    return str(nearest(name, known if close(name, known) else short, "option"))
