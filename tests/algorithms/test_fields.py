"""Every field of every rule: it is read by `init`, `update` or acting, it has bounds, and it survives a file."""

import dataclasses
import math
import types
import typing
from functools import cache

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from fixed import STATE, A, batch
from test_update import RULES, data_of
from test_update import small as small_rule

from calql.algorithms import AWAC, BC, CQL, IQL, ODT, SAC, SMAC, TD3BC, ActsInContext, CalQL
from calql.algorithms.actor_critic import ActorCritic
from calql.networks import ENCODERS
from calql.types import InputError, Spec

KEY = jax.random.key(0)
FIELDS = [(rule, field) for rule in RULES for field in dataclasses.fields(rule)]
OTHER = dict(
    actor_hidden=(7,), critic_hidden=(7, 8), target_q_range=(-1.0, 1.0), critic_chunk=2, encoder="impala",
    target_subset=1, target_entropy=0.5, cql_target_gap=0.8, cql_clip=(0.0, math.inf), reference="fitted",
    cql_gradient_actions=2, exploration_std=0.3, odt_return=1.0, odt_width=4, odt_heads=4,
    acting_tau=0.3, optimizer="muon", score_noise=(0.2, 0.3), critic_precision="bfloat16",
)  # fmt: skip
"""Other values of the fields for which `other` knows none."""
CLAMPED = [rule for rule in RULES if issubclass(rule, ActorCritic)]
NOT_READ = {(BC, "discount"), (ODT, "discount")}
"""They do not bootstrap: the discount, which every rule must have, is there that of the returns in a run's report."""


def small(rule):
    """A rule with small networks; its critics have a product between hidden layers, for `critic_precision`."""
    return small_rule(rule, critic_hidden=(8, 8))


def other(rule, field):
    """A rule that differs in that field alone."""
    value = getattr(rule, field)
    if field in OTHER:
        value = OTHER[field]
    elif isinstance(value, bool):
        value = not value
    elif isinstance(value, int):
        value += 1
    else:
        value = 0.5 * value if value else 0.25
    assert value != getattr(rule, field)
    return dataclasses.replace(rule, **{field: value})


def with_images(data):
    images = jnp.zeros((len(data.rewards), 8, 8, 3), jnp.uint8)
    return data._replace(observations={"image": images}, next_observations={"image": images})


@cache
def program(rule, part, images=False):
    """The text of a part of the rule, untouched by the compiler."""
    data = data_of(rule) if rule.context else batch(6)  # in halves, for `critic_chunk`
    data = with_images(data) if images else data
    one = jax.tree.map(lambda x: np.zeros(x.shape[1 + (rule.context > 0) :], x.dtype), data.observations)
    spec = Spec(one, A)

    def act(state, observations, key):
        if isinstance(rule, ActsInContext):
            steps, rewards = jnp.zeros(3, jnp.int32), jnp.zeros(3)
            return rule.act_in_context(state, rule.blank(spec, 3), observations, steps, rewards, key)
        return rule.act(state, observations, key)

    if part == "init":
        made, state = jax.make_jaxpr(lambda key: rule.init(key, spec), return_shape=True)(KEY)
        return str(made), state
    _, state = program(rule, "init", images)
    if part == "update":
        return str(jax.make_jaxpr(rule.update)(state, data, KEY))
    return str(jax.make_jaxpr(act)(state, jax.tree.map(lambda x: jnp.zeros((3, *x.shape), x.dtype), one), KEY))


@pytest.mark.parametrize(("rule", "field"), [pytest.param(r, f.name, id=f"{r.__name__}-{f.name}") for r, f in FIELDS])
def test_every_field_is_read(rule, field):
    one = small(rule)
    changed, images = other(one, field), field == "encoder"
    same = all(program(one, part, images) == program(changed, part, images) for part in ("init", "update", "act"))
    assert same == ((rule, field) in NOT_READ)


