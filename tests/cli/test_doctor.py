"""`calql doctor`: what it says and what it returns, on a fit machine and on broken ones."""

import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest

from calql.cli import doctor as module


def rows(check) -> dict[str, module.Row]:
    return {row.what: row for row in check()}


def test_a_fit_machine_is_reported_and_returns_zero(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert module.doctor() == 0
    printed = capsys.readouterr().out
    for what in (
        "Python",
        "calql",
        "jaxlib",
        "minari",
        "JAX devices",
        "rendering",
        "data sets",
        "disk for data",
        "disk for runs",
    ):
        assert what in printed
    assert "broken" not in printed


def without(monkeypatch, *absent: str, **instead: str) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in absent:
            raise metadata.PackageNotFoundError(name)
        return instead.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)


def test_a_missing_requirement_is_broken_and_returns_one(monkeypatch, capsys):
    without(monkeypatch, "optax")
    monkeypatch.delitem(module.CHECKS, "rendering")
    row = rows(module._packages)["optax"]
    assert row.status == "broken"
    assert "pip install 'optax>=" in row.fix
    assert module.doctor() == 1
    assert "broken" in capsys.readouterr().out


def test_a_missing_extra_is_an_option(monkeypatch):
    without(monkeypatch, "imageio")
    found = rows(module._packages)
    assert (found["imageio"].status, found["imageio"].found) == ("", "absent (for video)")
    assert "imageio[ffmpeg]>=" in found["imageio"].fix


def test_what_an_extra_of_an_extra_asks_for_is_reported(monkeypatch):
    """Without imageio-ffmpeg, imageio is there and writes no video."""
    without(monkeypatch, "imageio-ffmpeg")
    row = rows(module._packages)["imageio-ffmpeg"]
    assert (row.status, row.found) == ("", "absent (for video)")


def test_every_extra_of_the_metadata_is_reported(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ['a>=1; extra == "new-extra"', "b>=2; extra == 'paper'"])
    without(monkeypatch, "a", "b")
    assert {row.what: row.found for row in module._packages() if row.what in "ab"} == {
        "a": "absent (for new-extra)",
        "b": "absent (for paper)",
    }


def test_the_extras_are_summed_up(monkeypatch, tmp_path):
    needs = ['a>=1; extra == "one"', 'b>=2; extra == "one"', 'c>=1; extra == "slurm"', 'd>=1; extra == "two"', "e>=1"]
    monkeypatch.setattr(metadata, "requires", lambda name: needs if name == "calql" else [])
    without(monkeypatch, "b", "c", a="1.0", d="1.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = rows(module._extras)
    assert found["extras"].found == "two; not installed: one, slurm"
    assert "SLURM" not in found
    (tmp_path / "sbatch").write_text("")
    (tmp_path / "sbatch").chmod(0o755)
    row = rows(module._extras)["SLURM"]
    assert (row.status, row.found) == ("warn", "sbatch on the PATH")
    assert "--engine slurm" in row.fix


@pytest.mark.parametrize("pip", [True, False])
def test_the_fix_installs_into_this_environment_what_can_be_had(monkeypatch, pip):
    without(monkeypatch, "imageio")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: pip or None)
    command = shlex.split(rows(module._packages)["imageio"].fix)
    python = command[0 if pip else 4]
    assert Path(python).absolute() == Path(sys.executable)
    assert pip or command[0] == "uv"
    assert not [word for word in command if word.startswith("calql")]  # which is in no registry


def test_a_version_that_is_too_old_is_a_warning(monkeypatch):
    without(monkeypatch, mujoco="3.1.6")
    row = rows(module._packages)["mujoco"]
    assert row.status == "warn"
    assert "'mujoco>=3.2'" in row.fix


def test_a_source_tree_that_is_not_installed_is_broken(monkeypatch, capsys):
    without(monkeypatch, "calql")
    monkeypatch.delitem(module.CHECKS, "rendering")
    assert module.doctor() == 1
    assert "install" in capsys.readouterr().out


def test_the_brackets_of_an_extra_survive_printing(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    without(monkeypatch, "imageio")
    monkeypatch.delitem(module.CHECKS, "rendering")
    assert module.doctor() == 0
    assert "install 'imageio[ffmpeg]" in capsys.readouterr().out


def test_a_crash_of_the_gl_driver_is_survived(monkeypatch):
    monkeypatch.setattr(module, "RENDER", "import os; os.abort()")
    row = rows(module._gl)["rendering"]
    assert row.status == "warn"
    assert "crashed" in row.found
    assert "apt install" in row.fix


def test_an_error_while_drawing_is_named(monkeypatch):
    monkeypatch.setattr(module, "RENDER", "raise RuntimeError('no EGL here')")
    assert "no EGL here" in rows(module._gl)["rendering"].found


def test_an_unusable_backend_is_broken_and_ends_nothing(monkeypatch, capsys):
    def devices() -> None:
        raise RuntimeError("no TPU")

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("jax.devices", devices)
    monkeypatch.delitem(module.CHECKS, "rendering")
    assert module.doctor() == 1
    printed = capsys.readouterr().out
    assert "no TPU" in printed
    assert "disk for runs" in printed


def test_a_gpu_is_asked_for_where_there_is_none(monkeypatch):
    def devices() -> None:
        raise AssertionError

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr("jax.devices", devices)
    row = rows(module._accelerator)["JAX devices"]
    assert row.status == "broken"
    assert "JAX_PLATFORMS=cuda: AssertionError" in row.found
    assert row.fix == "unset JAX_PLATFORMS, or install JAX for cuda"


@pytest.mark.parametrize(("platforms", "fix"), [("", "jax[cuda12]"), ("cpu", "unset JAX_PLATFORMS")])
def test_an_idle_gpu_is_a_warning(monkeypatch, platforms, fix):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(module, "visible_gpus", lambda: ["GPU 0: NVIDIA H100 (UUID: GPU-1)"])
    found = rows(module._accelerator)
    assert found["JAX devices"].status == found["GPU"].status == "warn"
    assert fix in found["JAX devices"].fix
    assert found["GPU"].found == "GPU 0: NVIDIA H100, not used"


@pytest.mark.parametrize(("gpu", "runs"), [(True, "one on the GPU"), (False, "one per core")])
def test_how_many_runs_go_at_a_time(monkeypatch, gpu, runs):
    monkeypatch.setattr(module, "has_accelerator", lambda: gpu)
    assert runs in rows(module._accelerator)["parallel runs"].found


@pytest.mark.parametrize("exists", [True, False])
def test_the_data_folder_is_counted_and_not_made(exists, monkeypatch, tmp_path):
    folder = tmp_path / "a" / "b"
    if exists:
        for name in ("one-v0", "two-v0"):
            (folder / name / "data").mkdir(parents=True)
            (folder / name / "data" / "metadata.json").write_text("{}")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    row = rows(module._data)["data sets"]
    assert row.status == "ok"
    assert folder.exists() is exists
    assert ("2 sets" if exists else "will be created") in row.found


def test_a_data_folder_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    Path(tmp_path / "file").write_text("")
    assert rows(module._data)["data sets"].status == "warn"


def test_a_full_disk_is_a_warning(monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e8}))
    assert rows(module._data)["disk for data"].status == rows(module._runs)["disk for runs"].status == "warn"
