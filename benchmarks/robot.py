"""A rehearsal on a robot of which there is one: an actor moves it, a learner learns, and both are killed at random.

    python -m benchmarks.robot [--minutes 10] [--kills 50] [--utd 10] [--real-time]

The robot (the arm of examples/arm.py) has one port, and refuses to be opened while another process has it. The learner
(`calql train --episodes-from`) and the actor (`python -m calql.export.actor`) run side by side; at random moments one
of them gets SIGKILL and is started again, the learner with --resume. When the learner has finished, the files of the
episodes are compared with those that it took. Prints a line per kill, and writes to results/robot.json how well the
rate was held (the robot itself measures the times between its steps), and how many episodes were lost or doubled.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import fcntl
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import calql
from calql import Task
from calql.export.pace import TOLERANCE
from calql.machine import cores, cpu_model, provenance
from examples.arm import Arm, make, record

ROOT, SOURCE = Path(__file__).resolve().parents[1], Path(calql.__file__).resolve().parents[1]
PORT, PERIODS = Path("port"), Path("periods.f64")
"""The robot's port, and the seconds between steps as it saw them (float64), in the current folder."""
RUN, EPISODES, DATA = "run", "episodes", "log.csv"
PATIENCE = 300.0
"""Seconds without progress after which the rehearsal is given up."""


