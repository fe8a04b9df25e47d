"""The process on the robot: whole episodes at a rate, one complete file each, whatever kills it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import arm
import numpy as np
import pytest
from arm import HIGH, LOW, Arm
from exported_arm import saved_run

from calql.data.load import load as read
from calql.export import load
from calql.export.actor import act, only_one
from calql.export.pace import Pace
from calql.export.recorder import Actor
from calql.limits import Limits
from calql.training.export import export_run
from calql.types import InputError, RunError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    for kind in ("states", "images"):
        export_run(saved_run(folder / kind, kind=kind), folder / f"{kind}.npz")
    return folder


def episodes(folder):
    return sorted(path for path in folder.glob("*.npz"))


def actor(policies, out, env=None, horizon=12, **options):
    return Actor(policies / "states.npz", env or Arm(), out, rate=2000, horizon=horizon, **options)


@pytest.mark.parametrize("kind", ["states", "images"])
def test_an_episode_is_a_file_that_the_reader_reads_in_the_environment_s_unit(policies, tmp_path, kind):
    out = tmp_path / "episodes"
    assert act(policies / f"{kind}.npz", out, rate=2000, episodes=2, seed=3, name="a") == 0
    policy = load(policies / f"{kind}.npz")
    assert len(episodes(out)) == 2
    (episode,) = read(f"npz:{episodes(out)[0]}").episodes
    assert episode.length == 12
    assert episode.truncated
    assert not episode.successes.any()
    env = arm.keyed() if kind == "images" else Arm()
    observation, _ = env.reset(seed=3)
    for step in range(12):
        action = policy.act(observation)
        np.testing.assert_allclose(episode.actions[step], action, atol=1e-6)
        observation, reward, *_ = env.step(action)
        assert episode.rewards[step] == pytest.approx(reward, abs=1e-6)
    last = observation["state"] if kind == "images" else observation
    found = episode.observations["state"] if kind == "images" else episode.observations
    np.testing.assert_allclose(found[-1], last, atol=1e-6)
    (report,) = (out / "reports").glob("*.json")
    report = json.loads(report.read_text())
    assert (report["episodes"], report["steps"], report["rate_hz"]) == (2, 24, 2000)
    assert report["period_ms"]["median"] > 0
    assert report["act_ms"]["p99"] > 0


def test_the_task_s_end_is_a_terminal_and_not_a_time_out(policies, tmp_path):
    one = actor(policies, tmp_path, Arm(ends_at=5))
    path, _ = one.episode()
    with np.load(path) as file:
        assert file["terminals"].tolist() == [False] * 4 + [True]
        assert file["timeouts"].tolist() == [False] * 5
        assert file["successes"].tolist() == [False] * 4 + [True]
        assert "interventions" not in file


def test_a_success_ends_the_episode_where_the_task_says_so(policies, tmp_path):
    class Goes(Arm):
        def step(self, action):
            *rest, _ = super().step(action)
            return *rest, {"is_success": self.count == 4}

    path, _ = actor(policies, tmp_path, Goes(), stop_at_success=True).episode()
    with np.load(path) as file:
        assert file["terminals"].tolist() == [False] * 3 + [True]
        assert file["successes"].tolist() == [False] * 3 + [True]


def test_without_a_success_signal_none_is_recorded(policies, tmp_path):
    class Silent(Arm):
        def step(self, action):
            *rest, _ = super().step(action)
            return *rest, {}

    path, _ = actor(policies, tmp_path, Silent()).episode()
    with np.load(path) as file:
        assert "successes" not in file


def test_a_person_s_action_is_recorded_as_what_was_executed(policies, tmp_path):
    path, _ = actor(policies, tmp_path, Arm(taken_over_at=3)).episode()
    with np.load(path) as file:
        assert np.flatnonzero(file["interventions"]).tolist() == [2]
        np.testing.assert_array_equal(file["actions"][2], [1.5, 9.0])


def limited(folder, **limits):
    """An export whose contract states limits."""
    run = saved_run(folder / "run", **{f"limits.{name}": value for name, value in limits.items()})
    export_run(run, folder / "limited.npz")
    return folder / "limited.npz"


def test_the_actor_holds_the_limits_of_the_contract_and_of_the_task_on_the_robot(policies, tmp_path):
    path = limited(tmp_path, low=(-1.0, 4.0), change=0.5, rest=(0.0, 5.0))
    machine = Arm()
    reached = []
    machine.step = lambda action, step=machine.step: reached.append(action.copy()) or step(action)
    one = Actor(path, machine, tmp_path / "out", 2000, 12, noise=3.0, seed=0, limits=Limits(high=(2.0, 5.5)))
    file, _ = one.episode()
    recorded = np.load(file)["actions"]
    np.testing.assert_array_equal(recorded, reached)
    assert (recorded >= [-1.0, 4.0]).all()
    assert (recorded[:, 1] <= 5.5).all()
    moved = abs(np.diff(np.float64([[0.0, 5.0], *recorded]), axis=0))
    assert moved.max() == pytest.approx(0.5, abs=1e-6)
    assert (moved <= 0.5).all()
    path.write_bytes((policies / "states.npz").read_bytes())
    assert "has other actions (limits)" in one.reload()


def test_the_actor_s_hook_is_called_before_every_reset_and_its_failure_is_one_line(policies, tmp_path, monkeypatch):
    (tmp_path / "my_hook.py").write_text(
        "calls = []\n\n\ndef wait(env):\n    calls.append(env)\n    if len(calls) > 2:\n"
        "        raise RuntimeError('stopped by the operator')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RunError, match=r"the episode failed \(RuntimeError: stopped by the operator\)"):
        act(policies / "states.npz", tmp_path / "out", rate=2000, before_episode="my_hook:wait")
    assert len(episodes(tmp_path / "out")) == 2
    with pytest.raises(InputError, match="cannot import 'my_hook:nothing'"):
        act(policies / "states.npz", tmp_path / "out", before_episode="my_hook:nothing")


def test_noise_stays_within_the_bounds(policies, tmp_path):
    path, episode = actor(policies, tmp_path, noise=3.0, seed=0).episode()
    still, _ = actor(policies, tmp_path, seed=0, name="still").episode()
    assert (episode.actions >= LOW).all()
    assert (episode.actions <= HIGH).all()
    assert (episode.actions == HIGH).any()
    assert not np.allclose(np.load(path)["actions"], np.load(still)["actions"])


def test_a_replaced_policy_is_used_from_the_next_episode_on(policies, tmp_path):
    path = tmp_path / "policy.npz"
    path.write_bytes((policies / "states.npz").read_bytes())
    one = Actor(path, Arm(), tmp_path / "out", rate=2000, horizon=3)
    assert one.reload() is None
    assert one.reloads == 0
    before = one.policy.act(np.ones(3))
    export_run(saved_run(tmp_path / "run", "iql"), path)
    assert one.reload() is None
    assert one.reloads == 1
    assert not np.allclose(one.policy.act(np.ones(3)), before)
    kept = one.policy
    path.write_bytes(b"half")
    assert "was not taken" in one.reload()
    path.write_bytes((policies / "images.npz").read_bytes())
    assert "has other observations (arrays)" in one.reload()
    path.unlink()
    assert "there is no file" in one.reload()
    assert one.policy is kept
    one.episode()


def test_what_fails_is_said_in_one_line(policies, tmp_path):
    class Breaks(Arm):
        def step(self, action):
            raise KeyError("cable")

    class Blind(Arm):
        def seen(self):
            return np.full(3, np.nan)

    class Wider(Arm):
        action_space = Arm.action_space.__class__(2 * LOW, 2 * HIGH, dtype=np.float32)

    with pytest.raises(RunError, match=r"the episode failed \(KeyError: 'cable'\)"):
        actor(policies, tmp_path, Breaks()).episode()
    with pytest.raises(RunError, match="the action is not finite"):
        actor(policies, tmp_path, Blind()).episode()
    with pytest.raises(InputError, match="give the environment that the policy was trained in"):
        actor(policies, tmp_path, Wider())
    with pytest.raises(InputError, match="this environment is not the policy's: 'observation' holds state, camera"):
        actor(policies, tmp_path, arm.keyed()).episode()
    assert episodes(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rate=-5), "the rate is -5; give steps per second"),
        (dict(env="arm:nothing"), "cannot import 'arm:nothing'"),
        (dict(env="builtins:dict"), "it must give a gymnasium.Env"),
        (dict(env="math:sqrt"), r"cannot make the environment math:sqrt \(TypeError"),
        (dict(rate=0.0), "the rate is 0.0; give steps per second"),  # and not the policy's own
        (dict(rate=float("nan")), "the rate is nan"),
        (dict(episodes=0), "episodes is 0; it must be at least 1"),
        (dict(horizon=0), "horizon is 0; it must be at least 1"),
        (dict(seed=-1), "seed is -1; it must be at least 0"),
        (dict(noise=-0.1), "noise is -0.1; it must be a finite number, at least 0"),
        (dict(noise=float("nan")), "noise is nan"),
        (dict(noise=float("inf")), "noise is inf"),
        (dict(name="a/b"), "would be a part of file names"),
    ],
)
def test_options_that_cannot_be_used(policies, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        act(policies / "states.npz", tmp_path / "out", **options)


def test_a_file_in_place_of_the_folder(policies, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match=r"out cannot be used .*; choose another --out"):
        act(policies / "states.npz", tmp_path / "out")


def test_one_actor_per_name(policies, tmp_path):
    with only_one(tmp_path, "a"):
        with pytest.raises(InputError, match="an actor named 'a' already writes"):
            act(policies / "states.npz", tmp_path, name="a")
        assert act(policies / "states.npz", tmp_path, rate=2000, episodes=1, name="b") == 0


def test_a_task_may_be_given_in_place_of_an_environment(policies, tmp_path):
    module = tmp_path / "my_arm.py"
    module.write_text(
        "from calql.tasks import Task\nfrom arm import Arm\n\n\n"
        "def task():\n    return Task(id='mine', env=Arm, horizon=5, env_options={'ends_at': 2})\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        assert act(policies / "states.npz", tmp_path, env="my_arm:task", rate=2000, episodes=1) == 0
    finally:
        sys.path.remove(str(tmp_path))
    assert len(np.load(episodes(tmp_path)[0])["rewards"]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="Linux schedules so")
def test_real_time_is_asked_of_the_machine_or_refused(policies, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda *given: asked.append(given))
    act(policies / "states.npz", tmp_path, rate=2000, episodes=1)
    assert asked == []
    act(policies / "states.npz", tmp_path, rate=2000, episodes=1, real_time=True)
    assert [(process, policy & os.SCHED_RR) for process, policy, _ in asked] == [(0, os.SCHED_RR)]

    def refuse(*given):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with pytest.raises(InputError, match=r"no real-time scheduling here .*; leave --real-time out"):
        act(policies / "states.npz", tmp_path, rate=2000, episodes=1, real_time=True)


# -- the clock ---------------------------------------------------------------------------------------------------------


class Clock:
    """A clock for tests; sleeping takes exactly as long as asked."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("calql.export.pace.time", self)

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_steps_keep_their_rate_and_late_ones_are_counted_but_not_made_up_for(monkeypatch):
    clock, pace = Clock(monkeypatch), Pace(50)
    at = []
    for work in (0.004, 0.004, 0.025, 0.004, 0.070, 0.004, 0.004):
        pace.wait()
        at.append(clock.now - 100.0)
        clock.now += work
    # Due every 20 ms; the step after 25 ms of work is 5 ms late and the next one is on time again; after 70 ms, three
    # ticks have passed: the clock begins anew.
    np.testing.assert_allclose(at, [0.0, 0.020, 0.040, 0.065, 0.080, 0.150, 0.170])
    report = pace.report()
    assert (report["steps"], report["late_steps"]) == (7, 2)
    assert report["period_ms"]["max"] == pytest.approx(70)
    assert report["error_ms"]["max"] == pytest.approx(50)
    pace.begin()
    clock.now += 60  # the reset of the next episode
    pace.wait()
    assert pace.report()["period_ms"]["max"] == pytest.approx(70)
    assert pace.late == 2


