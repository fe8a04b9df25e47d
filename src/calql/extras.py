"""Packages that calql does without until something needs them, and the one error where such a package is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from calql.types import InputError


class MissingPackage(InputError, ImportError):
    """A package of an extra is not installed: an InputError that is an ImportError, too."""


EXTRAS = {
    "mujoco": ("MuJoCo", "paper"),
    "gymnasium_robotics": ("Gymnasium-Robotics", "paper"),
    "minari": ("Minari", "formats"),
    "h5py": ("h5py", "formats"),
    "pyarrow": ("PyArrow", "formats"),
    "av": ("PyAV", "formats"),
    "matplotlib": ("Matplotlib", "report"),
    "onnx": ("ONNX", "export"),
    "onnxruntime": ("ONNX Runtime", "export"),
    "imageio": ("imageio", "video"),
    "imageio_ffmpeg": ("imageio-ffmpeg", "video"),
    "tensorboardX": ("tensorboardX", "tracking"),
    "wandb": ("wandb", "tracking"),
    "optuna": ("Optuna", "tune"),
    "submitit": ("submitit", "slurm"),
    "ray": ("Ray", "ray"),
}
"""Top-level module → (the package's own name, calql's extra). The core imports none of them before it is used."""


def missing(what: str, error: BaseException) -> MissingPackage | None:
    """The error for `what` (`d4rl:FILE.hdf5`, `a report`) where an import failed for want of an extra; else None."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if module not in EXTRAS:
        return None
    title, extra = EXTRAS[module]
    return MissingPackage(
        f"{what} needs {title}; pip install 'calql[{extra}]' (in a checkout of calql: pip install -e '.[{extra}]')"
    )


def refuse_missing(what: str, extras: str, *modules: str) -> None:
    """Raise MissingPackage, before any work is begun, that names all modules which are not installed, and the extras
    (`paper,report`) that bring them."""
    if absent := [EXTRAS[module][0] for module in modules if not importlib.util.find_spec(module)]:
        raise MissingPackage(
            f"{what} needs {', '.join(absent)}; pip install 'calql[{extras}]' (in a checkout of calql: pip install -e "
            f"'.[{extras}]', or without installing: uvx --from '.[{extras}]' calql demo)"
        )


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Imports inside raise MissingPackage where the package of an extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(what, error) or error from error
