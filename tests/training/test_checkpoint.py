"""Checkpoints: complete or not there, verified before they are believed."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calql.training import checkpoint

TREE = {
    "weights": (jnp.arange(6.0).reshape(2, 3), jnp.float32(0.1)),
    "steps": jnp.int32(7),
    "image": jnp.arange(4, dtype=jnp.uint8),
    "empty": jnp.zeros((0, 3)),
}


def save(folder, step, milestone=False, keep=2, factor=1):
    tree = jax.tree.map(lambda x: x * factor, TREE)
    return checkpoint.save(folder, step, {"state": tree}, {"milestone": milestone, "factor": factor}, keep)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_arrays_come_back_as_they_were(tmp_path):
    path = save(tmp_path, 12)
    like = jax.tree.map(jnp.zeros_like, TREE)
    back = checkpoint.unflatten(like, checkpoint.load(path, "state"))
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, back, TREE)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), back) == jax.tree.map(lambda x: (x.shape, x.dtype), TREE)
    assert checkpoint.load_meta(path)["step"] == 12


def test_strided_arrays_are_stored_by_value(tmp_path):
    tree = {"t": np.arange(6.0).reshape(2, 3).T, "s": np.arange(10)[::2]}
    path = checkpoint.save(tmp_path, 1, {"state": tree}, {})
    jax.tree.map(np.testing.assert_array_equal, checkpoint.unflatten(tree, checkpoint.load(path, "state")), tree)


def test_the_newest_two_are_kept_and_every_milestone(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step, milestone=step in (2, 3))
    assert names(tmp_path) == [f"step-{s:09d}" for s in (2, 3, 5, 6)]
    path, complaints = checkpoint.newest(tmp_path)
    assert (path.name, complaints) == ("step-000000006", [])


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert checkpoint.newest(tmp_path) == checkpoint.newest(tmp_path / "none") == (None, [])


def damage(path, how):
    state, meta = path / "state.safetensors", path / "meta.json"
    content = bytearray(state.read_bytes())
    if how == "truncated":
        state.write_bytes(content[: len(content) // 2])
    elif how == "flipped byte":
        content[-3] ^= 1
        state.write_bytes(content)
    elif how == "missing arrays":
        state.unlink()
    elif how == "missing meta":
        meta.unlink()
    elif how == "truncated meta":
        meta.write_bytes(meta.read_bytes()[:20])
    elif how == "meta without checksums":
        meta.write_text("{}")
    elif how == "meta of another kind":
        meta.write_text("[1]")
    elif how == "meta with bytes that are no text":
        meta.write_bytes(b"\xff\xfe\x00")


DAMAGES = ["truncated", "flipped byte", "missing arrays", "missing meta", "truncated meta", "meta without checksums",
           "meta of another kind", "meta with bytes that are no text"]  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, how):
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    damage(bad, how)
    path, complaints = checkpoint.newest(tmp_path)
    assert path == good
    assert len(complaints) == 1
    assert "step-000000002" in complaints[0]
    again = save(tmp_path, 2, factor=3)  # trained there once more: written anew
    assert checkpoint.newest(tmp_path) == (again, [])
    assert checkpoint.load_meta(again)["factor"] == 3


def test_the_same_arrays_are_not_written_twice(tmp_path):
    path = save(tmp_path, 1)
    before = (path / "state.safetensors").stat().st_ino
    for _ in range(2):
        assert save(tmp_path, 1, milestone=True) == path
        assert checkpoint.load_meta(path)["milestone"]
    assert (path / "state.safetensors").stat().st_ino == before
    assert names(tmp_path) == ["step-000000001"]


def test_a_milestone_stays_what_it_is(tmp_path):
    """Others start from it; what comes after it, before the next gradient step, has a name of its own."""
    first, then = save(tmp_path, 1, milestone=True), save(tmp_path, 1)
    assert [checkpoint.load_meta(path)["milestone"] for path in (first, then)] == [True, False]
    assert checkpoint.newest(tmp_path) == (then, [])
    assert save(tmp_path, 1) == then


def test_what_changed_within_one_step_is_kept_beside_what_was_there(tmp_path):
    """Episodes that were collected before the next gradient step, and then a stop."""
    paths = [save(tmp_path, 1, milestone=True)]
    for factor in (2, 3):
        paths.append(save(tmp_path, 1, factor=factor))
        assert checkpoint.newest(tmp_path) == (paths[-1], [])
    assert [checkpoint.load_meta(path)["factor"] for path in paths] == [1, 2, 3]
    assert names(tmp_path) == ["step-000000001", "step-000000001+001", "step-000000001+002"]
    save(tmp_path, 2)
    save(tmp_path, 3)
    assert names(tmp_path) == ["step-000000001", "step-000000002", "step-000000003"]


@pytest.mark.parametrize("how", ["flipped byte", "missing meta"])
def test_what_was_just_written_is_never_pruned(tmp_path, how):
    """Newer but damaged folders lie in the way of one that is written after falling back."""
    for step in (10, 20):
        damage(save(tmp_path, step), how)
    path = save(tmp_path, 5)
    assert path.exists()
    assert checkpoint.newest(tmp_path)[0] == path


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", ["arrays", "half of the arrays", "meta", "rename", "prune"])
def test_a_crash_while_writing_leaves_the_one_before(tmp_path, monkeypatch, moment):
    for step in (1, 2):
        good = save(tmp_path, step)

    def crash(*arguments, **options):
        if moment == "half of the arrays":
            arguments[1].write_bytes(b"\x10\x00\x00")
        raise Crash

    owner, name = {
        "arrays": (checkpoint, "save_file"),
        "half of the arrays": (checkpoint, "save_file"),
        "meta": (checkpoint.json, "dumps"),
        "rename": (checkpoint.os, "rename"),
        "prune": (checkpoint, "_prune"),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(Crash):
            save(tmp_path, 3)
    path, complaints = checkpoint.newest(tmp_path)
    assert (path.name, complaints) == ("step-000000003" if moment == "prune" else good.name, [])
    save(tmp_path, 3)
    save(tmp_path, 4)
    assert names(tmp_path) == ["step-000000003", "step-000000004"]  # and no litter


def test_meta_is_the_last_file_and_holds_the_checksums_of_all_others(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(checkpoint.files, "sync", lambda path: order.append(path.name))
    path = checkpoint.save(tmp_path, 1, {"state": TREE, "replay": TREE}, {})
    assert order == ["state.safetensors", "replay.safetensors", "meta.json", ".writing-000000001", tmp_path.name]
    assert set(json.loads((path / "meta.json").read_text())["checksums"]) == set(os.listdir(path)) - {"meta.json"}


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from calql.training import checkpoint
from calql.types import RunError
folder = Path(sys.argv[1])
checkpoint.save(folder, 1, {"state": {"x": np.ones(9)}}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    checkpoint.save(folder, 2, {"state": {"x": np.ones(9_000)}}, {"note": "n" * 90_000})
except RunError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [4_000, 80_000])  # the arrays do not fit; their meta does not fit
def test_a_full_disk_is_one_error_and_leaves_the_checkpoint_before(tmp_path, limit):
    command = [sys.executable, "-c", FULL, str(tmp_path), str(limit)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"cannot write {tmp_path}")
    assert len(said.splitlines()) == 1
    assert names(tmp_path) == ["step-000000001"]
