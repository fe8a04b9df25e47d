"""Network modules: the only folder that imports the neural-network library."""

from calql.networks.critic import Critic, CriticEnsemble, choose_members, members, of_each_member
from calql.networks.encoder import ENCODERS, LATENT, Encoder, flatten_observation
from calql.networks.mlp import MLP, apply
from calql.networks.noise import NoisePredictor
from calql.networks.policy import (
    GaussianPolicy,
    TanhGaussianPolicy,
    action_dim_of,
    gaussian_log_prob,
    gaussian_tanh_log_prob,
    sample_actions,
    sample_gaussian,
)
from calql.networks.products import Precision
from calql.networks.transformer import DecisionTransformer

__all__ = [
    "ENCODERS",
    "LATENT",
    "MLP",
    "Critic",
    "CriticEnsemble",
    "DecisionTransformer",
    "Encoder",
    "GaussianPolicy",
    "NoisePredictor",
    "Precision",
    "TanhGaussianPolicy",
    "action_dim_of",
    "apply",
    "choose_members",
    "flatten_observation",
    "gaussian_log_prob",
    "gaussian_tanh_log_prob",
    "members",
    "of_each_member",
    "sample_actions",
    "sample_gaussian",
]
