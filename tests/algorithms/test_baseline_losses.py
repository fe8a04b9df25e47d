"""The losses of IQL, AWAC, TD3+BC, O3F and a learned reference, and RLPD's changes to SAC, against NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as ref
import pytest
from fixed import NOISE, SMALL, A, B, batch, initial, q_of, state_of, traced

from calql.algorithms import AWAC, IQL, O3F, SAC, TD3BC, CalQL
from calql.training import checkpoint
from calql.training.store import borrowed

KEY = jax.random.key(7)
ROWS = NOISE[:1]
"""Of one draw a state, every row and dimension is the first number of the table (see `fixed.normal`)."""


def policy_of(algorithm, state, observations):
    return (np.asarray(x, np.float64) for x in traced(algorithm.pi, state.actor, observations))


# -- AWAC --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_awac_imitates_by_a_softmax_of_advantages(fixed_noise, temperature):
    awac, data = AWAC(**SMALL, awac_lambda=temperature), batch()
    state = state_of(awac)
    mean, log_std = policy_of(awac, state, data.observations)
    sampled = np.clip(mean + np.exp(log_std) * ROWS, -1, 1)
    q_data, q_pi = (q_of(awac, state.critic, data.observations, a).min(0) for a in (data.actions, sampled))
    weights = ref.softmax((q_data - q_pi) / temperature)
    expected = ref.weighted_imitation(weights, ref.gaussian_log_prob(mean, log_std, data.actions))
    loss, metrics = traced(awac.actor_loss, state.actor, state, data, KEY)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["advantage"], (q_data - q_pi).mean(), rtol=1e-4, atol=1e-6)


def test_awac_bootstraps_from_its_own_gaussian(fixed_noise):
    awac, data = AWAC(**SMALL), batch()
    state = state_of(awac)
    mean, log_std = policy_of(awac, state, data.next_observations)
    actions = np.clip(mean + np.exp(log_std) * ROWS, -1, 1)[:, None]
    q_next = q_of(awac, state.target_critic, data.next_observations, actions)
    expected = ref.td_target(data.rewards, data.masks, awac.discount, q_next)
    np.testing.assert_allclose(traced(awac.target_q, state, data, KEY), expected, rtol=1e-5, atol=1e-6)


def test_awac_decays_its_weights_apart_from_adam():
    decaying, plain = (AWAC(**SMALL, weight_decay=decay, actor_lr=1e-2) for decay in (0.5, 0.0))
    state, data = state_of(plain), batch()
    moved, still = (traced(a.improve_policy, state, data, KEY)[0].actor for a in (decaying, plain))
    for before, with_decay, without in zip(*map(jax.tree.leaves, (state.actor, moved, still)), strict=True):
        np.testing.assert_allclose(without - with_decay, 1e-2 * 0.5 * before, atol=1e-6)


# -- IQL ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_iql_regresses_an_expectile_of_the_target_critics(expectile):
    iql, data = IQL(**SMALL, iql_expectile=expectile), batch()
    state = state_of(iql)
    q = q_of(iql, state.target_critic, data.observations, data.actions).min(axis=0)
    v = np.asarray(traced(iql.values, state.value, data.observations))
    loss, mean = traced(iql.value_loss, state.value, state, data)
    np.testing.assert_allclose(loss, ref.expectile_loss(q, v, expectile), rtol=1e-5)
    np.testing.assert_allclose(mean, v.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 3.0, 500.0])
def test_iql_imitates_by_exponentials_of_advantages_up_to_a_hundred(temperature):
    iql, data = IQL(**SMALL, iql_temperature=temperature), batch()
    state = state_of(iql)
    q = q_of(iql, state.target_critic, data.observations, data.actions).min(axis=0)
    v = np.asarray(traced(iql.values, state.value, data.observations), np.float64)
    weights = np.minimum(np.exp(temperature * (q - v)), 100.0) / B
    if temperature == 500.0:
        assert (weights == 100.0 / B).any()
    log_pi = ref.gaussian_log_prob(*policy_of(iql, state, data.observations), data.actions)
    loss, _ = traced(iql.actor_loss, state.actor, state, data, KEY)
    np.testing.assert_allclose(loss, ref.weighted_imitation(weights, log_pi), rtol=1e-3)


def test_iql_bootstraps_from_v_alone():
    iql, data = IQL(**SMALL, discount=0.9), batch()
    state = state_of(iql)
    v = np.asarray(traced(iql.values, state.value, data.next_observations))
    expected = np.asarray(data.rewards) + 0.9 * np.asarray(data.masks) * v
    np.testing.assert_allclose(traced(iql.target_q, state, data, KEY), expected, rtol=1e-5, atol=1e-6)


def test_iql_moves_v_before_the_policy_before_the_critics():
    """Each step sees what the one before has made."""
    iql, data = IQL(**SMALL, actor_lr=0.1, critic_lr=0.1), batch()
    state = state_of(iql)
    new, metrics = traced(iql.update, state, data, KEY)
    on_new_value = state._replace(value=new.value)
    loss, _ = traced(iql.actor_loss, state.actor, on_new_value, data, KEY)
    np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-5)
    target = traced(iql.target_q, on_new_value, data, KEY)
    np.testing.assert_allclose(metrics["target_q"], target.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], traced(iql.value_loss, state.value, state, data)[0], rtol=1e-5)


@pytest.mark.parametrize("rule", [AWAC, IQL])
def test_noise_online_is_the_policys_own_or_a_fixed_one(fixed_noise, rule):
    observations = batch().observations
    for std in (None, 0.03):
        algorithm = rule(**SMALL, exploration_std=std)
        state = state_of(algorithm)
        mean, log_std = policy_of(algorithm, state, observations)
        expected = np.clip(mean + (np.exp(log_std) if std is None else std) * ROWS, -1, 1)
        np.testing.assert_allclose(algorithm.act(state, observations, KEY), expected, rtol=1e-5)
        np.testing.assert_allclose(algorithm.act(state, observations), mean, rtol=1e-5)


# -- TD3+BC ------------------------------------------------------------------------------------------------------------


def test_td3_bc_weighs_the_value_by_its_own_size():
    td3, data = TD3BC(**SMALL), batch()
    state = state_of(td3)
    actions = np.asarray(traced(td3.actions, state.actor, data.observations))
    q = q_of(td3, state.critic, data.observations, actions)[0]
    loss, metrics = traced(td3.actor_loss, state.actor, state, data, KEY)
    np.testing.assert_allclose(loss, ref.td3_bc_loss(q, actions, data.actions, 2.5), rtol=1e-5)
    np.testing.assert_allclose(metrics["bc_loss"], np.mean((actions - np.asarray(data.actions)) ** 2), rtol=1e-5)


@pytest.mark.parametrize(("noise", "clip"), [(0.2, 0.5), (3.0, 0.5)])
def test_td3_bc_smooths_its_targets_with_clipped_noise(fixed_noise, noise, clip):
    td3, data = TD3BC(**SMALL, target_noise=noise, target_noise_clip=clip), batch()
    state = state_of(td3)
    state = state._replace(target_actor=state_of(td3, seed=5).actor)
    centre = np.asarray(traced(td3.actions, state.target_actor, data.next_observations))
    actions = np.clip(centre + np.clip(noise * ROWS, -clip, clip), -1, 1)
    q_next = q_of(td3, state.target_critic, data.next_observations, actions)[..., None]
    expected = ref.td_target(data.rewards, data.masks, td3.discount, q_next)
    np.testing.assert_allclose(traced(td3.target_q, state, data, KEY), expected, rtol=1e-5, atol=1e-6)


def test_td3_bc_moves_policy_and_targets_every_second_time():
    td3, data = TD3BC(**SMALL, tau=0.5), batch()
    state = state_of(td3)
    update = jax.jit(td3.update)
    for due in (False, True, False, True):
        new, metrics = update(state, data, KEY)
        for name in ("actor", "target_actor", "target_critic", "critic"):
            pairs = zip(*(jax.tree.leaves(getattr(x, name)) for x in (state, new)), strict=True)
            assert any((a != b).any() for a, b in pairs) == (due or name == "critic")
        assert (metrics["bc_loss"] != 0) == due
        state = new


# -- O3F ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bonus", [0.0, 10.0])
def test_o3f_takes_the_candidate_that_the_critics_like_best(bonus):
    o3f, observations = O3F(**SMALL, o3f_candidates=50, o3f_bonus=bonus), batch().observations
    state = state_of(o3f)
    action = o3f.act(state, observations, KEY)
    centre_key, candidate_key = jax.random.split(KEY)
    centre = np.asarray(SAC.act(o3f, state, observations, centre_key))[:, None]
    candidates = np.clip(centre + 0.2 * np.asarray(jax.random.normal(candidate_key, (B, 50, A))), -1, 1)
    q = q_of(o3f, state.critic, observations, candidates)
    best = (q.mean(axis=0) + bonus * q.std(axis=0)).argmax(axis=1)
    np.testing.assert_allclose(action, candidates[np.arange(B), best], rtol=1e-5)
    assert (q.std(axis=0).argmax(axis=1) != q.mean(axis=0).argmax(axis=1)).any()
    np.testing.assert_array_equal(o3f.act(state, observations), SAC.act(o3f, state, observations))


# -- RLPD's critics ----------------------------------------------------------------------------------------------------


def test_targets_take_the_minimum_over_a_random_subset(fixed_noise):
    sac, data = SAC(**SMALL, num_critics=5, target_subset=2, num_target_actions=1), batch()
    state = state_of(sac)
    chosen, target_members, target_q = set(), jax.jit(sac.target_members), jax.jit(lambda *x: sac.target_q(*x))
    mean, log_std = policy_of(sac, state, data.next_observations)
    actions, _ = ref.draw(mean[:, None], log_std[:, None], NOISE[None, :1, None])
    q_of_all = q_of(sac, state.target_critic, data.next_observations, actions)
    for seed in range(12):
        key = jax.random.key(seed)
        members = target_members(state, key)
        kernels, all_kernels = (np.asarray(jax.tree.leaves(x)[1]) for x in (members, state.target_critic))
        rows = kernels[:, None] == all_kernels[None]
        pair = tuple(int(np.argmax([rows[i, j].all() for j in range(5)])) for i in range(2))
        assert len(set(pair)) == 2
        chosen.add(frozenset(pair))
        expected = ref.td_target(data.rewards, data.masks, sac.discount, q_of_all[list(pair)])
        np.testing.assert_allclose(target_q(state, data, key), expected, rtol=1e-5, atol=1e-6)
    assert len(chosen) > 3


def test_the_policy_climbs_the_mean_of_the_critics(fixed_noise):
    sac, data = SAC(**SMALL, num_critics=5, actor_on_mean=True), batch()
    state = state_of(sac)
    actions, log_pi = ref.draw(*policy_of(sac, state, data.observations), ROWS)
    q = q_of(sac, state.critic, data.observations, actions).mean(axis=0, keepdims=True)
    loss, _ = traced(sac.actor_loss, state.actor, state, data, KEY)
    np.testing.assert_allclose(loss, ref.actor_loss(log_pi, q, np.exp(-0.7)), rtol=1e-5)


def test_the_policy_moves_on_the_last_batch_of_each_step():
    often, seldom = SAC(**SMALL), SAC(**SMALL, actor_every=3)
    state, updates = state_of(often), [jax.jit(rule.update) for rule in (seldom, often)]
    total = 0.0
    for i in range(6):
        (new, metrics), (alone, expected) = (update(state, batch(seed=i), jax.random.key(i)) for update in updates)
        due = i % 3 == 2
        jax.tree.map(np.testing.assert_array_equal, new.critic, alone.critic)
        jax.tree.map(np.testing.assert_array_equal, new.actor, alone.actor if due else state.actor)
        assert metrics["actor_loss"] == (3 * expected["actor_loss"] if due else 0.0)
        assert (new.log_alpha != state.log_alpha) == due
        total, state = total + float(metrics["log_pi"]), new


@pytest.mark.parametrize("rule", [SAC, TD3BC])
def test_the_delay_counts_on_over_the_border_and_from_another_run(rule):
    """What it counts from is the first update of the critics' optimiser, whichever phase or run that was in."""
    before, after, wider = (
        rule(**SMALL | o) for o in ({"actor_every": 1}, {"actor_every": 3}, {"critic_hidden": (5,)})
    )
    state, first = state_of(before), jax.jit(before.update)
    for _ in range(4):
        state, _ = first(state, batch(), KEY)
    borrowed_state, taken, _ = borrowed(initial(after, 5), checkpoint.flatten(state))
    _, _, left = borrowed(initial(wider, 5), checkpoint.flatten(state))
    assert {"critic", "critic_optimizer"} <= {*taken} & {*left}  # together, or not at all: then the count begins at 0
    update = jax.jit(after.update)
    for start, updates in ((state, 4), (borrowed_state, 4), (initial(after, 5), 0)):
        moved = []
        for _ in range(4):
            new, _ = update(start, batch(), KEY)
            pairs = zip(*(jax.tree.leaves(x.actor) for x in (start, new)), strict=True)
            moved.append(any((a != b).any() for a, b in pairs))
            start = new
        assert moved == [(updates + i) % 3 == 2 for i in range(4)]


