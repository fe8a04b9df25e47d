"""Episodes that another process collects: taken once each, in order, whatever is interrupted."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
import tiny

from calql.data.readers.npz import save_npz
from calql.export import load as load_policy
from calql.training.export import export_run
from calql.training.run import events, train
from calql.types import InputError, RunError

OPTIONS = dict(eval_from="training", online_steps=24)


def drop(folder, count, first=0, **changes):
    """Files of the slope's episodes, as an actor writes them."""
    folder.mkdir(exist_ok=True)
    for number in range(first, first + count):
        rng, env = np.random.default_rng(number), tiny.Slope()
        seen, actions, rewards, over, won = [env.reset(seed=number)[0]], [], [], [], []
        while not over or not (over[-1] or len(over) == tiny.HORIZON):
            actions.append(rng.uniform(-1, 1, 1).astype(np.float32))
            observation, reward, terminated, _, info = env.step(actions[-1])
            seen.append(observation)
            rewards.append(reward)
            over.append(terminated)
            won.append(info["success"])
        ends = np.arange(1, len(over) + 1) == len(over)
        arrays = dict(
            observations=np.stack(seen[:-1]), next_observations=np.stack(seen[1:]), actions=np.stack(actions),
            rewards=np.array(rewards), terminals=np.array(over), timeouts=ends & ~np.array(over),
            successes=np.array(won),
        )  # fmt: skip
        np.savez(folder / f"arm-{number:03}.npz", **arrays | changes)


def rows(run, name):
    with (run / name).open() as file:
        return [{k: v for k, v in row.items() if k != "wall_s"} for row in csv.DictReader(file)]


def run_of(**options):
    return tiny.made(**dict(eval_from="training", online_steps=24) | options)


def test_every_file_is_taken_once_and_in_order(tmp_path):
    drop(tmp_path / "inbox", 20)
    train(run_of(eval_every_online=3), tmp_path / "run", tiny.DATA, episodes_from=tmp_path / "inbox")
    taken = rows(tmp_path / "run", "episodes.csv")
    assert [row["file"] for row in taken] == [f"arm-{i:03}.npz" for i in range(len(taken))]
    ends = [int(row["env_step"]) for row in taken]
    assert ends[-1] >= 24 > ends[-2]
    assert ends == np.cumsum([int(row["length"]) for row in taken]).tolist()
    first, *later = [row for row in rows(tmp_path / "run", "eval.csv") if row["phase"] == "online"]
    assert (first["score_mean"], first["episodes"]) == ("", "0")
    counted = 0
    for row in later:  # every episode counts in the first evaluation after it was collected, and in no other
        own = taken[counted : counted + int(row["episodes"])]
        counted += len(own)
        assert int(taken[counted - 1]["env_step"]) >= int(row["env_step"])
        scores = [float(r["score"]) for r in own]  # none, if an episode is longer than the time between evaluations
        assert row["score_mean"] == "" if not own else float(row["score_mean"]) == pytest.approx(np.mean(scores))
    assert counted == sum(int(row["episodes"]) for row in later) == len(taken)
    published = load_policy(tmp_path / "run" / "policy.npz")
    assert published.act(np.zeros(2, np.float32)).shape == (1,)
    assert published.contract["provenance"]["step"] > 14


def test_a_run_that_is_left_anywhere_goes_on_as_if_it_had_not_been(tmp_path):
    drop(tmp_path / "inbox", 20)
    train(run_of(), tmp_path / "whole", tiny.DATA, episodes_from=tmp_path / "inbox")
    for count in (3, 7, 12):
        out, over = tmp_path / f"left-{count}", False
        while not over:
            over = True
            for number, _ in enumerate(events(run_of(), out, tiny.DATA, resume=True, episodes_from=tmp_path / "inbox")):
                if number == count and not (out / "DONE").exists():
                    over = False
                    break
        for name in ("eval.csv", "train.csv", "episodes.csv"):
            assert rows(out, name) == rows(tmp_path / "whole", name)


def test_it_waits_for_files_that_come_later(tmp_path):
    run, inbox = events(run_of(), tmp_path / "run", tiny.DATA, episodes_from=tmp_path / "inbox"), tmp_path / "inbox"
    dropped = 0
    for event in run:
        if event.kind == "notice" and "waiting" in event.info["text"]:
            assert (tmp_path / "run" / "policy.npz").exists()
            drop(inbox, 1, first=dropped)
            dropped += 1
    assert dropped == len(rows(tmp_path / "run", "episodes.csv"))


