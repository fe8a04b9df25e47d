"""`calql doctor`: what it says and what it returns, on a fit machine and on broken ones."""

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
    for what in ("Python", "calql", "jaxlib", "minari", "JAX devices", "rendering", "data sets", "free disk"):
        assert what in printed
    assert "broken" not in printed


def test_an_old_python_is_broken(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert rows(module._python)["Python"].status == "broken"


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
    assert "pip install 'optax>=" in row.mend
    assert module.doctor() == 1
    assert "broken" in capsys.readouterr().out


def test_a_missing_extra_is_an_option(monkeypatch):
    without(monkeypatch, "wandb", "imageio")
    found = rows(module._packages)
    assert found["wandb"].status == found["imageio"].status == ""
    assert "calql[tracking]" in found["wandb"].mend
    assert "calql[video]" in found["imageio"].mend


def test_a_version_that_is_too_old_is_a_warning(monkeypatch):
    without(monkeypatch, mujoco="3.1.6")
    row = rows(module._packages)["mujoco"]
    assert row.status == "warn"
    assert "'mujoco>=3.2'" in row.mend


def test_a_source_tree_that_is_not_installed_is_broken(monkeypatch, capsys):
    without(monkeypatch, "calql")
    monkeypatch.delitem(module.CHECKS, "rendering")
    assert module.doctor() == 1
    assert "install" in capsys.readouterr().out


def test_the_brackets_of_an_extra_survive_printing(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    without(monkeypatch, "wandb")
    monkeypatch.delitem(module.CHECKS, "rendering")
    assert module.doctor() == 0
    assert "pip install 'calql[tracking]'" in capsys.readouterr().out


def test_a_crash_of_the_gl_driver_is_survived(monkeypatch):
    monkeypatch.setattr(module, "RENDER", "import os; os.abort()")
    row = rows(module._gl)["rendering"]
    assert row.status == "warn"
    assert "crashed" in row.found
    assert "apt install" in row.mend


def test_an_error_while_drawing_is_named(monkeypatch):
    monkeypatch.setattr(module, "RENDER", "raise RuntimeError('no EGL here')")
    assert "no EGL here" in rows(module._gl)["rendering"].found


def test_an_unusable_backend_is_broken_and_ends_nothing(monkeypatch, capsys):
    def devices() -> None:
        raise RuntimeError("no TPU")

    monkeypatch.setattr("jax.devices", devices)
    monkeypatch.delitem(module.CHECKS, "rendering")
    assert module.doctor() == 1
    printed = capsys.readouterr().out
    assert "no TPU" in printed
    assert "free disk" in printed


def test_an_idle_gpu_is_a_warning(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    row = rows(module._accelerator)["JAX devices"]
    assert row.status == "warn"
    assert "cuda" in row.mend


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
    assert ("2 sets" if exists else "will be made") in row.found


def test_a_data_folder_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    Path(tmp_path / "file").write_text("")
    assert rows(module._data)["data sets"].status == "warn"


def test_a_full_disk_is_a_warning(monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e8}))
    assert rows(module._data)["free disk"].status == "warn"
