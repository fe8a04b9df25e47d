"""NumPy and ONNX against JAX on every policy that the tables hold, and on networks of a user's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calql.algorithms import BC, IQL
from calql.algorithms.protocol import Acts
from calql.export import load
from calql.export.contract import Interface, contract_of
from calql.export.write import write_policy
from calql.paper.methods import METHODS
from calql.paper.tasks import TASKS
from calql.tasks import Task
from calql.training.options import experiment
from calql.types import InputError, Spec, map_leaves
from calql.units import ActionBounds

LOW, HIGH = np.array([-0.4, 0.0, -3.0]), np.array([0.4, 7.0, 3.0])
FLAT = np.zeros(11, np.float32)
SEEN = {"state": np.zeros(4, np.float32), "camera": np.zeros((24, 20, 3), np.uint8)}
TASK = Task(id="any", env=dict, horizon=10)


def policies():
    """Every policy network of the tables, of runs at paper scale, by what it is."""
    found = {}
    for task in TASKS.values():
        for method in METHODS:
            try:
                phases = experiment(task.id, method, "paper").phases
            except InputError:  # a method that this task refuses
                continue
            for rule in (phase.algorithm for phase in phases if isinstance(phase.algorithm, Acts)):
                images = task.domain == "visual"
                network = str(rule.policy(3)) + type(rule).__name__ + str(images)
                found.setdefault(network, (f"{type(rule).__name__}-{task.domain}-{method}", rule, images))
    return list(found.values())


POLICIES = policies()


def trained(rule, spec):
    """A state in which no parameter of the policy is zero or one, and actions fill their range; it has no critics. An
    average of the policy, if the rule has one, is another policy: it is what must be exported."""
    shapes, random = jax.eval_shape(lambda key: rule.init(key, spec), jax.random.key(0)), np.random.default_rng(0)

    def draw(path, shape):
        noise = random.normal(size=shape.shape)
        if len(shape.shape) < 2:
            return jnp.float32((path[-1].key == "scale") + 0.1 * noise)
        return jnp.float32(noise * (2.0 / np.prod(shape.shape[:-1])) ** 0.5)

    policies = {name: getattr(shapes, name, None) for name in ("actor", "averaged_actor")}
    drawn = {name: jax.tree_util.tree_map_with_path(draw, part) for name, part in policies.items() if part is not None}
    return type(shapes)(**dict.fromkeys(shapes._fields) | drawn)


def states(observation, count, seed=1):
    random = np.random.default_rng(seed)

    def draw(x):
        if x.dtype == np.uint8:
            return random.integers(0, 256, x.shape).astype(np.uint8)
        return (random.normal(size=x.shape)).astype(np.float32)

    return [map_leaves(draw, observation) for _ in range(count)]


def written(folder, rule, observation, state):
    """(check, exported policy) in both forms, and the observations."""
    spec, seen = Spec(observation, 3), states(observation, 20)
    contract = contract_of(Interface(spec, ActionBounds(LOW, HIGH)), task=TASK)
    for path in (folder / "policy.npz", folder / "policy.onnx"):
        yield write_policy(path, rule, spec, state, contract, seen, "noise")["check"], load(path), seen


def acts_as(tmp_path, rule, observation, state):
    for check, exported, seen in written(tmp_path, rule, observation, state):
        assert check["worst_share"] < 2e-5
        assert check["states"] == 20
        actions = np.array([exported.act(observation) for observation in seen])
        unit = np.asarray(rule.act(state, map_leaves(lambda *x: np.stack(x), *seen)))
        np.testing.assert_allclose(actions, LOW + (unit + 1) / 2 * (HIGH - LOW), atol=2e-4)
        assert np.ptp(actions / (HIGH - LOW), axis=0).min() > 0.02  # the policy does depend on what it sees


@pytest.mark.parametrize(("name", "rule", "images"), POLICIES, ids=[name for name, *_ in POLICIES])
def test_it_acts_as_in_jax(name, rule, images, tmp_path):
    observation = SEEN if images else FLAT
    acts_as(tmp_path, rule, observation, trained(rule, Spec(observation, 3)))


@pytest.mark.parametrize("rule", [BC(encoder="impala"), IQL(encoder="impala")], ids=["BC", "IQL"])
def test_the_large_encoder_acts_as_in_jax(rule, tmp_path):
    acts_as(tmp_path, rule, SEEN, trained(rule, Spec(SEEN, 3)))


def test_an_image_policy_acts_as_in_jax_where_its_convolutions_are_xla_s(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # a rule that was not compiled before
    rule = BC(encoder="small", discount=0.5)
    assert "conv_general_dilated" in str(
        jax.make_jaxpr(lambda s, o: rule.act(s, o))(
            *(trained(rule, Spec(SEEN, 3)), map_leaves(lambda x: x[None], SEEN))
        )
    )
    acts_as(tmp_path, rule, SEEN, trained(rule, Spec(SEEN, 3)))


def test_the_tables_hold_policies_of_every_kind():
    assert {type(rule).__name__ for _, rule, _ in POLICIES} >= {"SAC", "CQL", "CalQL", "IQL", "AWAC", "TD3BC", "BC"}
    assert {images for *_, images in POLICIES} == {True, False}


# -- a user's own ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Own:
    """A rule whose policy is any function of JAX."""

    function: object
    discount = 0.9
    context = 0

    def act(self, state, observations, key=None):
        return self.function(state, observations)


WEIGHTS = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32) / 4


def functions():
    def convolved(layout, kernel, strides, padding):
        def act(w, s):
            x = s["camera"].astype(jnp.float32) / 255 - 0.5
            shape = {"HWIO": (3, 2, 3, 5), "OIHW": (5, 3, 3, 2)}[kernel]
            x = x if layout == "NHWC" else x.transpose(0, 3, 1, 2)
            k = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
            x = jax.lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=(layout, kernel, layout))
            axes = (1, 2) if layout == "NHWC" else (2, 3)
            return jnp.tanh(x.sum(axes)[:, :3] / 9)

        return SEEN, act

    def pooled(pool):
        import flax.linen as nn

        def act(w, s):
            x = s["camera"].astype(jnp.float32) / 255 - 0.5
            x = getattr(nn, pool)(x, (3, 2), strides=(2, 3), padding="SAME")
            return jnp.tanh(3 * x.mean((1, 2)))

        return SEEN, act

    def flat(function):
        return FLAT, lambda w, s: jnp.tanh(function(s @ WEIGHTS))

    yield "swish", flat(jax.nn.swish)
    yield "sigmoid", flat(lambda x: jax.nn.sigmoid(200 * x) - 0.5)
    yield "gelu", flat(jax.nn.gelu)
    yield "elu", flat(lambda x: jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0)) - 1))
    yield "softplus", flat(lambda x: jnp.log1p(jnp.exp(-jnp.abs(x))) + jnp.maximum(x, 0))
    yield "abs-sign-floor", flat(lambda x: jnp.abs(x) + jnp.sign(x) * 0.1 + 0.01 * jnp.floor(x))
    yield "sines", flat(lambda x: jnp.sin(x) + jnp.cos(2 * x))
    yield "powers", flat(lambda x: x**2 - 0.1 * x**3 + jnp.sqrt(jnp.abs(x)) + jnp.power(jnp.abs(x), 0.3))
    yield "softmax", flat(lambda x: jax.nn.softmax(x, axis=-1) - 0.3)
    yield "clamp", flat(lambda x: jax.lax.clamp(jnp.float32(-0.3), x, jnp.float32(0.4)) - x)
    yield "compare", flat(lambda x: jnp.where(x < 0.1, -x, 2 * x) + jnp.where(x > 0.5, 0.3, 0.0))
    yield "attention", flat(lambda x: jnp.einsum("bi,bj,jk->bk", x, x, jnp.ones((3, 3), jnp.float32)) / 9)
    yield "members", flat(lambda x: jnp.einsum("bi,eij->ebj", x, jnp.ones((2, 3, 3), jnp.float32) / 5).max(0))
    for layout, kernel in (("NHWC", "HWIO"), ("NCHW", "OIHW")):
        for padding in ("SAME", "VALID", [(0, 2), (1, 0)]):
            yield f"conv-{layout}-{padding}", convolved(layout, kernel, (2, 1), padding)
    yield "max-pool", pooled("max_pool")
    yield "avg-pool", pooled("avg_pool")


@pytest.mark.parametrize(("name", "case"), [*functions()], ids=[name for name, _ in functions()])
def test_own_networks_act_as_in_jax(name, case, tmp_path):
    observation, function = case
    acts_as(tmp_path, Own(function), observation, ())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda w, s: jnp.sort(s, axis=-1)[:, :3], "the policy computes 'sort', which an export cannot hold"),
        (lambda w, s: jnp.zeros((1, 3)), "the action does not depend on the observation"),
    ],
)
def test_what_cannot_be_held_is_refused_in_one_line(function, message, tmp_path):
    with pytest.raises(InputError, match=message):
        list(written(tmp_path, Own(function), FLAT, ()))
    assert [*tmp_path.iterdir()] == []


def test_nested_observations_keep_their_names(tmp_path):
    nested = {"arm": {"q": np.zeros(3, np.float32), "dq": np.zeros(2, np.float32)}, "c0": np.zeros(6, np.float32)}
    rule = BC(actor_hidden=(8,))
    acts_as(tmp_path, rule, nested, trained(rule, Spec(nested, 3)))
    exported = load(tmp_path / "policy.npz")
    names = [array["name"] for array in exported.contract["observations"]["arrays"]]
    assert names == ["observation/arm/dq", "observation/arm/q", "observation/c0"]
