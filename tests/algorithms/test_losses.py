"""Every loss against NumPy, for fixed networks and fixed sampled actions."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as ref
import pytest
from fixed import NOISE, POLICY, SMALL, UNIFORM, A, B, batch, numpy_draws, q_of, state_of, traced

from calql.algorithms import BC, CQL, SAC, VARIANTS, CalQL, CalQLPlus

KEY = jax.random.key(7)
WEIGHTED = partial(CalQLPlus, weigh_by_calibration=True)


# -- SAC ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "members"), [(1, 2), (10, 2), (4, 3), (10, 1)])
def test_target_is_the_best_sample_of_the_lowest_critic(fixed_noise, count, members):
    sac = SAC(**SMALL, num_target_actions=count, num_critics=members, discount=0.9)
    state, data = state_of(sac), batch()
    actions, _ = numpy_draws(sac, state, data.next_observations, count)
    q_next = q_of(sac, state.target_critic, data.next_observations, actions)
    expected = ref.td_target(data.rewards, data.masks, 0.9, q_next)
    np.testing.assert_allclose(traced(sac.target_q, state, data, KEY), expected, rtol=1e-5, atol=1e-6)


def test_target_does_not_bootstrap_where_the_task_ended():
    sac, data = SAC(**SMALL), batch()
    target = np.asarray(traced(sac.target_q, state_of(sac), data, KEY))
    ended = np.asarray(data.masks) == 0
    assert 0 < ended.sum() < B
    np.testing.assert_array_equal(target[ended], np.asarray(data.rewards)[ended])
    assert (target[~ended] != np.asarray(data.rewards)[~ended]).all()


def test_target_with_entropy_uses_the_density_of_the_best_sample(fixed_noise):
    sac = SAC(**SMALL, num_target_actions=4, backup_entropy=True)
    state, data = state_of(sac), batch()
    actions, log_pi = numpy_draws(sac, state, data.next_observations, 4)
    q_next = q_of(sac, state.target_critic, data.next_observations, actions)
    expected = ref.td_target(data.rewards, data.masks, sac.discount, q_next, log_pi, alpha=np.exp(-0.7))
    np.testing.assert_allclose(traced(sac.target_q, state, data, KEY), expected, rtol=1e-5, atol=1e-5)


def test_target_is_clamped(fixed_noise):
    plain, data = SAC(**SMALL), batch()
    clamped = dataclasses.replace(plain, target_q_range=(-0.2, 0.2))
    state = state_of(plain)
    free = np.asarray(traced(plain.target_q, state, data, KEY))
    assert (free < -0.2).any()
    assert (free > 0.2).any()
    np.testing.assert_allclose(traced(clamped.target_q, state, data, KEY), np.clip(free, -0.2, 0.2), rtol=1e-6)


def test_no_gradient_flows_through_the_target():
    sac, data = SAC(**SMALL), batch()
    state = state_of(sac)

    def total(actor, target_critic):
        return sac.target_q(state._replace(actor=actor, target_critic=target_critic), data, KEY).sum()

    gradient = traced(jax.grad(total, (0, 1)), state.actor, state.target_critic)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_td_loss_is_a_sum_over_critics_of_mean_squares_without_a_half(fixed_noise):
    sac, data = SAC(**SMALL, num_critics=3), batch()
    state = state_of(sac)
    q_data = q_of(sac, state.critic, data.observations, data.actions)
    expected = ref.td_loss(q_data, np.asarray(traced(sac.target_q, state, data, KEY)))
    loss, metrics = traced(sac.critic_loss, state.critic, state, data, KEY)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["td_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_data"], q_data.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("multiplier", [1.0, 0.25])
def test_actor_loss(fixed_noise, multiplier):
    sac, data = SAC(**SMALL, alpha_multiplier=multiplier), batch()
    state = state_of(sac)
    actions, log_pi = numpy_draws(sac, state, data.observations, 1)
    q_pi = q_of(sac, state.critic, data.observations, actions[:, 0])
    loss, out = traced(sac.actor_loss, state.actor, state, data, KEY)
    np.testing.assert_allclose(loss, ref.actor_loss(log_pi[:, 0], q_pi, multiplier * np.exp(-0.7)), rtol=1e-5)
    np.testing.assert_allclose(out, log_pi[:, 0], rtol=1e-4, atol=1e-5)


def test_actor_loss_is_differentiated_through_the_sampled_action(fixed_noise):
    """Moving the policy's parameters changes the loss as a finite difference says."""
    sac, data = SAC(**SMALL), batch()
    state = state_of(sac)
    leaves, structure = jax.tree.flatten(state.actor)
    rng = np.random.default_rng(0)
    direction = [jnp.asarray(rng.normal(size=x.shape), jnp.float32) for x in leaves]

    def loss(step):
        actor = jax.tree.unflatten(structure, [x + step * d for x, d in zip(leaves, direction, strict=True)])
        return sac.actor_loss(actor, state, data, KEY)[0]

    low, high, gradient = traced(lambda h: (loss(-h), loss(h), jax.grad(loss)(0.0)), jnp.float32(2e-3))
    assert abs(gradient) > 0.01
    np.testing.assert_allclose(gradient, (high - low) / 4e-3, rtol=0.02)


