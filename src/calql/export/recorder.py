"""Whole episodes of an environment with an exported policy, at a fixed rate, each written as one file."""

from __future__ import annotations

import gc
import json
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from calql.data.arrays import named_leaves
from calql.envs.executed import executing
from calql.envs.rollout import Step, ending_at_success, roll
from calql.envs.wrappers import success_of
from calql.export.act import inputs_of
from calql.export.contract import limits_of, refuse_other
from calql.export.pace import KEPT, Pace, percentiles
from calql.export.policy import load
from calql.files import replacing
from calql.limits import Limits
from calql.types import Episode, InputError, PyTree, RunError, map_leaves


class Paced(gymnasium.Wrapper):
    """Executes actions at the ticks of a clock."""

    def __init__(self, env: gymnasium.Env, pace: Pace) -> None:
        super().__init__(env)
        self.pace = pace

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Wait for the tick, then take the step; `info["success"]` is there whatever the environment calls it."""
        self.pace.wait()
        observation, reward, terminated, truncated, info = self.env.step(action.astype(self.env.action_space.dtype))
        return observation, reward, bool(terminated), bool(truncated), {**info, "success": success_of(info)}


class Actor:
    """An environment, a policy file and the folder that episodes go to."""

    def __init__(
        self,
        policy: Path,
        env: gymnasium.Env,
        out: Path,
        rate: float,
        horizon: int,
        *,
        stop_at_success: bool = False,
        noise: float = 0.0,
        seed: int | None = None,
        name: str = "actor",
        limits: Limits | None = None,
        before_episode: str | None = None,
    ) -> None:
        """`limits`: further ones than those of the policy's contract, both of which are held."""
        self.path, self.out, self.horizon, self.stop_at_success = policy, out, horizon, stop_at_success
        self.noise, self.name = noise, name
        self._seed, self._random = seed, np.random.default_rng(seed)
        self._read, self.policy = _identity(policy), load(policy)
        self.low, self.high = (np.asarray(self.policy.contract["actions"][k], np.float32) for k in ("low", "high"))
        self.pace = Pace(rate)
        _refuse_other_actions(env, self.low, self.high)
        held = limits_of(self.policy.contract).tightened(limits or Limits())
        self.env = Paced(executing(env, held, before_episode), self.pace)
        self.episodes = self.reloads = 0
        self._acting: deque[float] = deque(maxlen=KEPT)
        self._started = _now()

    def reload(self) -> str | None:
        """Use the policy file's content if it was replaced; returns why that could not be done (the old one stays)."""
        try:
            found = _identity(self.path)
            if found == self._read:
                return None
            policy = load(self.path)
            refuse_other(self.policy.contract, policy.contract)
        except (InputError, OSError) as error:
            return f"{self.path} was not taken: {error}"
        self._read, self.policy = found, policy
        self.reloads += 1
        return None

    def episode(self) -> tuple[Path, Episode]:
        """One whole episode, and the file that holds it.

        Raises InputError if the environment gives other observations than the policy takes, and RunError if the
        environment fails, an action is not finite, or the file cannot be written.
        """
        try:
            episode = self._roll()
        except (InputError, RunError):
            raise
        except Exception as error:
            raise RunError(f"the episode failed ({type(error).__name__}: {error}); start again") from error
        path = self.out / f"{self.name}-{_now()}.npz"
        self._write(path, episode)
        self.episodes += 1
        return path, episode

    def _roll(self) -> Episode:
        observation, _ = self.env.reset(seed=self._seed)
        self._seed = None  # later resets go on from the first
        try:
            inputs_of(self.policy.contract, observation)
        except ValueError as error:
            raise InputError(f"this environment is not the policy's: {error}") from error
        gc.collect()
        gc.disable()  # a pause in the middle of an episode would be a late step
        self.pace.begin()
        try:
            episode = roll(self.env, observation, self._act, self.horizon, self._over)
        finally:
            gc.enable()
        return ending_at_success(episode) if self.stop_at_success else episode

    def _act(self, observation: PyTree, previous: Step | None) -> np.ndarray:
        start = time.perf_counter()
        action = self.policy.act(observation)
        if self.noise:
            action = action + self._random.normal(0.0, self.noise, action.shape) * 0.5 * (self.high - self.low)
        self._acting.append(time.perf_counter() - start)
        return np.clip(action, self.low, self.high).astype(np.float32)

    def _over(self, step: Step) -> bool:
        return step.terminated or step.truncated or (self.stop_at_success and bool(step.success))

    def _write(self, path: Path, episode: Episode) -> None:
        last = np.arange(1, episode.length + 1) == episode.length
        arrays = {
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminals": episode.terminations,
            "timeouts": last & episode.truncated,
        }
        states = map_leaves(lambda x: x if x.dtype == np.uint8 else np.asarray(x, np.float32), episode.observations)
        arrays.update(named_leaves("observations", map_leaves(lambda x: x[:-1], states)))
        arrays.update(named_leaves("next_observations", map_leaves(lambda x: x[1:], states)))
        told = {"successes": episode.successes, "interventions": episode.interventions}
        arrays.update({name: flags for name, flags in told.items() if flags is not None})
        with replacing(path) as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType] (no array has an option's name)

    def report(self) -> dict[str, Any]:
        """What this process has done and how well it kept its rate, over the last 100,000 steps."""
        return {
            "policy": str(self.path),
            "policy_step": self.policy.contract["provenance"].get("step"),
            "reloads": self.reloads,
            "episodes": self.episodes,
            **self.pace.report(),
            "act_ms": percentiles(np.array(self._acting)),
        }

    def write_report(self) -> Path:
        """Replace this process's file in `reports/`."""
        path = self.out / "reports" / f"{self.name}-{self._started}.json"
        with replacing(path) as file:
            file.write(json.dumps(self.report(), indent=2).encode() + b"\n")
        return path


def _identity(path: Path) -> tuple[int, int, int]:
    """Differs after the file was replaced."""
    found = path.stat() if path.exists() else None
    return (found.st_ino, found.st_mtime_ns, found.st_size) if found else (0, 0, 0)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")


def _refuse_other_actions(env: gymnasium.Env, low: np.ndarray, high: np.ndarray) -> None:
    space: Any = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or space.shape != low.shape:
        raise InputError(
            f"the environment takes {space}, and the policy gives {len(low)} numbers; give the policy's own"
        )
    if not (np.allclose(space.low, low) and np.allclose(space.high, high)):
        raise InputError(
            f"the environment's actions are between {space.low} and {space.high}, the policy's between {low} and "
            f"{high}; give the environment that the policy was trained in"
        )
