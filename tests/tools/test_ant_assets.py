"""The ant's trot and its clone: how they walk, and how they are remade."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from calql.paper.demonstrators import ant_clone

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "make_assets"))
import ant_gait  # noqa: E402 - a folder of scripts, not a package
import make_ant_clone  # noqa: E402
from ant_gait import BOUNDS, Gait, open_ground, trot, tune  # noqa: E402


@pytest.mark.parametrize("kind", ["gait", "clone"])
@pytest.mark.parametrize("quarter", range(4))
def test_walks_in_every_direction(kind, quarter):
    walker = trot(Gait.load(), 0.0) if kind == "gait" else ant_clone.load()
    env, heading, noise = open_ground(), quarter * np.pi / 2 + 0.3, np.random.default_rng(quarter)
    observation, _ = env.reset(seed=quarter)
    for _ in range(80):
        observation, *_ = env.step(walker(observation, heading) + 0.2 * noise.standard_normal(8))
    forward, aside = observation[:2] @ np.array(
        [[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]]
    )
    assert forward > 0.8 * 8.0  # 0.8 m/s for 8 s
    assert abs(aside) < 0.4 * forward
    assert ant_gait.uprightness(observation) > 0.5


def test_the_clone_has_no_memory():
    env, walker = open_ground(), ant_clone.load()
    observation, _ = env.reset(seed=0)
    first = walker(observation, 0.3)
    env.step(first)
    np.testing.assert_array_equal(walker(observation, 0.3), first)
    moved = observation + np.array([100.0, -50.0] + 27 * [0.0])
    np.testing.assert_allclose(walker(moved, 0.3), first, atol=1e-5)


def test_the_shipped_gait_is_within_its_bounds():
    stored = json.loads(ant_gait.ASSET.read_text())
    assert stored.keys() == BOUNDS.keys() == {field.name for field in dataclasses.fields(Gait)}
    assert all(low <= stored[name] <= high for name, (low, high) in BOUNDS.items())
    assert ant_clone.ASSET.stat().st_size < 300_000


def test_tuning_is_a_function_of_its_seed():
    calls = []
    few = dict(iterations=2, population=5, elite=2, walks=1, steps=30)
    found = tune(seed=1, **few, progress=lambda *call: calls.append(call))
    assert found == tune(seed=1, **few) != tune(seed=2, **few)
    assert [call[:2] for call in calls] == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("module", "options"),
    [(ant_gait, ["--iterations", "0"]), (make_ant_clone, ["--samples", "600", "--steps", "1000", "--hidden", "16"])],
)
def test_both_are_remade_by_commands(module, options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "ASSET", tmp_path / module.ASSET.name)
    monkeypatch.setattr(sys, "argv", ["command", *options])
    module.main()
    assert module.ASSET.stat().st_size > 0
    assert capsys.readouterr().out.count("falls in") == 2