def test_temperature_loss_by_hand():
    log_pi = jnp.array([-1.0, 2.0, 0.5, 0.0, 1.0])  # mean 0.5
    default, chosen = SAC(), SAC(target_entropy=0.25)
    np.testing.assert_allclose(default.temperature_loss(jnp.float32(2.0), log_pi, 3), -2.0 * (0.5 - 3.0))
    np.testing.assert_allclose(chosen.temperature_loss(jnp.float32(2.0), log_pi, 3), -2.0 * (0.5 + 0.25))
    # log π above −H̄ (too little entropy) must raise α: the gradient is negative.
    assert jax.grad(chosen.temperature_loss)(jnp.float32(0.0), log_pi, 3) == pytest.approx(-0.75)
    assert jax.grad(default.temperature_loss)(jnp.float32(0.0), log_pi, 3) == pytest.approx(2.5)


# -- the conservative gap ----------------------------------------------------------------------------------------------


def hand_set(cql, seed=0, size=3):
    """q_ood [E, B, N], log_density [B, N], q_data [E, B], returns [B], and the parts that the reference takes."""
    rng = np.random.default_rng(seed)
    random, policy = cql.num_random_actions, cql.num_policy_actions + cql.num_next_actions
    q_ood = rng.normal(0, 2, (2, size, random + policy)).astype(np.float32)
    log_policy = rng.normal(0, 1, (size, policy)).astype(np.float32)
    log_density = np.concatenate([np.full((size, random), -A * np.log(2), np.float32), log_policy], axis=1)
    q_data, returns = rng.normal(0, 1, (2, size)).astype(np.float32), np.linspace(-1.5, 1.5, size, dtype=np.float32)
    return (q_ood, log_density, q_data, returns), (q_ood[..., :random], q_ood[..., random:], log_policy, q_data, A)


@pytest.mark.parametrize("rule", [CQL, CalQL, WEIGHTED])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"importance_sampling": False}, {"importance": False}),
        ({"cql_temperature": 2.5}, {"temperature": 2.5}),
        ({"cql_temperature": 0.5, "importance_sampling": False}, {"temperature": 0.5, "importance": False}),
        ({"cql_clip": (3.0, 5.0)}, {"clip": (3.0, 5.0)}),
    ],
)
def test_conservative_gap(rule, variant, options, expected):
    cql = rule(**VARIANTS[variant], **options)
    arguments, parts = hand_set(cql)
    returns, weigh = arguments[3] if rule is not CQL else None, rule is WEIGHTED
    answer = ref.gap(*parts, returns=returns, weigh=weigh, **expected)
    np.testing.assert_allclose(cql.conservative_gap(*map(jnp.asarray, arguments)), answer, rtol=1e-5)
    if "cql_clip" in options:
        assert not np.allclose(answer, ref.gap(*parts, returns=returns, weigh=weigh))


