"""The pure parts of `benchmarks/`: nothing is installed and no other library is needed."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest

from calql.algorithms import CalQL
from calql.cli.bench import SIZES

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "peers.py"


@pytest.fixture(scope="module")
def peers():
    spec = importlib.util.spec_from_file_location("peers", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sizes_are_those_of_calql_bench(peers):
    for name in ("adroit", "antmaze"):
        assert tuple(SIZES[name]) == peers.SIZES[name]
    assert tuple(SIZES["laptop"]) == peers.SIZES["laptop-listing"]


def test_settings_are_translated_with_our_defaults(peers):
    theirs = peers.peer_settings({}, lambda widths: widths)
    ours = CalQL()
    assert theirs["actor_encoder_factory"] == [*ours.actor_hidden]
    assert theirs["critic_encoder_factory"] == [*ours.critic_hidden]
    assert theirs["conservative_weight"] == ours.cql_alpha
    assert theirs["n_action_samples"] == ours.num_random_actions == ours.num_policy_actions == ours.num_next_actions
    assert (theirs["gamma"], theirs["tau"], theirs["n_critics"]) == (ours.discount, ours.tau, ours.num_critics)
    assert (theirs["actor_learning_rate"], theirs["critic_learning_rate"]) == (ours.actor_lr, ours.critic_lr)
    assert theirs["max_q_backup"]
    assert (theirs["alpha_learning_rate"], theirs["alpha_threshold"], theirs["initial_alpha"]) == (0.0, 0.0, 1.0)


def test_the_gap_brings_the_multiplier(peers):
    theirs = peers.peer_settings(peers.SIZES["antmaze"][2], lambda widths: widths)
    assert theirs["alpha_threshold"] == 0.8
    assert theirs["alpha_learning_rate"] == 3e-4
    assert theirs["initial_alpha"] == pytest.approx(np.e)


@pytest.mark.parametrize(("size", "samples", "best"), [("laptop", 4, True), ("laptop-listing", 4, False)])
def test_the_laptop_has_fewer_actions(peers, size, samples, best):
    theirs = peers.peer_settings(peers.SIZES[size][2], lambda widths: widths)
    assert (theirs["n_action_samples"], theirs["max_q_backup"]) == (samples, best)


def test_every_setting_is_a_field_of_ours(peers):
    fields = {field.name for field in dataclasses.fields(CalQL)}
    assert all(set(settings) <= fields for _, _, settings in peers.SIZES.values())


def test_both_sides_learn_from_the_same_episodes(peers):
    first, second = peers.episodes("laptop"), peers.episodes("laptop")
    assert first["observations"].shape == (100, 100, 4)
    assert first["actions"].shape == (100, 100, 2)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_the_return_of_an_episode_is_discounted_to_its_end(peers):
    returns = peers.returns_of(np.full((2, 3), -1.0, np.float32), 0.5)
    np.testing.assert_allclose(returns, [[-1.75, -1.5, -1.0]] * 2)


def test_summary_of_blocks(peers):
    def block(wall, cpu, memory):
        return {"wall_s": wall, "cpu_s": cpu, "memory_mb": memory, "count": 10}

    result = peers.summary(
        {
            "ours_whole": [block(1.0, 1.0, 300.0), block(2.0, 1.0, 310.0)],
            "d3rlpy_whole": [block(5.0, 4.0, 200.0)],
            "d3rlpy_update": [block(4.0, 2.0, 220.0), block(8.0, 6.0, 210.0), block(9.0, 3.0, 210.0)],
        }
    )
    assert result["updates_per_s"] == {"ours_whole": 10.0, "d3rlpy_whole": 2.0, "d3rlpy_update": 2.5}
    assert (result["ratio"], result["ratio_with_sampling"], result["ratio_cpu_time"]) == pytest.approx((4.0, 5.0, 3.0))
    assert result["memory_mb"] == {"ours": 310.0, "d3rlpy": 220.0}


def test_a_worker_answers_requests(peers, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr("sys.stdin", io.StringIO("whole 3\nwhole 5\n"))
    peers.serve(peers.Worker({"whole": taken.append}, {"calql": "0"}, 1.5))
    answers = [json.loads(line.removeprefix("@")) for line in capsys.readouterr().out.splitlines()]
    assert taken == [3, 5]
    assert answers[0] == {"kinds": ["whole"], "versions": {"calql": "0"}, "compile_s": 1.5}
    assert all(set(answer) == {"wall_s", "cpu_s", "memory_mb"} for answer in answers[1:])


def test_the_table(peers, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    rates = {"ours_whole": 8.0, "d3rlpy_whole": 3.0, "d3rlpy_update": 4.0}
    row = {"size": "laptop", "updates_per_s": rates, "memory_mb": {"ours": 700.0, "d3rlpy": 600.0}}
    peers.show([row | {"ratio": 2.0, "ratio_cpu_time": 2.1}], 1)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("laptop", "2.00", "2.10", "700", "600"))