class Robot(Arm):
    """The arm behind its only port. Raises OSError if another process has it."""

    def __init__(self) -> None:
        self.port = PORT.open("w")
        try:
            fcntl.flock(self.port, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.port.close()
            raise OSError("the robot's port is in use") from None
        self.last, self.periods = None, []

    def reset(self, **options: Any) -> tuple[Any, dict]:
        self._note()
        return super().reset(**options)

    def step(self, action: np.ndarray) -> tuple:
        now = time.perf_counter()
        if self.last is not None:
            self.periods.append(now - self.last)
        self.last = now
        return super().step(action)

    def close(self) -> None:
        self._note()
        self.port.close()

    def _note(self) -> None:
        with PERIODS.open("ab") as file:
            np.array(self.periods).tofile(file)
        self.last, self.periods = None, []


def task() -> Task:
    """The task of the arm with this robot."""
    return dataclasses.replace(make(), id="robot", env="benchmarks.robot:Robot")


class Rehearsal:
    """A learner and an actor in a folder."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder, self.args, self.steps = folder, args, args.steps
        self.processes: dict[str, subprocess.Popen] = {}
        self.starts = {"learner": 0, "actor": 0}
        self.began = time.monotonic()
        record(folder / DATA, args.demonstrations)

    def start(self, name: str) -> None:
        """Start the learner or the actor; its output goes to learner.log or actor.log."""
        args = self.args
        settings = [f"offline_steps={args.offline_steps}", f"online_steps={self.steps}", f"utd={args.utd}",
                    "checkpoint_every=200", "log_every=200", "eval_every_online=500"]  # fmt: skip
        command = {
            "learner": ["calql", "train", "--resume", "--task", "benchmarks.robot:task", "--data", f"csv:{DATA}",
                        "--episodes-from", EPISODES, "--out", RUN, "--set", *settings],
            "actor": ["calql.export.actor", f"{RUN}/policy.npz", "--rate", str(args.rate), "--out", EPISODES,
                      "--name", "robot", *(["--real-time"] if args.real_time else [])],
        }[name]  # fmt: skip
        path = os.pathsep.join(filter(None, (str(ROOT), str(SOURCE), os.environ.get("PYTHONPATH"))))
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=self.folder, env=os.environ | {"PYTHONPATH": path},
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.starts[name] += 1

    def look(self) -> None:
        """Extend a learner that has finished while there are kills to come. Raises RuntimeError if one has failed."""
        for name, process in self.processes.items():
            if (code := process.poll()) is None:
                continue
            if name == "actor" or code:
                last = (self.folder / f"{name}.log").read_text().strip().splitlines()[-3:]
                raise RuntimeError(f"the {name} ended with exit code {code}: {' / '.join(last)}")
            self.steps += max(self.args.steps // 4, 1)
            self.start(name)

    def kill(self, name: str) -> None:
        """SIGKILL, and start again."""
        self.processes[name].kill()
        self.processes[name].wait()
        self.start(name)

    def stop(self) -> None:
        """End both."""
        for process in self.processes.values():
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def files(self) -> list[str]:
        """Names of the episodes that were dropped, in order."""
        return sorted(path.name for path in (self.folder / EPISODES).glob("*.npz"))

    def taken(self) -> list[str]:
        """Names of the episodes that the learner took, in order; as far as its file is written."""
        path = self.folder / RUN / "episodes.csv"
        if not path.exists():
            return []
        with path.open() as file:
            return [row["file"] for row in csv.DictReader(file) if row["file"]]

    def say(self, what: str) -> None:
        """A line on how it goes."""
        counts = f"{len(self.files())} episodes dropped, {len(self.taken())} taken"
        print(f"{time.monotonic() - self.began:7.1f} s   {what:24s}{counts}", flush=True)

    def wait_for(self, what: str, is_there: Any) -> None:
        """Wait, as long as there are new files. Raises RuntimeError if nothing happens any more."""
        seen, since = -1, time.monotonic()
        while not is_there():
            if (now := len(self.files())) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise RuntimeError(f"gave up waiting for {what}")
            if what != "the end of the learner":
                self.look()
            time.sleep(0.05)

    def run(self) -> dict[str, Any]:
        """The whole rehearsal; returns what came of it."""
        chance = random.Random(self.args.seed)
        try:
            self.start("learner")
            self.wait_for("the first policy", (self.folder / RUN / "policy.npz").exists)
            self.say("the policy is there")
            self.start("actor")
            self.wait_for("the first episode", self.files)
            victims = [("learner", "actor")[number % 2] for number in range(self.args.kills)]
            chance.shuffle(victims)
            moments = sorted(chance.uniform(0.0, 60.0 * self.args.minutes) for _ in victims)
            start = time.monotonic()
            for number, (name, moment) in enumerate(zip(victims, moments, strict=True), 1):
                while (left := start + moment - time.monotonic()) > 0:
                    self.look()
                    time.sleep(min(left, 0.2))
                self.kill(name)
                self.say(f"kill {number}: {name}")
            self.wait_for("the end of the learner", lambda: self.processes["learner"].poll() is not None)
            code = self.processes["learner"].returncode
            self.say(f"the learner ended ({code})")
        finally:
            self.stop()
        return {"learner_exit_code": code, **self.result()}

    def result(self) -> dict[str, Any]:
        """How well the rate was held, and what became of the episodes."""
        files, taken = self.files(), self.taken()
        periods = np.fromfile(self.folder / PERIODS)
        period = 1.0 / self.args.rate
        median, p99, largest = 1e3 * np.percentile(abs(periods - period), (50, 99, 100))
        return {
            "error_ms": {"median": round(median, 3), "p99": round(p99, 3), "max": round(largest, 3)},
            "steps_measured": len(periods),
            "late_steps": int((periods > (1.0 + TOLERANCE) * period).sum()),
            "episodes_collected": len(files),
            "episodes_taken": len(taken),
            "episodes_lost": len([name for name in files if name < max(taken) and name not in set(taken)]),
            "episodes_doubled": len(taken) - len(set(taken)),
            "episodes_unknown": len(set(taken) - set(files)),
            "in_order": taken == sorted(taken),
            "kills": {name: self.args.kills // 2 + (name == "learner") * (self.args.kills % 2) for name in self.starts},
            "starts": self.starts,
            "online_steps": self.steps,
            "seconds": round(time.monotonic() - self.began, 1),
        }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="time over which the kills are spread")
    parser.add_argument("--kills", type=int, default=50, help="number of kills, half of them of the learner")
    parser.add_argument("--steps", type=int, help="online steps; extended while there are kills to come")
    parser.add_argument("--rate", type=float, default=50.0, help="steps per second")
    parser.add_argument("--utd", type=int, default=10, help="gradient steps per step: how busy the learner is")
    parser.add_argument("--offline-steps", type=int, default=2_000, help="gradient steps of pre-training")
    parser.add_argument("--demonstrations", type=int, default=60, help="episodes of the log")
    parser.add_argument("--real-time", action="store_true", help="real-time scheduling of the actor, if permitted")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and of who is killed")
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary folder")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "robot.json")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that its processes end, too
    args.steps = args.steps or round(30.0 * args.minutes * args.rate)
    typed = sys.argv[1:] if arguments is None else arguments
    about = provenance() | {"command": shlex.join(["python", "-m", "benchmarks.robot", *typed])}
    about |= {"cpu": cpu_model(), "cores": len(cores()), "load": os.getloadavg()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = Rehearsal(folder.resolve(), args).run()
    settings = {name: getattr(args, name) for name in ("rate", "utd", "offline_steps", "real_time", "seed", "minutes")}
    made = about | {"settings": settings, **result, "load_after": os.getloadavg()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(made, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    sound = ("episodes_lost", "episodes_doubled", "episodes_unknown", "learner_exit_code")
    return int(any(result[name] for name in sound) or not result["in_order"])


if __name__ == "__main__":
    sys.exit(main())