def test_gap_of_equal_values_counts_the_entries():
    """All Q equal and no corrections: the gap is the logarithm of the number of entries, 31 or 9."""
    for variant, entries in {"official": 31, "listing": 9}.items():
        cql = CQL(**VARIANTS[variant], importance_sampling=False)
        (q_ood, log_density, q_data, returns), _ = hand_set(cql)
        gap = cql.conservative_gap(jnp.full_like(q_ood, 4.0), log_density, jnp.full_like(q_data, 4.0), returns)
        np.testing.assert_allclose(gap, np.log(entries), rtol=1e-5)


@pytest.mark.parametrize("importance", [True, False])
def test_no_push_down_where_the_return_wins_and_softmax_weights_elsewhere(importance):
    cal_ql = CalQL(importance_sampling=importance)
    (q_ood, log_density, q_data, returns), _ = hand_set(cal_ql)
    gradient = jax.grad(lambda q: cal_ql.conservative_gap(q, log_density, q_data, returns).sum())(jnp.asarray(q_ood))
    is_policy = np.arange(q_ood.shape[-1]) >= cal_ql.num_random_actions
    bounded = is_policy & (q_ood < returns[:, None])
    assert 0 < bounded.sum() < is_policy.sum() * 6
    assert (np.asarray(gradient)[bounded] == 0).all()
    z = np.where(bounded, np.broadcast_to(returns[:, None], q_ood.shape), q_ood).astype(np.float64)
    z = z - log_density if importance else np.concatenate([z, q_data[..., None]], axis=-1)
    weights = np.exp(z) / np.exp(z).sum(-1, keepdims=True) / q_ood.shape[1]
    np.testing.assert_allclose(np.asarray(gradient)[~bounded], weights[..., : q_ood.shape[-1]][~bounded], rtol=1e-4)


@pytest.mark.parametrize("part", ["π(s)", "π(s′)"])
def test_the_bound_holds_for_both_kinds_of_policy_actions(part):
    cal_ql = CalQL()
    (q_ood, log_density, q_data, _), _ = hand_set(cal_ql)
    returns = np.full(3, 50.0, np.float32)
    at = 10 if part == "π(s)" else 20
    moved = q_ood.copy()
    moved[..., at : at + 10] += 3.0
    gaps = [cal_ql.conservative_gap(q, log_density, q_data, returns) for q in (q_ood, moved)]
    np.testing.assert_array_equal(*gaps)


def test_random_actions_are_not_bounded():
    cal_ql = CalQL()
    (q_ood, log_density, q_data, _), _ = hand_set(cal_ql)
    low, high = (np.full(3, g, np.float32) for g in (-1e6, -1e5))
    gradient = jax.grad(lambda q: cal_ql.conservative_gap(q, log_density, q_data, high).sum())(jnp.asarray(q_ood - 1e6))
    assert (gradient[..., 10:] == 0).all()  # the returns win there
    moved = cal_ql.conservative_gap(q_ood, log_density, q_data, low)
    np.testing.assert_array_equal(moved, CQL().conservative_gap(q_ood, log_density, q_data, low))


def test_the_bound_compares_raw_values_before_the_correction():
    """Q = 0, G = 1, log π = 5: the entry is max(0, 1) − 5 = −4, not max(0 − 5, 1) = 1."""
    cal_ql = CalQL(num_random_actions=0, num_policy_actions=1, num_next_actions=0)
    gap = cal_ql.conservative_gap(jnp.zeros((1, 1, 1)), jnp.full((1, 1), 5.0), jnp.zeros((1, 1)), jnp.ones(1))
    np.testing.assert_allclose(gap, [-4.0], rtol=1e-6)


# -- the critic loss of CQL and Cal-QL ---------------------------------------------------------------------------------


