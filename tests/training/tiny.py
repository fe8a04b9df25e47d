"""A training run of a second or two whose episodes differ in length; as a program, one that can be killed anywhere.

    python tiny.py FOLDER METHOD [MOMENT:N]      start or resume; stand still (and say so) at the N-th such moment

Moments: `step` (inside an environment step), `update`, `write` (arrays half on the disk), `rename`, `prune`.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import gymnasium
import jax
import numpy as np

from calql.data.episodes import Episodes
from calql.rewards import Rewards
from calql.tasks import Task
from calql.training import checkpoint, loop
from calql.training.experiment import Experiment
from calql.training.options import experiment, matching
from calql.training.record import new_record
from calql.training.run_dir import RunDir
from calql.training.state import Training
from calql.types import Episode

HORIZON = 8


class Slope(gymnasium.Env):
    """A point on a line, pushed by the action and by noise; beyond 1 it has arrived, below −1 it has fallen off."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    on_step = staticmethod(lambda: None)
    """Called inside every step of every instance."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.noise = 0.0, float(self.np_random.normal())
        return np.array([self.x, self.noise], np.float32), {}

    def step(self, action):
        self.on_step()
        self.x += 0.4 * float(action[0]) + 0.4 * self.noise
        self.noise = float(self.np_random.normal())
        success = self.x > 1
        observation = np.array([self.x, self.noise], np.float32)
        return observation, float(success), success or self.x < -1, False, {"success": success}


PAYS = Rewards(scale=11.0, bias=-1.0, low=0.0, high=1.0, failing=0.0)
TASK = Task(id="slope", env=Slope, horizon=HORIZON, rewards=PAYS)
SETTINGS = dict(
    offline_steps=14, online_steps=30, utd=2, batch_size=8, eval_every_offline=5, eval_every_online=8, eval_episodes=3,
    log_every=4, checkpoint_every=6, replay_capacity=20, actor_hidden=(6,), critic_hidden=(6,), variant="listing",
    critic_lr=1e-2, actor_lr=1e-2, discount=0.9,
)  # fmt: skip


def data() -> Episodes:
    rng, env, episodes = np.random.default_rng(0), Slope(), []
    for seed in range(6):
        observations, actions, rewards, ended = [env.reset(seed=seed)[0]], [], [], False
        while not ended and len(actions) < HORIZON:
            actions.append(rng.uniform(-1, 1, 1))
            observation, reward, ended, _, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        ends = np.arange(len(rewards)) == len(rewards) - 1
        episodes.append(
            Episode(np.stack(observations), np.float32(actions), np.float32(rewards), ends & ended, not ended)
        )
    return Episodes(tuple(episodes))


DATA = data()


def draw(states: np.ndarray) -> dict[str, np.ndarray]:
    """[..., 2] → a grey image [..., 8, 8, 1] with a bright column where the point is, and the noise [..., 1]."""
    columns = np.clip(np.round(3 * states[..., :1] + 4), 0, 7)
    rows = np.where(columns == np.arange(8), 250, 60).astype(np.uint8)
    return {"image": np.repeat(rows[..., None, :, None], 8, axis=-3), "noise": states[..., 1:]}


class Seen(gymnasium.ObservationWrapper):
    """The slope through a camera."""

    observation_space = gymnasium.spaces.Dict(
        image=gymnasium.spaces.Box(0, 255, (8, 8, 1), np.uint8), noise=gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    )

    def observation(self, observation):
        return draw(observation)


WORLDS = {
    "states": (TASK, DATA),
    "images": (
        dataclasses.replace(TASK, id="seen-slope", env=lambda: Seen(Slope())),
        Episodes(tuple(episode._replace(observations=draw(episode.observations)) for episode in DATA.episodes)),
    ),
}


def made(method: str = "cal-ql", world: str = "states", seed: int = 5, **options) -> Experiment:
    """The record of such a run."""
    return experiment(WORLDS[world][0], method, "smoke", seed, options=fitting(method, SETTINGS) | options)


def fitting(method: str, settings: dict) -> dict:
    """Those of the settings that runs of a method read."""
    row = experiment(TASK, method, "smoke")
    reads = {"variant": "num_random_actions"}  # what a shorthand stands for
    return {name: value for name, value in settings.items() if matching(row, reads.get(name, name))}


def trainer(folder: Path, method: str = "cal-ql", world: str = "states", seed: int = 5, **options) -> Training:
    """A training of a new run in that folder, or of the run that is there (not restored yet)."""
    data, run_dir = WORLDS[world][1], RunDir(folder)
    run = made(method, world, seed, **options)
    if not (folder / "config.json").exists():
        run_dir.create(new_record(run, data, {}))
    return Training(run, data, run_dir)


def outcome(made: Training) -> dict[str, np.ndarray | list]:
    """All that two equal runs must share: rows (but wall-clock time), parameters, optimisers and replay."""
    rows = made.run_dir.read_rows("eval.csv")
    return {
        "done": made.run_dir.done,
        "eval": [{name: cell for name, cell in row.items() if name != "wall_s"} for row in rows],
        "train": (made.run_dir.path / "train.csv").read_text().splitlines(),
        **{f"state{k}": np.asarray(v).tobytes() for k, v in jax.tree_util.tree_leaves_with_path(made.state)},
        **{f"replay{k}": np.asarray(v).tobytes() for k, v in jax.tree_util.tree_leaves_with_path(made.replay)},
    }


def stand_still_at(moment: str, count: int) -> None:
    """Make the N-th such moment last for ever."""
    left = [count]

    def reached() -> None:
        left[0] -= 1
        if left[0] == 0:
            print("still", flush=True)
            time.sleep(600)

    def before(owner, name: str, action=lambda *arguments: None) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments, **options):
            if left[0] == 1:
                action(*arguments)
            reached()
            return original(*arguments, **options)

        setattr(owner, name, wrapped)

    if moment == "step":
        Slope.on_step = staticmethod(reached)
    elif moment == "update":
        before(loop, "train_steps")
    elif moment == "write":
        before(checkpoint, "save_file", lambda arrays, path: path.write_bytes(b"\x10\x00\x00\x00half"))
    elif moment == "rename":
        before(checkpoint.os, "rename")
    elif moment == "prune":
        before(checkpoint, "_prune")


def main() -> None:
    folder, method, *moment = sys.argv[1:]
    resumed = (Path(folder) / "config.json").exists()
    made = trainer(Path(folder), method)
    if resumed:
        made.restore()
    if moment:
        name, count = moment[0].split(":")
        stand_still_at(name, int(count))
    print("ready", flush=True)
    for progress in loop.run(made):
        print(progress.kind, flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main()
