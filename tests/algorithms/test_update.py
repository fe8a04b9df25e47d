"""One step: all losses on pre-update parameters, each gradient to the network that owns it, then the targets."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as ref
import optax
import pytest
from fixed import SMALL, A, B, batch, initial, state_of

from calql.algorithms import BC, CQL, IQL, SAC, TD3BC, VARIANTS, Acts, CalQL
from calql.algorithms.actor_critic import ActorCritic
from calql.networks import GaussianPolicy
from calql.paper.methods import METHODS
from calql.types import Spec, Window

KEY = jax.random.key(3)
RULES = sorted({rule for m in METHODS.values() for rule in (m.offline, m.online) if rule}, key=lambda r: r.__name__)
ACTOR_CRITICS = [rule for rule in RULES if issubclass(rule, ActorCritic)]
LISTING = VARIANTS["listing"] | dict(odt_width=8, odt_layers=1, odt_heads=2, odt_context=3)


def small(rule, **options):
    fields = {field.name for field in dataclasses.fields(rule)}
    return rule(**{name: value for name, value in (SMALL | LISTING | options).items() if name in fields})


def data_of(algorithm, seed=0):
    """A batch of transitions, or of windows whose ends are missing here and there."""
    if not algorithm.context:
        return batch(seed=seed)
    steps = batch(B * algorithm.context, seed)
    rows = jax.tree.map(lambda x: x.reshape(B, algorithm.context, *x.shape[1:]), steps)
    now = jnp.broadcast_to(jnp.arange(algorithm.context, dtype=jnp.int32), rows.rewards.shape)
    return Window(rows.observations, rows.actions, rows.returns, now, now < 1 + jnp.arange(B)[:, None] % 3)


@cache
def update_of(algorithm):
    """Its update, compiled once for all tests that leave JAX's draws alone."""
    return jax.jit(lambda *arguments: algorithm.update(*arguments))


def assert_trees_close(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), actual, expected)


@pytest.mark.parametrize(
    ("rule", "options"), [(SAC, {}), (CQL, {}), (CQL, {"cql_target_gap": 0.8}), (CalQL, {})], ids=str
)
def test_two_steps_equal_separate_adam_steps_on_pre_update_gradients(fixed_noise, rule, options):
    algorithm = small(rule, **options, tau=0.1, actor_lr=2e-3, critic_lr=5e-3)
    state = state_of(algorithm)
    actor, critic, target = state.actor, state.critic, state.target_critic
    log_alpha, log_alpha_prime = state.log_alpha, state.log_alpha_prime
    adams = {name: optax.adam(rate) for name, rate in (("actor", 2e-3), ("critic", 5e-3))}
    moments = {"actor": adams["actor"].init(actor), "critic": adams["critic"].init(critic)}
    alpha_adam, prime_adam = ref.Adam(2e-3), ref.Adam(5e-3)

    @jax.jit
    def gradients(old, data):
        critic_grad, metrics = jax.grad(algorithm.critic_loss, has_aux=True)(old.critic, old, data, KEY)
        actor_grad, log_pi = jax.grad(algorithm.actor_loss, has_aux=True)(old.actor, old, data, KEY)
        return critic_grad, metrics, actor_grad, log_pi

    @jax.jit
    def apply(name_moments, grads, parameters):
        out = {}
        for name, gradient in grads.items():
            updates, new = adams[name].update(gradient, name_moments[name], parameters[name])
            out[name] = optax.apply_updates(parameters[name], updates), new
        return out

    update = jax.jit(lambda *a: algorithm.update(*a))
    for step in range(2):
        data = batch(seed=step)
        old = state._replace(
            actor=actor, critic=critic, target_critic=target, log_alpha=log_alpha, log_alpha_prime=log_alpha_prime
        )
        critic_grad, metrics, actor_grad, log_pi = gradients(old, data)
        new = apply(moments, {"actor": actor_grad, "critic": critic_grad}, {"actor": actor, "critic": critic})
        actor, moments["actor"] = new["actor"]
        critic, moments["critic"] = new["critic"]
        target = jax.tree.map(lambda slow, fast: 0.9 * slow + 0.1 * fast, target, critic)
        alpha_grad = -(np.asarray(log_pi, np.float64).mean() - A)
        log_alpha = jnp.float32(alpha_adam.step(log_alpha, alpha_grad))
        if options:
            gap = float(metrics["cql_gap"])
            log_alpha_prime = jnp.float32(
                prime_adam.step(log_alpha_prime, -np.exp(float(old.log_alpha_prime)) * 5.0 * (gap - 0.8))
            )
        state, _ = update(state, data, KEY)
        assert_trees_close(
            (state.actor, state.critic, state.target_critic, state.log_alpha, state.log_alpha_prime),
            (actor, critic, target, log_alpha, log_alpha_prime),
            rtol=2e-4,
            atol=2e-6,
        )


