"""Pure network modules: the only folder that imports the neural-network library."""

from calql.networks.critic import Critic, CriticEnsemble, Value
from calql.networks.mlp import MLP, flatten_observation
from calql.networks.policy import (
    GaussianPolicy,
    TanhGaussianPolicy,
    gaussian_log_prob,
    gaussian_tanh_log_prob,
    sample_actions,
)
from calql.networks.transformer import DecisionTransformer

__all__ = [
    "MLP",
    "Critic",
    "CriticEnsemble",
    "DecisionTransformer",
    "GaussianPolicy",
    "TanhGaussianPolicy",
    "Value",
    "flatten_observation",
    "gaussian_log_prob",
    "gaussian_tanh_log_prob",
    "sample_actions",
]
