"""Noise that does not depend on keys."""

import fixed
import jax
import pytest


@pytest.fixture
def fixed_noise(monkeypatch):
    """Replace JAX's normal and uniform draws by fixed tables. Only for code that is not traced: jit keeps its draws."""
    monkeypatch.setattr(jax.random, "normal", fixed.normal)
    monkeypatch.setattr(jax.random, "uniform", fixed.uniform)
