"""Collects episodes with an exported policy, at a fixed rate, without JAX: the part that runs on the robot.

    python -m calql.export.actor policy.npz --env package.module:factory --rate 50 --out episodes

Every whole episode becomes one file in the folder, in the format of `npz:` (see `calql.data.readers.npz`), with actions
in the environment's own unit; a file is complete when it appears. The policy is read again when its file is replaced.
The process may be killed at any time: the episode in progress is lost, and nothing else.

An environment may tell whose action a step executed: `info["intervention"]` is true where a person acted, and
`info["intervene_action"]` holds what was executed then. Such steps are recorded with that action, and marked in the
array `interventions`. The limits of the policy's contract, and those of the task that is given instead of an
environment, are held directly around the machine (`calql.envs.executed`); what they made of an action is recorded.
"""

from __future__ import annotations

import fcntl
import re
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gymnasium
import numpy as np
import tyro

from calql.export.policy import load
from calql.export.recorder import Actor
from calql.files import temporary_name
from calql.limits import Limits
from calql.machine import before_all_others, program
from calql.tasks import Task, load_attribute
from calql.types import InputError, RunError


@contextmanager
def only_one(out: Path, name: str) -> Iterator[None]:
    """Be the only actor of that name in the folder; removes what a killed one left. Raises InputError if one runs."""
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError(f"the name '{name}' would be a part of file names; use letters, digits, - and _")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / f".{name}.lock").open("a")
    except OSError as error:
        raise InputError(f"{out} cannot be used ({error.strerror}); choose another --out, or grant access") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"an actor named '{name}' already writes to {out}; give this one another --name") from None
        for folder in (out, out / "reports"):
            for left in folder.glob(temporary_name(Path(f"{name}-*")).name):
                left.unlink()
        yield


class Machine(NamedTuple):
    """An environment, and what its task states; the defaults if it has none."""

    env: gymnasium.Env
    limits: Limits
    before_episode: str | None


def make(env: str, options: dict[str, Any]) -> Machine:
    """The environment of `package.module:factory`, or of the task that the factory returns. InputError if it fails."""
    factory = load_attribute(env)
    limits, before_episode = Limits(), None
    try:
        made = factory(**options)
        if isinstance(made, Task):
            limits, before_episode = made.limits, made.before_episode
            made = made.factory()(**made.env_options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot make the environment {env} ({type(error).__name__}: {error}); fix it") from error
    if not isinstance(made, gymnasium.Env):
        raise InputError(f"{env} gives a {type(made).__name__}; it must give a gymnasium.Env, or a calql.Task")
    return Machine(made, limits, before_episode)


def act(
    policy: Annotated[Path, tyro.conf.Positional],
    out: Path,
    env: str | None = None,
    rate: float | None = None,
    episodes: int | None = None,
    horizon: int | None = None,
    noise: float = 0.0,
    seed: int | None = None,
    name: str | None = None,
    before_episode: str | None = None,
    real_time: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Run whole episodes with an exported policy at a fixed rate; each becomes one file in a folder.

    Example: python -m calql.export.actor policy.npz --env my_robot:make --rate 50 --out episodes

    Args:
        policy: A file that calql export wrote; when it is replaced, the next episode uses the new one.
        out: Folder of the episodes; reports on the rate go to its folder reports.
        env: Your environment or task, as package.module:factory; by default the one of the policy's run.
        rate: Steps per second; by default the policy's.
        episodes: Number of episodes; by default until stopped.
        horizon: Maximum number of steps per episode; by default that of the policy's task.
        noise: Standard deviation of Gaussian noise on actions, as a share of half their range.
        seed: Seed of the first reset and of the noise.
        name: Name of this actor in file names; by default this machine's name.
        before_episode: package.module:function, called with the environment before every reset, e.g.
            calql.envs.operator:wait_for_enter; by default that of the environment's or the policy's task.
        real_time: Run before all other programs of this machine, so that they delay no steps (Linux, if permitted).
    """
    contract = load(policy).contract
    task = contract["task"]
    if (spec := env or task["env"]) is None:
        raise InputError("the policy does not name its environment; name it: --env package.module:factory")
    hz = contract["rate_hz"] if rate is None else rate
    if hz is None or not (np.isfinite(hz) and hz > 0):
        told = "not known" if hz is None else hz
        raise InputError(f"the rate is {told}; give steps per second: --rate 50")
    if not 0 <= noise < np.inf:
        raise InputError(f"noise is {noise}; it must be a finite number, at least 0")
    for option, count, least in (("horizon", horizon, 1), ("episodes", episodes, 1), ("seed", seed, 0)):
        if count is not None and count < least:
            raise InputError(f"{option} is {count}; it must be at least {least}")
    name = re.sub(r"[^\w-]+", "-", socket.gethostname()) if name is None else name
    with only_one(out, name):
        machine = make(spec, task["env_options"] if spec == task["env"] else {})
        before = before_episode or machine.before_episode or task.get("before_episode")
        try:
            actor = Actor(
                policy, machine.env, out, hz, horizon or task["horizon"],
                stop_at_success=task["stop_at_success"], noise=noise, seed=seed, name=name,
                limits=machine.limits, before_episode=before,
            )  # fmt: skip
            if real_time:
                before_all_others()
            last = out
            while episodes is None or actor.episodes < episodes:
                if (problem := actor.reload()) is not None:
                    print(f"note {problem}", flush=True)
                last, episode = actor.episode()
                actor.write_report()
                error = actor.pace.report()["error_ms"]
                kept = (
                    "" if error is None else f"   {hz:g} Hz within {error['p99']:.2f} ms (99 %), {actor.pace.late} late"
                )
                print(f"{last}   {episode.length} steps   return {episode.rewards.sum():.2f}{kept}", flush=True)
            command = [*program(), "data", "info", f"npz:{last}", "--task", env or task["id"]]
            print(f"next: {shlex.join(command)}", flush=True)
        finally:
            machine.env.close()
    return 0


def main() -> None:
    """The program. Exit codes as those of `calql`."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    sys.path.insert(0, "")  # so that package.module:factory finds the user's own files
    try:
        code = tyro.cli(act, prog="python -m calql.export.actor")
    except InputError as error:
        print(f"calql: {error}", file=sys.stderr)
        code = 2
    except RunError as error:
        print(f"calql: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