def test_multiplier_moves_with_the_learning_rate_of_the_critic():
    cql = small(CQL, cql_target_gap=0.8, critic_lr=0.02, actor_lr=0.5)
    low = dataclasses.replace(cql, cql_target_gap=1e6)
    state, data = state_of(cql), batch()
    for algorithm, sign in ((cql, 1), (low, -1)):
        new, metrics = update_of(algorithm)(state, data, KEY)
        assert (metrics["cql_gap"] > algorithm.cql_target_gap) == (sign > 0)
        np.testing.assert_allclose(new.log_alpha_prime - state.log_alpha_prime, sign * 0.02, rtol=1e-3)  # Adam's first


def test_fresh_state():
    for rule in ACTOR_CRITICS:
        state = initial(small(rule), 0)
        jax.tree.map(np.testing.assert_array_equal, state.target_critic, state.critic)
        if issubclass(rule, SAC):
            assert state.log_alpha == 0
            assert state.log_alpha_prime == 1
        if rule is TD3BC:
            jax.tree.map(np.testing.assert_array_equal, state.target_actor, state.actor)


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_frozen_hashable_and_replaceable(rule):
    algorithm = small(rule)
    again = small(rule)
    assert (algorithm, hash(algorithm)) == (again, hash(again))
    other = dataclasses.replace(algorithm, discount=0.5)
    assert other != algorithm
    assert other.discount == 0.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        algorithm.discount = 0.1


@pytest.mark.parametrize("rule", [rule for rule in RULES if issubclass(rule, Acts)])
def test_actions_lie_in_the_unit_box(rule):
    algorithm = small(rule)
    state = state_of(algorithm)
    wild = jax.tree.map(lambda x: 50.0 * x, state.actor)
    act = jax.jit(lambda *a: algorithm.act(*a))
    observations = batch(64).observations
    for actor in (state.actor, wild):
        fixed = act(state._replace(actor=actor), observations)
        if rule is TD3BC:
            expected = algorithm.actions(actor, observations)
        else:
            mean, _ = algorithm.pi(actor, observations)
            gaussian = isinstance(algorithm.policy(A), GaussianPolicy)  # whose mean has passed a tanh already
            expected = mean if gaussian else np.tanh(mean)
        np.testing.assert_allclose(fixed, expected, rtol=1e-5, atol=1e-6)
        one, two, again = (act(state._replace(actor=actor), observations, jax.random.key(k)) for k in (0, 1, 0))
        for actions in (fixed, one, two):
            assert actions.shape == (64, A)
            assert (np.abs(actions) <= 1).all()
        assert (one != two).any()
        np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize("rule", RULES)
def test_seeds_under_vmap_equal_separate_runs(rule):
    algorithm = small(rule)
    keys, data = jax.random.split(KEY, 3), [data_of(algorithm, i) for i in range(3)]
    states = [state_of(algorithm, seed) for seed in range(3)]
    stacked_states, stacked_data = (jax.tree.map(lambda *x: jnp.stack(x), *trees) for trees in (states, data))
    together, metrics = jax.jit(jax.vmap(algorithm.update))(stacked_states, stacked_data, keys)
    update = update_of(algorithm)
    for i in range(3):
        alone, own_metrics = update(states[i], data[i], keys[i])
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], together), alone, rtol=1e-3, atol=2e-5)
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], metrics), own_metrics, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_update_is_pure_and_its_metrics_are_finite_scalars(rule):
    algorithm = small(rule)
    state, data = state_of(algorithm), data_of(algorithm)
    before = jax.tree.map(np.array, state)
    update = update_of(algorithm)
    (one, metrics), (two, _), (other, _) = (update(state, data, jax.random.key(k)) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, state, before)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert jax.tree.structure(one) == jax.tree.structure(state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), one) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for value in metrics.values():
        assert np.shape(value) == ()
        assert np.isfinite(value)
    if rule not in (BC, IQL):  # which draw nothing
        assert any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True))


def test_behaviour_cloning_is_adam_on_the_likelihood():
    bc = small(BC, actor_lr=2e-3)
    state, adam = state_of(bc), optax.adam(2e-3)
    actor, moments = state.actor, adam.init(state.actor)
    gradient_of = jax.jit(jax.grad(lambda actor, data: bc.actor_loss(actor, state, data, KEY)[0]))
    for step in range(2):
        data = batch(seed=step)
        updates, moments = adam.update(gradient_of(actor, data), moments)
        actor = optax.apply_updates(actor, updates)
        state, _ = update_of(bc)(state, data, KEY)
        assert_trees_close(state.actor, actor, rtol=2e-4, atol=2e-6)


def test_dictionaries_of_observations_are_treated_like_arrays():
    """A dict of the same numbers, in the order of its keys, takes the same step."""
    data, cql = batch(), small(CQL)
    as_dict = data._replace(
        observations={"b": data.observations[:, 1:], "a": data.observations[:, :1]},
        next_observations={"b": data.next_observations[:, 1:], "a": data.next_observations[:, :1]},
    )
    plain, named = (
        cql.init(KEY, Spec(jax.tree.map(lambda x: np.asarray(x[0]), d.observations), A)) for d in (data, as_dict)
    )
    jax.tree.map(np.testing.assert_array_equal, plain, named)
    update = update_of(cql)
    jax.tree.map(np.testing.assert_array_equal, update(plain, data, KEY), update(named, as_dict, KEY))
    assert cql.act(named, as_dict.observations).shape == (B, A)