def reference_gap(cql, state, data, returns=None):
    """[E] from the networks' own Q and π, with the actions that `fixed_noise` draws."""
    random = np.broadcast_to(UNIFORM[None, : cql.num_random_actions, None], (B, cql.num_random_actions, A))
    policy = [
        numpy_draws(cql, state, observations, count)
        for observations, count in (
            (data.observations, cql.num_policy_actions),
            (data.next_observations, cql.num_next_actions),
        )
    ]
    actions, log_policy = (np.concatenate(x, axis=1) for x in zip(*policy, strict=True))
    return ref.gap(
        q_of(cql, state.critic, data.observations, random),
        q_of(cql, state.critic, data.observations, actions),  # all of them at s
        log_policy,
        q_of(cql, state.critic, data.observations, data.actions),
        A,
        returns,
        importance=cql.importance_sampling,
        weigh=isinstance(cql, CalQLPlus),
    )


@pytest.mark.parametrize("rule", [CQL, CalQL, WEIGHTED])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("importance", [True, False])
def test_critic_loss(fixed_noise, rule, variant, importance):
    cql = rule(**SMALL, **VARIANTS[variant], importance_sampling=importance, cql_alpha=3.0)
    state, data = state_of(cql), batch()
    gaps = reference_gap(cql, state, data, np.asarray(data.returns) if rule is not CQL else None)
    q_data = q_of(cql, state.critic, data.observations, data.actions)
    td = ref.td_loss(q_data, np.asarray(traced(cql.target_q, state, data, KEY)))
    loss, metrics = traced(cql.critic_loss, state.critic, state, data, KEY)
    np.testing.assert_allclose(loss, td + 3.0 * gaps.sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["td_loss"], td, rtol=1e-5)
    np.testing.assert_allclose(metrics["cql_loss"], 3.0 * gaps.sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["cql_gap"], gaps.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["q_data"], q_data.mean(), rtol=1e-5, atol=1e-6)


def test_the_random_density_is_taken_as_a_logarithm(fixed_noise):
    """Random actions only: the loss shifts by + A log 2 against uncorrected values, not by −½ᴬ."""
    cql = CQL(**SMALL, num_random_actions=4, num_policy_actions=0, num_next_actions=0, cql_alpha=1.0)
    state, data = state_of(cql), batch()
    random = np.broadcast_to(UNIFORM[None, :4, None], (B, 4, A))
    q, q_data = (q_of(cql, state.critic, data.observations, a) for a in (random, data.actions))
    expected = (np.log(np.exp(q).sum(-1)) + A * np.log(2) - q_data).mean(axis=1)
    np.testing.assert_allclose(
        traced(cql.critic_loss, state.critic, state, data, KEY)[1]["cql_gap"], expected.mean(), rtol=1e-5
    )


def test_only_the_critics_get_a_gradient_from_the_critic_loss():
    """Neither the policy (its actions are samples, no paths), nor the multiplier, nor the target critics."""
    cql, data = CQL(**SMALL, **VARIANTS["listing"], cql_target_gap=0.8), batch()
    state = state_of(cql)
    gradient = traced(jax.grad(lambda s: cql.critic_loss(state.critic, s, data, KEY)[0], allow_int=True), state)
    assert all(
        (leaf == 0).all()
        for leaf in jax.tree.leaves(
            gradient._replace(actor_optimizer=(), critic_optimizer=(), alpha_optimizer=(), alpha_prime_optimizer=())
        )
    )


def test_cal_ql_is_cql_where_returns_never_win_and_pushes_harder_where_they_sometimes_do():
    data = batch()
    cql, cal_ql = (rule(**SMALL, **VARIANTS["listing"]) for rule in (CQL, CalQL))
    state = state_of(cql)

    def gradient(rule):
        return jax.jit(jax.value_and_grad(lambda critic, b: rule.critic_loss(critic, state, b, KEY)[0]))

    never = data._replace(returns=jnp.full(B, -1e30))
    plain = gradient(cql)(state.critic, never)
    jax.tree.map(np.testing.assert_array_equal, plain, gradient(cal_ql)(state.critic, never))
    bounded = gradient(cal_ql)(state.critic, data)
    assert bounded[0] > plain[0]  # a maximum can only raise the logsumexp
    assert any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (plain[1], bounded[1])), strict=True))


