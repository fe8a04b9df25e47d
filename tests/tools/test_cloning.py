"""Behaviour cloning of small policies: what is fitted is what is stored, and what acts."""

import sys
from pathlib import Path

import numpy as np
import pytest

from calql.paper.demonstrators.clone import Clone

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "make_assets"))
from cloning import train_clone  # noqa: E402 - a folder of scripts, not a package


@pytest.fixture(scope="module")
def problem():
    inputs = np.random.default_rng(0).normal(3.0, 2.0, (2_000, 5)).astype(np.float32)
    inputs[:, 4] = 7.0  # says nothing
    return inputs, np.tanh(np.stack([np.sin(inputs[:, 0]), inputs[:, 1] - 3.0], 1))


@pytest.fixture(scope="module")
def clone(problem):
    return train_clone(*problem, hidden=(32, 16), steps=2_500, seed=1, batch_size=128)


def test_fits(problem, clone):
    inputs, actions = problem
    assert np.mean((clone(inputs) - actions) ** 2) < 0.01 < actions.var()
    assert [weight.shape for weight in clone.weights] == [(5, 32), (32, 16), (16, 2)]


def test_acts_on_one_or_many(problem, clone):
    inputs, _ = problem
    assert clone(inputs[0]).shape == (2,)
    assert clone(inputs[:6].reshape(2, 3, 5)).shape == (2, 3, 2)
    assert clone(inputs.astype(np.float64)).dtype == np.float32
    np.testing.assert_allclose(clone(inputs[:4]), [clone(one) for one in inputs[:4]], atol=1e-6)
    assert np.abs(clone(1e6 * inputs)).max() <= 1


def test_stored_and_read_back(problem, clone, tmp_path):
    clone.save(tmp_path / "clone.safetensors")
    read = Clone.load(tmp_path / "clone.safetensors")
    np.testing.assert_array_equal(read(problem[0]), clone(problem[0]))


def test_the_seed_determines_the_clone(problem):
    def made(seed):
        return train_clone(*problem, hidden=(8,), steps=50, seed=seed)(problem[0])

    np.testing.assert_array_equal(made(0), made(0))
    assert not np.array_equal(made(0), made(1))


def test_progress_is_told(problem):
    calls = []
    train_clone(
        *problem, hidden=(8,), steps=1_500, progress=lambda done, steps, loss: calls.append((done, steps, loss))
    )
    assert [call[:2] for call in calls] == [(1_000, 1_500), (1_500, 1_500)]
    assert calls[1][2] < calls[0][2]