def test_normalised_critics_stay_bounded_far_from_the_data():
    """What layer norm is for: Q cannot grow without limit in the action (Ball et al. 2023, Fig. 3)."""
    data = batch()
    far = 1e4 * data.actions
    for layer_norm in (True, False):
        sac = SAC(**SMALL, critic_layer_norm=layer_norm)
        q = np.abs(np.asarray(sac.q_values(state_of(sac).critic, data.observations, far))).max()
        assert (q < 20) == layer_norm


# -- the learned reference of Cal-QL -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fitted", "fitted-v"])
def test_a_fitted_reference_stands_where_the_return_stood(kind):
    fitted, data = CalQL(**SMALL, reference=kind), batch()
    state = state_of(fitted)
    values = np.asarray(fitted.reference_values(state, data))
    assert (np.abs(values - data.returns) > 1e-3).all()
    stand_in, plain = data._replace(returns=jnp.asarray(values)), CalQL(**SMALL)
    loss, metrics = traced(fitted.critic_loss, state.critic, state, data, KEY)
    expected, theirs = traced(plain.critic_loss, state.critic, state, stand_in, KEY)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics["bounding_rate"] == theirs["bounding_rate"]
    other = data._replace(actions=-data.actions)
    assert (np.asarray(fitted.reference_values(state, other)) == values).all() == (kind == "fitted-v")


@pytest.mark.parametrize("kind", ["fitted", "fitted-v"])
def test_the_reference_is_regressed_on_the_returns_beside_the_rest(kind):
    fitted, data = CalQL(**SMALL, reference=kind, critic_lr=1e-2), batch()
    state, update = state_of(fitted), jax.jit(fitted.update)
    new, metrics = update(state, data, KEY)
    values = np.asarray(fitted.reference_values(state, data), np.float64)
    np.testing.assert_allclose(metrics["reference_loss"], np.square(values - data.returns).mean(), rtol=1e-5)
    plain = CalQL(**SMALL, critic_lr=1e-2)
    same, _ = traced(plain.update, state, data._replace(returns=jnp.asarray(values, jnp.float32)), KEY)
    for name in ("actor", "critic", "target_critic", "log_alpha"):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *(getattr(s, name) for s in (new, same))
        )
    for _ in range(300):
        new, metrics = update(new, data, KEY)
    assert metrics["reference_loss"] < 0.05
    np.testing.assert_allclose(fitted.reference_values(new, data), data.returns, atol=0.5)
