"""`calql bench`: the count of operations, and a run on a tiny network."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from calql.algorithms import SAC, CalQL
from calql.cli.bench import bench
from calql.paper.scales import SCALES
from calql.training import speed as module
from calql.training.speed import Size, flops_per_update, synthetic
from calql.types import InputError, Spec

SMALL = dict(actor_hidden=(8,), critic_hidden=(8,), batch_size=16)
TINY = Size(3, 2, dict(actor_hidden=(5,), critic_hidden=(4,), **module.LISTING))


def test_operations_of_one_update_by_hand():
    """Critic 5-4-1: 20 + 4 weights. Policy 3-5-4: 15 + 20. A multiply-add is two operations."""
    critics = 9 * (24 + 24 + 4)  # data, 4 random, 4 of π(s): forwards, weights, activations (not into the inputs)
    target = 1 * 24
    critic_in_policy_loss = 24 + (4 + 2 * 4)  # forwards; back through the output, then to the two action inputs
    policy = (35 + 35 + 20) + 35  # at s: forwards, weights, activations; at s′: forwards
    by_hand = 2 * (2 * (critics + target + critic_in_policy_loss) + policy)
    assert flops_per_update(CalQL(**TINY.settings), TINY.spec, 1) == by_hand
    assert flops_per_update(CalQL(**TINY.settings), TINY.spec, 7) == 7 * by_hand


def test_operations_of_the_estimated_term():
    """On every second state: data and 8 sampled actions forward, data and 2 drawn ones forward and backward."""
    few = CalQL(**TINY.settings, cql_every_nth_state=2, cql_gradient_actions=2)
    by_hand = 2 * (2 * ((1 + 2 / 2) * (24 + 24 + 4) + (9 / 2 + 1) * 24 + 36) + 125)
    assert flops_per_update(few, TINY.spec, 1) == by_hand
    part = CalQL(**TINY.settings, cql_every_nth_state=4)
    assert flops_per_update(part, TINY.spec, 1) == 2 * (2 * ((1 + 8 / 4) * 52 + 24 + 36) + 125)


def test_operations_of_sac_and_of_an_observation_in_parts():
    sac = SAC(actor_hidden=(5,), critic_hidden=(4,), num_target_actions=1)
    by_hand = 2 * (2 * (52 + 24 + 36) + 125)
    assert flops_per_update(sac, TINY.spec, 1) == by_hand
    parts = Spec({"arm": np.zeros(1, np.float32), "goal": np.zeros(2, np.float32)}, 2)
    assert flops_per_update(sac, parts, 1) == by_hand


@pytest.mark.parametrize("estimate", [{}, module.ESTIMATE, module.ESTIMATE | module.BFLOAT16], ids=str)
@pytest.mark.parametrize("name", ["antmaze", "laptop"])
def test_operations_are_near_what_the_compiler_counts(name, estimate):
    """XLA counts element-wise work too, so a little more; without chunks, whose loop it would count as one turn."""
    size = module.SIZES[name]
    algorithm = CalQL(**size.settings, **estimate, critic_chunk=10**9)
    batch = jax.tree.map(lambda x: x[:256], synthetic(size.spec, 256))
    state = jax.eval_shape(lambda: algorithm.init(jax.random.key(0), size.spec))
    compiled = jax.jit(algorithm.update).lower(state, batch, jax.random.key(0)).compile()
    counted = compiled.cost_analysis()["flops"]
    assert 1.0 <= counted / flops_per_update(algorithm, size.spec, 256) < 1.2


def test_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "SIZES", {"tiny": TINY})
    monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(module, "ROUNDS", 2)
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "deep" / "bench.json"
    assert bench((("tiny",),), seconds=0.05, json=file) == 0
    printed = capsys.readouterr().out
    for word in ("tiny", "updates/s", "GFLOP", "peak", "share", "memory", "threads", "conservative term", "targets"):
        assert word in printed
    record = json.loads(file.read_text())
    (row,) = record["rows"]
    assert record["machine"]["jax"] == jax.__version__
    assert row["configuration"] == "tiny"
    assert row["gflop_per_update"] == flops_per_update(CalQL(**TINY.settings), TINY.spec, 8) / 1e9
    assert row["gflop_per_s"] == pytest.approx(row["updates_per_s"] * row["gflop_per_update"])
    assert row["share_of_peak"] == pytest.approx(row["gflop_per_s"] / row["peak_gflop_per_s"])
    assert 0 < row["updates_per_s_median"] <= row["updates_per_s"]
    assert 0 < row["share_of_peak"] < 1
    assert row["compile_s"] > 0
    assert row["memory_mb"] > 10
    assert list(row["parts_ms"]) == ["replay", "targets", "policy", "critics", "conservative term"]


def test_every_method_is_measured_against_the_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "ROUNDS", 2)
    monkeypatch.setitem(SCALES, "laptop", SCALES["laptop"] | SMALL)
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "bench.json"
    assert bench(methods=(("bc", "odt"), ("rlpd",)), seconds=0.02, json=file) == 0
    printed = capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    assert [row["method"] for row in rows] == ["bc", "odt", "rlpd"]
    assert [row["rule"] for row in rows] == ["BC", "ODT", "SAC"]
    assert all(row["updates_per_s"] > 0 and row["rule"] in printed for row in rows)
    assert rows[0]["relative"] == 1.0
    assert 3 < rows[2]["updates_per_step"] < 4  # four, but for the random steps at first
    with pytest.raises(InputError, match="cal-ql"):
        bench(methods=(("calql",),))


def test_images_are_measured_with_their_share_and_refused_by_odt(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "ROUNDS", 1)
    monkeypatch.setitem(SCALES, "laptop", SCALES["laptop"] | SMALL)
    monkeypatch.setattr(module, "synthetic", lambda spec: synthetic(spec, 64))
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "bench.json"
    assert bench(methods=(("bc", "odt"),), task="visual-pick-place", seconds=0.02, json=file) == 0
    bc, odt = json.loads(file.read_text())["rows"]
    assert 0.3 < bc["encoder_share"] < 1
    assert "does not take images" in odt["refused"]
    printed = capsys.readouterr().out
    assert f"{bc['encoder_share']:.0%}" in printed
    assert odt["refused"] in printed
    with pytest.raises(InputError, match="images"):
        bench(methods=(("odt",),), task="visual-pick-place")
    with pytest.raises(InputError, match="--methods"):
        bench(task="visual-pick-place")


def test_latents_stand_for_images():
    seen = Spec({"image": np.zeros((8, 8, 3), np.uint8), "state": np.zeros(2, np.float32)}, 1)
    latents = module.without_images(seen).observation
    assert (latents["image"].shape, latents["image"].dtype, latents["state"].shape) == ((50,), np.float32, (2,))
    data = synthetic(seen, 5).observations
    assert (data["image"].shape, data["image"].dtype) == ((5, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("config", "seconds", "message"),
    [
        ("adroid", 1.0, "adroit"),
        ("laptop", 0.0, "seconds is 0.0"),
        ("laptop", float("nan"), "must be a finite number greater than 0"),
    ],
)
def test_bad_input_is_named(config, seconds, message):
    with pytest.raises(InputError, match=message):
        bench(((config,),), seconds)


# -- the trick that the numbers rest on --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [SAC, CalQL])
def test_chunks_change_nothing_but_speed(rule):
    size, keys = TINY, jax.random.split(jax.random.key(3))
    batch = synthetic(size.spec, 48)._replace(returns=np.linspace(-0.02, 0.02, 48, dtype=np.float32))
    kwargs = {k: v for k, v in size.settings.items() if k in {"actor_hidden", "critic_hidden", "num_target_actions"}}
    kwargs = size.settings if rule is CalQL else kwargs
    state = rule(**kwargs).init(keys[0], size.spec)

    def gradient(chunk: int):
        return jax.jit(rule(**kwargs, critic_chunk=chunk).critic_gradient)(state, batch, keys[1])

    whole, loss = gradient(10**9), jax.jit(rule(**kwargs).critic_loss)(state.critic, state, batch, keys[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole[0], loss)
    for chunk in (100, 27, 1):  # 6 and 3 states with 9 actions each; 48 = 16 · 3 cannot be halved further
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient(chunk), whole)