# -- the process -------------------------------------------------------------------------------------------------------


def start(policy, out, *options):
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    command = [sys.executable, "-m", "calql.export.actor", policy, "--out", out, "--name", "a", *options]
    return subprocess.Popen(
        [*map(str, command)], env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


def test_killed_at_any_time_it_leaves_whole_episodes_only_and_starts_again(policies, tmp_path):
    out, known = tmp_path / "out", {}
    for kill in range(4):
        process = start(policies / "images.npz", out, "--rate", "2000")
        before = len(episodes(out))
        wait_for(lambda: len(episodes(out)) > before, process)  # noqa: B023
        time.sleep(0.004 * kill)  # at different moments of episodes and of writing
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = episodes(out)
        for path in found:
            (episode,) = read(f"npz:{path}").episodes
            assert episode.length == 12
            assert known.setdefault(path, path.read_bytes()) == path.read_bytes()
        assert known.keys() == set(found)
    process = start(policies / "images.npz", out, "--rate", "2000", "--episodes", "1")
    assert process.wait(60) == 0, process.communicate()
    process.communicate()
    assert [path for path in out.rglob(".*") if path.suffix == ".tmp"] == []  # what the killed ones left is gone
    assert len(episodes(out)) == len(known) + 1


def test_what_a_killed_actor_was_writing_is_never_an_episode(policies, tmp_path):
    (tmp_path / ".a-20200101T000000.000000.npz.tmp").write_bytes(b"half")
    (tmp_path / ".b-20200101T000000.000000.npz.tmp").write_bytes(b"another actor's")
    assert episodes(tmp_path) == []
    act(policies / "states.npz", tmp_path, rate=2000, episodes=1, name="a")
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [".b-20200101T000000.000000.npz.tmp"]
    assert len(episodes(tmp_path)) == 1


def test_sigterm_closes_the_environment_and_no_half_episode_is_written(policies, tmp_path, monkeypatch):
    (tmp_path / "closing.py").write_text(
        "from arm import Arm\n\n\nclass Closing(Arm):\n    def close(self):\n        open('closed', 'w').close()\n"
    )
    monkeypatch.chdir(tmp_path)
    slow = ("--rate", "50", "--env", "closing:Closing", "--horizon", "20")
    process = start(policies / "states.npz", tmp_path / "out", *slow)
    wait_for(lambda: len(episodes(tmp_path / "out")) == 1, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM, process.communicate()
    process.communicate()
    assert (tmp_path / "closed").exists()
    assert len(episodes(tmp_path / "out")) == 1


def test_the_process_says_in_one_line_what_it_cannot_use(tmp_path):
    process = start(tmp_path / "gone.npz", tmp_path / "out")
    said = process.communicate()
    assert process.returncode == 2
    assert said[1].strip() == f"calql: there is no file {tmp_path}/gone.npz; write it with calql export"
