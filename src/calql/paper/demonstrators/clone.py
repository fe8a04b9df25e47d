"""A policy cloned from demonstrations: a small file, evaluated in NumPy alone (`tools/make_assets` trains it)."""

from __future__ import annotations

import dataclasses
from os import PathLike
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Clone:
    """Standardised inputs [..., D] → ReLU layers → tanh → actions [..., A] in [−1, 1], all float32."""

    mean: np.ndarray
    """[D] subtracted from the inputs."""
    scale: np.ndarray
    """[D] divisor of the inputs."""
    weights: tuple[np.ndarray, ...]
    """One [inputs, outputs] matrix per layer."""
    biases: tuple[np.ndarray, ...]
    """One [outputs] vector per layer."""

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """[..., D] → [..., A]."""
        x = (np.asarray(inputs, np.float32) - self.mean) / self.scale
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight + bias, 0.0)
        return np.tanh(x @ self.weights[-1] + self.biases[-1])

    def save(self, path: str | PathLike[str]) -> None:
        """Write one safetensors file."""
        from safetensors.numpy import save

        layers = {f"weight_{i}": weight for i, weight in enumerate(self.weights)}
        layers |= {f"bias_{i}": bias for i, bias in enumerate(self.biases)}
        content = save({"mean": self.mean, "scale": self.scale, **layers})
        Path(path).write_bytes(content)  # not `save_file`, which hides the file from other users

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Clone:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        arrays = load_file(path)
        layers = range((len(arrays) - 2) // 2)
        return cls(
            mean=arrays["mean"],
            scale=arrays["scale"],
            weights=tuple(arrays[f"weight_{i}"] for i in layers),
            biases=tuple(arrays[f"bias_{i}"] for i in layers),
        )
