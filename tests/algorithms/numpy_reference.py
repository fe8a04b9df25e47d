"""The losses once more, in plain float64 NumPy, written for reading: no networks, one sample after the other.

Shapes: E critics, B transitions, N sampled actions, A action dimensions.
"""

import numpy as np


def log_prob(mean, log_std, pre_tanh):
    """log π(tanh u): normal density of u, less the log of the derivative of tanh; [..., A] → [...]."""
    mean, log_std, u = (np.asarray(x, np.float64) for x in (mean, log_std, pre_tanh))
    normal = -0.5 * ((u - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    return (normal - np.log(1 - np.tanh(u) ** 2)).sum(-1)


def draw(mean, log_std, noise):
    """Actions tanh(mean + std · noise) and their log densities."""
    pre_tanh = np.asarray(mean, np.float64) + np.exp(np.asarray(log_std, np.float64)) * noise
    return np.tanh(pre_tanh), log_prob(mean, log_std, pre_tanh)


def td_target(rewards, masks, discount, q_next, log_pi=None, alpha=0.0, q_range=None):
    """[B] targets from target critics q_next [E, B, N]; log_pi [B, N] enters with factor alpha."""
    targets = []
    for b, reward in enumerate(rewards):
        lowest = q_next[:, b].min(axis=0)  # over the ensemble, for each sampled action
        best = int(lowest.argmax())
        value = lowest[best] - (alpha * log_pi[b, best] if alpha else 0.0)
        target = reward + discount * masks[b] * value
        targets.append(target if q_range is None else min(max(target, q_range[0]), q_range[1]))
    return np.array(targets)


def td_loss(q_data, target):
    """Mean squared error of each critic, summed over the critics."""
    return sum(np.mean((q - target) ** 2) for q in q_data)


def gap(
    q_random,
    q_policy,
    log_policy,
    q_data,
    action_dim,
    returns=None,
    importance=True,
    temperature=1.0,
    clip=None,
    weigh=False,
):
    """Conservative gap of each critic, [E]. `q_policy` [E, B, N] holds π(s), then π(s′); `returns`: Cal-QL's bound;
    `weigh`: each state by the share of its policy actions above the return."""
    gaps = []
    for e in range(len(q_data)):
        of_critic = []
        for b in range(len(q_data[e])):
            random, policy = q_random[e, b].astype(float), q_policy[e, b].astype(float)
            if returns is not None:
                policy = np.maximum(policy, returns[b])
            if importance:
                z = [*(random - action_dim * np.log(0.5)), *(policy - log_policy[b])]
            else:
                z = [*random, *policy, q_data[e, b]]
            difference = temperature * np.log(np.sum(np.exp(np.array(z, float) / temperature))) - q_data[e, b]
            difference = difference if clip is None else min(max(difference, clip[0]), clip[1])
            share = np.mean([q > returns[b] for q in q_policy[e, b]]) if weigh else 1.0
            of_critic.append(share * difference)
        gaps.append(np.mean(of_critic))
    return np.array(gaps)


def actor_loss(log_pi, q_pi, alpha):
    """Mean of α log π − lowest Q; q_pi [E, B]."""
    return np.mean(alpha * log_pi - q_pi.min(axis=0))


def gaussian_log_prob(mean, log_std, actions):
    """log density of a diagonal Gaussian; [..., A] → [...]."""
    mean, log_std, actions = (np.asarray(x, np.float64) for x in (mean, log_std, actions))
    return (-0.5 * ((actions - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)


def expectile_loss(q, v, expectile):
    """Mean of |τ − 1[u < 0]| u², u = q − v, one transition after the other."""
    total = 0.0
    for u in np.asarray(q, np.float64) - np.asarray(v, np.float64):
        total += (1 - expectile if u < 0 else expectile) * u**2
    return total / len(q)


def weighted_imitation(weights, log_pi):
    """−Σ weight · log π."""
    return -sum(w * density for w, density in zip(weights, log_pi, strict=True))


def softmax(x):
    """exp(x) / Σ exp(x)."""
    e = np.exp(np.asarray(x, np.float64))
    return e / e.sum()


def td3_bc_loss(q, actions, data_actions, alpha):
    """−α/mean|Q| · mean Q + mean squared distance (over batch and dimensions)."""
    q = np.asarray(q, np.float64)
    return -alpha / np.abs(q).mean() * q.mean() + np.mean((np.asarray(actions) - np.asarray(data_actions)) ** 2)


class Adam:
    """Adam on one array (Kingma and Ba 2015, Algorithm 1)."""

    def __init__(self, learning_rate):
        self.learning_rate, self.m, self.v, self.t = learning_rate, 0.0, 0.0, 0

    def step(self, parameter, gradient):
        parameter, gradient = np.asarray(parameter, np.float64), np.asarray(gradient, np.float64)
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        mean, square = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        return parameter - self.learning_rate * mean / (np.sqrt(square) + 1e-8)