# -- bounds ------------------------------------------------------------------------------------------------------------


def numbers(kind):
    """The bare numbers in a type, without the bounds at any of them."""
    if typing.get_origin(kind) is typing.Annotated:
        return
    if kind in (int, float):
        yield kind
    for inner in typing.get_args(kind):
        if not isinstance(inner, types.EllipsisType) and typing.get_origin(kind) is not typing.Literal:
            yield from numbers(inner)


@pytest.mark.parametrize(("rule", "field"), [pytest.param(r, f.name, id=f"{r.__name__}-{f.name}") for r, f in FIELDS])
def test_every_number_has_bounds(rule, field):
    """But those of ranges, whose ends only need an order (and may be infinite)."""
    unbounded = list(numbers(typing.get_type_hints(rule, include_extras=True)[field]))
    if field in ("target_q_range", "cql_clip"):
        assert unbounded == [float, float]
        for pair in ((1.0, -1.0), (2.0, 2.0)):
            with pytest.raises(InputError, match=field):
                rule(**{field: pair})
    else:
        assert unbounded == []


@pytest.mark.parametrize("rule", RULES)
def test_rules_survive_a_file_and_stay_static_arguments(rule):
    for one in (rule(), small(rule), *(other(small(rule), field.name) for field in dataclasses.fields(rule))):
        again = msgspec.convert(msgspec.to_builtins(one), rule)
        assert (again, hash(again)) == (one, hash(one))


@pytest.mark.parametrize(
    ("rule", "field", "values"),
    [
        (SAC, "discount", (1.0, -0.1, math.nan)),
        (SAC, "tau", (0.0, 1.5)),
        (SAC, "actor_lr", (0.0, -1e-4, math.inf, math.nan)),
        (SAC, "critic_lr", (0.0, math.inf)),
        (SAC, "num_critics", (0, 1.5)),
        (SAC, "target_subset", (0,)),
        (SAC, "num_target_actions", (0,)),
        (SAC, "actor_every", (0,)),
        (SAC, "actor_hidden", ((0,), (8, -1))),
        (SAC, "encoder", ("large",)),
        (SAC, "optimizer", ("sgd",)),
        (SMAC, "score_weight", (-0.1, math.inf)),
        (SMAC, "score_temperature", (0.0,)),
        (SMAC, "score_noise", ((0.0, 1.0), (0.5, 0.1), (0.1,))),
        (CQL, "num_next_actions", (-1,)),
        (CQL, "cql_temperature", (0.0, math.inf)),
        (CQL, "cql_clip", ((1.0, -1.0), (1.0,))),
        (CalQL, "reference", ("fitted-q",)),
        (IQL, "iql_expectile", (0.0, 1.0)),
        (AWAC, "actor_dropout", (-0.1, 1.0)),
        (AWAC, "exploration_std", (-0.1,)),
        (TD3BC, "target_noise", (-0.1,)),
        (ODT, "odt_context", (0,)),
    ],
    ids=lambda x: x if isinstance(x, str) else None,
)
def test_values_out_of_bounds_are_refused(rule, field, values):
    for value in values:
        with pytest.raises(msgspec.ValidationError, match=field):
            msgspec.convert({field: value}, rule)


def test_the_kinds_of_encoders_are_those_of_the_networks():
    assert typing.get_args(typing.get_type_hints(SAC)["encoder"]) == ENCODERS


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", CLAMPED)
def test_every_target_is_clamped(rule):
    free = small(rule)
    clamped = dataclasses.replace(free, target_q_range=(-0.2, 0.2))
    state = jax.jit(lambda key: free.init(key, Spec(np.zeros(STATE, np.float32), A)))(KEY)
    one, two = (jax.jit(algorithm.target_q)(state, batch(), KEY) for algorithm in (free, clamped))
    assert (np.abs(one) > 0.2).any()
    np.testing.assert_allclose(two, np.clip(one, -0.2, 0.2), rtol=1e-6)
