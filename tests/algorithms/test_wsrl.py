"""The fine-tuning of WSRL once more in plain float64 NumPy: whole updates, with networks, gradients and optimisers.

Gradients are central differences of the losses, so that nothing of them is taken from JAX.
"""

import jax
import numpy as np
import numpy_reference as ref
from fixed import NOISE, A, batch, state_of

from calql.algorithms import SAC, CalQL

UTD, MEMBERS, SUBSET = 4, 10, 2
NETWORKS = dict(
    actor_hidden=(4,), critic_hidden=(4,), output_gain=1.0, num_critics=MEMBERS, target_subset=SUBSET,
    critic_layer_norm=True, actor_layer_norm=True, actor_lr=2e-3, critic_lr=5e-3, tau=0.1, discount=0.9,
)  # fmt: skip
WSRL = SAC(**NETWORKS, num_target_actions=1, actor_every=UTD)


def mlp(parameters, x):
    """One hidden layer with layer norm before the ReLU, then a linear layer."""
    x = x @ parameters["Dense_0"]["kernel"] + parameters["Dense_0"]["bias"]
    norm = parameters["LayerNorm_0"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]
    return np.maximum(x, 0) @ parameters["output"]["kernel"] + parameters["output"]["bias"]


def q_of(critic, observations, actions):
    """[E, B] values of the critics."""
    (ensemble,) = critic.values()
    (layers,) = ensemble.values()
    layers = jax.tree.map(lambda x: x if x.ndim == 3 else x[:, None], layers)  # one row of biases for all of the batch
    return mlp(layers, np.concatenate([observations, actions], axis=-1))[..., 0]


def draw(actor, observations):
    """Actions and log densities of the policy for the one noise of `fixed_noise`."""
    mean, raw = np.split(mlp(actor["mlp"], observations), 2, axis=-1)
    return ref.draw(mean, actor["log_std_multiplier"] * raw + actor["log_std_offset"], NOISE[0])


def slopes(loss, tree):
    """Gradient of a loss by central differences."""
    leaves, structure = jax.tree.flatten(tree)
    gradients = [np.zeros_like(leaf) for leaf in leaves]
    for leaf, gradient in zip(leaves, gradients, strict=True):
        for place in np.ndindex(leaf.shape):
            kept, ends = leaf[place], []
            for step in (1e-6, -1e-6):
                leaf[place] = kept + step
                ends.append(loss(jax.tree.unflatten(structure, leaves)))
            leaf[place], gradient[place] = kept, (ends[0] - ends[1]) / 2e-6
    return jax.tree.unflatten(structure, gradients)


def descend(adams, tree, gradient):
    """Adam on every array of a tree."""
    return jax.tree.map(lambda adam, x, g: adam.step(x, g), adams, tree, gradient)


def test_the_updates_of_an_environment_step_in_numpy(fixed_noise):
    """Four updates of ten critics, then one of the policy and the temperature, which starts where Cal-QL left it."""
    state = state_of(CalQL(**NETWORKS))
    parts = (state.actor, state.critic, state.target_critic)
    actor, critic, target = (jax.tree.map(lambda x: np.array(x, np.float64), part) for part in parts)
    log_alpha = np.float64(state.log_alpha)
    actor_adams, critic_adams = (
        jax.tree.map(lambda _, rate=rate: ref.Adam(rate), part) for part, rate in ((actor, 2e-3), (critic, 5e-3))
    )
    alpha_adam, update, drawn = ref.Adam(2e-3), jax.jit(lambda *arguments: WSRL.update(*arguments)), set()
    for step in range(UTD):
        rows, key = batch(seed=step), jax.random.key(step)
        wanted = (rows.observations, rows.actions, rows.rewards, rows.next_observations, rows.masks)
        s, a, r, s_next, masks = (np.asarray(x, np.float64) for x in wanted)
        target_key = jax.random.fold_in(jax.random.split(key)[0], 1)
        pair = np.asarray(jax.random.permutation(target_key, MEMBERS)[:SUBSET])
        drawn.add(frozenset(pair.tolist()))
        next_actions, _ = draw(actor, s_next)
        y = r + 0.9 * masks * q_of(target, s_next, next_actions)[pair].min(axis=0)
        critic_gradient = slopes(lambda c, y=y, s=s, a=a: ref.td_loss(q_of(c, s, a), y), critic)
        if step == UTD - 1:
            alpha = np.exp(log_alpha)

            def policy_loss(phi, s=s, alpha=alpha, critic=critic):
                actions, log_pi = draw(phi, s)
                return ref.actor_loss(log_pi, q_of(critic, s, actions), alpha)

            log_pi = draw(actor, s)[1].mean()
            actor = descend(actor_adams, actor, slopes(policy_loss, actor))
            log_alpha = alpha_adam.step(log_alpha, -(log_pi - A))
        critic = descend(critic_adams, critic, critic_gradient)
        target = jax.tree.map(lambda slow, fast: 0.9 * slow + 0.1 * fast, target, critic)
        state, metrics = update(state, rows, key)
        np.testing.assert_allclose(metrics["target_q"], y.mean(), rtol=1e-4, atol=1e-6)
        found = (state.actor, state.critic, state.target_critic, state.log_alpha)
        expected = (actor, critic, target, log_alpha)
        jax.tree.map(lambda x, z: np.testing.assert_allclose(x, z, rtol=2e-3, atol=2e-5), found, expected)
    assert len(drawn) > 1
    assert log_alpha != np.float64(-0.7)
