"""Pure network modules: the only folder that imports the neural-network library."""

from calql.networks.critic import CriticEnsemble
from calql.networks.mlp import MLP, flatten_observation
from calql.networks.policy import TanhGaussianPolicy, gaussian_tanh_log_prob, sample_actions

__all__ = [
    "MLP",
    "CriticEnsemble",
    "TanhGaussianPolicy",
    "flatten_observation",
    "gaussian_tanh_log_prob",
    "sample_actions",
]