def test_bounding_rate_is_the_share_of_policy_actions_below_the_return(fixed_noise):
    cal_ql, data = CalQL(**SMALL), batch()
    state = state_of(cal_ql)
    actions, _ = numpy_draws(cal_ql, state, data.observations, 10)
    q = q_of(cal_ql, state.critic, data.observations, actions)
    expected = (q < np.asarray(data.returns)[None, :, None]).mean()
    assert 0 < expected < 1
    np.testing.assert_allclose(
        traced(cal_ql.critic_loss, state.critic, state, data, KEY)[1]["bounding_rate"], expected, rtol=1e-6
    )


# -- the Lagrange form -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [CQL, CalQL])
def test_lagrange_form_weighs_the_gap_above_its_target(fixed_noise, rule):
    cql = rule(**SMALL, cql_alpha=5.0, cql_target_gap=0.8)
    state, data = state_of(cql), batch()
    gaps = reference_gap(cql, state, data, np.asarray(data.returns) if rule is CalQL else None)
    loss, metrics = traced(cql.critic_loss, state.critic, state, data, KEY)
    np.testing.assert_allclose(loss - metrics["td_loss"], np.e * 5.0 * (gaps - 0.8).sum(), rtol=1e-4)


def test_multiplier_starts_at_e_and_is_clipped():
    cql = CQL(**SMALL, cql_target_gap=0.8)
    assert cql.alpha_prime(state_of(cql).log_alpha_prime) == pytest.approx(np.e)
    assert cql.alpha_prime(jnp.float32(20.0)) == 1e6
    assert cql.alpha_prime(jnp.float32(-200.0)) == 0.0


def test_lagrange_loss_and_gradient_by_hand():
    cql = CQL(cql_alpha=5.0, cql_target_gap=0.8)
    loss = cql.lagrange_loss(jnp.float32(1.0), jnp.float32(3.0))
    gradient = jax.grad(cql.lagrange_loss)(jnp.float32(1.0), jnp.float32(3.0))
    np.testing.assert_allclose([loss, gradient], [-np.e * 5 * 2.2] * 2, rtol=1e-6)  # d exp θ′ / dθ′ = exp θ′
    assert jax.grad(cql.lagrange_loss)(jnp.float32(1.0), jnp.float32(0.5)) > 0  # below the target: α′ falls
    assert jax.grad(cql.lagrange_loss)(jnp.float32(20.0), jnp.float32(3.0)) == 0  # where α′ is clipped


# -- behaviour cloning -------------------------------------------------------------------------------------------------


def test_bc_loss_is_the_negative_log_likelihood_of_the_data():
    bc, data = BC(**POLICY), batch()
    state = state_of(bc)
    mean, log_std = bc.pi(state.actor, data.observations)
    log_pi = ref.log_prob(mean, log_std, np.arctanh(np.asarray(data.actions, np.float64)))
    loss, out = traced(bc.actor_loss, state.actor, state, data, KEY)
    np.testing.assert_allclose(loss, -log_pi.mean(), rtol=1e-5)
    np.testing.assert_allclose(out, log_pi, rtol=1e-4)


def test_bc_loss_is_finite_for_actions_at_the_border():
    bc = BC(**POLICY)
    data = batch()._replace(actions=jnp.ones((B, A)))
    state = state_of(bc)
    loss, gradient = jax.value_and_grad(lambda a: bc.actor_loss(a, state, data, KEY)[0])(state.actor)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_noise_of_these_tests_is_what_they_say(fixed_noise):
    drawn = jax.random.normal(KEY, (2, 4, 3))
    np.testing.assert_allclose(drawn[1, :, 2], NOISE[:4], rtol=1e-6)
    np.testing.assert_allclose(jax.random.uniform(KEY, (2, 4, 3), minval=-1, maxval=1)[0, :, 0], UNIFORM[:4], rtol=1e-5)