def test_several_episodes_in_a_file_are_taken_one_by_one(tmp_path):
    drop(tmp_path / "parts", 12)
    parts = [dict(np.load(path)) for path in sorted((tmp_path / "parts").iterdir())]
    (tmp_path / "inbox").mkdir()
    np.savez(
        tmp_path / "inbox" / "all.npz", **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )
    train(run_of(), tmp_path / "run", tiny.DATA, episodes_from=tmp_path / "inbox")
    taken = rows(tmp_path / "run", "episodes.csv")
    assert [row["file"] for row in taken] == [f"all.npz#{number}" for number in range(len(taken))]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (dict(observations=np.zeros((99, 3))), "observations"),
        (dict(actions=np.full((1, 1), 3.0)), "actions"),
        (dict(rewards=np.array([np.nan])), "rewards"),
    ],
)
def test_an_episode_that_does_not_fit_stops_the_run_and_loses_nothing(tmp_path, changes, cause):
    inbox = tmp_path / "inbox"
    drop(inbox, 2)
    bad = dict(np.load(inbox / "arm-001.npz"))
    length = len(bad["rewards"])
    for name, value in changes.items():
        bad[name] = np.resize(value, (length, *value.shape[1:]))
    if cause == "observations":
        del bad["next_observations"]
    np.savez(inbox / "arm-001.npz", **bad)
    with pytest.raises(RunError, match=r"arm-001.npz.*move its file away") as told:
        train(run_of(), tmp_path / "run", tiny.DATA, episodes_from=inbox)
    assert cause in str(told.value)
    shutil.move(inbox / "arm-001.npz", tmp_path / "away.npz")
    drop(inbox, 20, first=2)
    train(run_of(), tmp_path / "run", tiny.DATA, resume=True, episodes_from=inbox)
    assert "arm-001.npz" not in {row["file"] for row in rows(tmp_path / "run", "episodes.csv")}


def test_what_would_move_the_machine_is_refused(tmp_path):
    with pytest.raises(InputError, match="eval_from=training"):
        next(events(run_of(eval_from="env"), tmp_path / "run", tiny.DATA, episodes_from=tmp_path / "inbox"))
    with pytest.raises(InputError, match="--eval-workers"):
        next(events(run_of(), tmp_path / "run", tiny.DATA, eval_workers=1))


def test_a_run_that_goes_on_leaves_the_environment_to_the_actor(tmp_path, monkeypatch):
    """A machine is held by the process that moves it; the data were held against it when the run began.

    So what the environment states of rate and names is known then, and an export does not ask it.
    """
    monkeypatch.setattr(tiny.Slope, "metadata", {"render_fps": 5, "action_names": ["push"]})
    drop(tmp_path / "inbox", 20)
    save_npz(tiny.DATA, tmp_path / "data.npz")
    task, how = (
        dataclasses.replace(tiny.TASK, data=f"npz:{tmp_path / 'data.npz'}"),
        {"episodes_from": tmp_path / "inbox"},
    )

    def run(env):
        own = dataclasses.replace(task, env=env)
        return dataclasses.replace(run_of(), task=own, data=dataclasses.replace(run_of().data, uri=task.data))

    def taken():
        raise OSError("the port is in use")

    with pytest.raises(InputError, match="the port is in use"):
        next(events(run(taken), tmp_path / "other", **how))
    for event in events(run(tiny.Slope), tmp_path / "run", **how):
        if event.kind == "episode":
            break
    monkeypatch.setattr(tiny.Slope, "__init__", lambda self: taken())
    assert train(run(tiny.Slope), tmp_path / "run", resume=True, **how)["score_after"] is not None
    export_run(tmp_path / "run", tmp_path / "exported.npz")
    for policy in (tmp_path / "run" / "policy.npz", tmp_path / "exported.npz"):
        contract = load_policy(policy).contract
        assert (contract["rate_hz"], contract["actions"]["names"]) == (5.0, ["push"])


def test_without_evaluations_the_environment_is_only_trained_in(tmp_path, monkeypatch):
    opened = []
    task = dataclasses.replace(tiny.TASK, env=lambda: opened.append(1) or tiny.Slope())
    run = dataclasses.replace(run_of(eval_from="nothing", eval_envs=1), task=task)
    train(run, tmp_path / "run", tiny.DATA)
    assert len(opened) == 2  # to convert the data, and to collect
    assert {row["score_mean"] for row in rows(tmp_path / "run", "eval.csv")} == {""}
    assert rows(tmp_path / "run", "episodes.csv")
