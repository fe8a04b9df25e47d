"""A trot for D4RL's ant in any direction, written by hand and tuned by search: the teacher of the AntMaze data.

Two diagonal pairs of legs swing in turn. Relative to the torso, a leg pushes along the heading by swinging its hip
if it stands across the heading, and by stretching its knee if it stands along it. The step shrinks while the torso
tilts, and the body turns slowly until one of its four equal sides faces the heading.

The 13 numbers of the trot are found by the cross-entropy method on open ground, with the noise of data collection on
the actions and with sharp turns, so that the ant does not fall. To find them again (some minutes of one core):

    python tools/make_assets/ant_gait.py --seed 0
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from calql.paper.demonstrators.ant_clone import Walker
from calql.paper.envs.antmaze import FRAME_SKIP, PHYSICS, AntMaze, Maze

ASSET = Path(__file__).parent / "ant_gait.json"
STEP_SECONDS = FRAME_SKIP * PHYSICS["d4rl"].timestep
"""Time between two decisions of D4RL's ant."""
LEG_AZIMUTH = np.deg2rad([45.0, 135.0, 225.0, 315.0])
"""[4] directions of the legs around the torso, in the order of the observation's joints."""
LEG_PHASE = np.array([0.0, np.pi, 0.0, np.pi])
"""[4] a trot: opposite legs step together."""
KNEE_SIGN = np.array([1.0, -1.0, -1.0, 1.0])
"""[4] the joint angle of an ankle is this times its flexion."""
HIP_LIMIT, KNEE_RANGE = np.deg2rad(30.0), np.deg2rad([30.0, 70.0])
"""Limits of the joints: hips ± 30°, knees 30° to 70° of flexion."""
TO_ACTUATORS = np.array([6, 7, 0, 1, 2, 3, 4, 5])
"""Order of joints: leg 1 … 4 (hip, ankle); order of actuators: leg 4, 1, 2, 3."""

BOUNDS = {
    "frequency": (0.6, 3.5),
    "swing": (0.1, 0.75),
    "stance": (0.55, 1.2),
    "lift": (0.0, 0.6),
    "stretch": (-0.3, 0.3),
    "lead": (-1.5, 1.5),
    "turn": (0.0, 0.5),
    "stiffness": (0.3, 8.0),
    "damping": (0.0, 0.3),
    "turn_gain": (0.0, 3.0),
    "turn_offset": (-0.2, 0.2),
    "tilt": (0.3, 0.95),
    "shortest": (0.0, 0.8),
}
"""Search range of each number of a `Gait`."""


@dataclasses.dataclass(frozen=True)
class Gait:
    """The trot. Angles in rad; actions are shares of the largest torque."""

    frequency: float
    """Steps per leg and second."""
    swing: float
    """Amplitude of the hip of a leg that stands across the heading."""
    stance: float
    """Knee flexion at rest."""
    lift: float
    """Additional knee flexion while the leg swings forward."""
    stretch: float
    """Amplitude of the knee of a leg that stands along the heading."""
    lead: float
    """Phase by which the lift leads the swing."""
    turn: float
    """Largest share of the swing that turns the body."""
    stiffness: float
    """Action per rad of error of a joint."""
    damping: float
    """Action per rad/s of a joint."""
    turn_gain: float
    """Turning, as a share of the largest, per rad between the heading and the nearest side of the body."""
    turn_offset: float
    """Angle between the heading and that side at which the body does not turn."""
    tilt: float
    """Height of the torso's upward axis (1: level) at which the step would vanish."""
    shortest: float
    """Shortest step while tilted, as a share of the full step."""

    def __call__(self, observation: np.ndarray, heading: float, phase: float) -> np.ndarray:
        """[8] action in [−1, 1] for an observation [29], a heading in the world's frame and the phase of the trot."""
        relative = heading - yaw(observation)
        side = (relative - self.turn_offset + np.pi / 4) % (np.pi / 2) - np.pi / 4
        turn = self.turn * np.clip(self.turn_gain * side, -1.0, 1.0)
        size = np.clip((uprightness(observation) - self.tilt) / (1.0 - self.tilt), self.shortest, 1.0)
        across, along = np.sin(relative - LEG_AZIMUTH), np.cos(relative - LEG_AZIMUTH)
        step = np.cos(phase + LEG_PHASE)
        forward = np.maximum(0.0, -np.sin(phase + LEG_PHASE + self.lead))
        hips = size * (self.swing * across + turn) * step
        knees = self.stance - size * (self.lift * forward + self.stretch * along * step)
        target = np.empty(8)
        target[0::2] = np.clip(hips, -HIP_LIMIT, HIP_LIMIT)
        target[1::2] = KNEE_SIGN * np.clip(knees, *KNEE_RANGE)
        torque = self.stiffness * (target - observation[7:15]) - self.damping * observation[21:29]
        return np.clip(torque, -1.0, 1.0)[TO_ACTUATORS]

    def next_phase(self, phase: float) -> float:
        """The phase one decision later."""
        return (phase + 2 * np.pi * self.frequency * STEP_SECONDS) % (2 * np.pi)

    @classmethod
    def load(cls) -> Gait:
        """The tuned gait."""
        return cls(**json.loads(ASSET.read_text()))


def yaw(observation: np.ndarray) -> float:
    """Heading of the torso in rad."""
    w, x, y, z = observation[3:7]
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def uprightness(observation: np.ndarray) -> float:
    """Height of the torso's upward axis: 1 level, 0 on its side, −1 on its back."""
    _, x, y, _ = observation[3:7]
    return 1 - 2 * (x * x + y * y)


# -- open ground -------------------------------------------------------------------------------------------------------


def open_ground() -> AntMaze:
    """D4RL's ant in a maze without walls."""
    return AntMaze(Maze(("SG",), centred=False), PHYSICS["d4rl"])


def trot(gait: Gait, phase: float) -> Walker:
    """A walker that advances the gait's phase, starting from `phase`."""

    def act(observation: np.ndarray, heading: float) -> np.ndarray:
        nonlocal phase
        phase = gait.next_phase(phase)
        return gait(observation, heading, phase)

    return act


def walk(
    env: AntMaze, walker: Walker, rng: np.random.Generator, steps: int, noise: float, turn_every: int = 25
) -> tuple[float, bool]:
    """Speed along the heading in m/s, and whether the ant fell, with a new heading every `turn_every` steps.

    Headings change by 0°, ± 90° or 180°; the walk ends with a fall.
    """
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    heading, way, fell = rng.uniform(-np.pi, np.pi), 0.0, False
    for step in range(steps):
        if step and step % turn_every == 0:
            heading += rng.integers(-1, 3) * np.pi / 2
        before = observation
        observation, *_ = env.step(walker(before, heading) + noise * rng.standard_normal(8))
        way += (observation[:2] - before[:2]) @ (np.cos(heading), np.sin(heading))
        if fell := bool(uprightness(observation) < 0):
            break
    return float(way) / (steps * STEP_SECONDS), fell


# -- the search --------------------------------------------------------------------------------------------------------


def tune(
    seed: int = 0,
    iterations: int = 50,
    population: int = 30,
    elite: int = 6,
    walks: int = 5,
    steps: int = 150,
    noise: float = 0.2,
    enough: float = 1.5,
    progress: Callable[[int, int, float], None] | None = None,
) -> Gait:
    """Cross-entropy search for the gait with the best mean speed, in m/s.

    Speed beyond `enough` does not count and a fall costs 2, less if it comes late: reliable before fast. All
    candidates of an iteration face the same walks and noise. `progress(iteration, iterations, score)` gets the mean
    score of the elite.
    """
    rng, env = np.random.default_rng(seed), open_ground()
    low, high = np.array(list(BOUNDS.values())).T
    mean, deviation = (low + high) / 2, (high - low) / 3

    def score(candidate: np.ndarray, iteration: int) -> float:
        gait, total = Gait(*candidate), 0.0
        for walked in range(walks):
            walk_rng = np.random.default_rng([seed, iteration, walked])
            speed, fell = walk(env, trot(gait, walk_rng.uniform(0, 2 * np.pi)), walk_rng, steps, noise)
            total += min(speed, enough) - 2.0 * fell
        return total / walks

    for iteration in range(iterations):
        candidates = np.clip(mean + deviation * rng.standard_normal((population, len(mean))), low, high)
        candidates[0] = mean
        scores = np.array([score(candidate, iteration) for candidate in candidates])
        best = candidates[np.argsort(-scores)[:elite]]
        mean = 0.3 * mean + 0.7 * best.mean(0)
        deviation = 0.9 * best.std(0) + 0.015 * (high - low)  # the second term keeps the search from collapsing
        if progress is not None:
            progress(iteration + 1, iterations, float(np.sort(scores)[-elite:].mean()))
    return Gait(*(float(number) for number in np.round(mean, 4)))


def main() -> None:
    """Tune the gait and store it in `ASSET`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=50)
    options = parser.parse_args()
    gait = tune(
        options.seed,
        options.iterations,
        progress=lambda done, total, score: print(f"{done}/{total}: {score:.2f} m/s", flush=True),
    )
    ASSET.write_text(json.dumps(dataclasses.asdict(gait), indent=2) + "\n")
    for noise in (0.0, 0.2):
        print(report(lambda rng: trot(gait, rng.uniform(0, 2 * np.pi)), noise))


def report(walkers: Callable[[np.random.Generator], Walker], noise: float, walks: int = 12, steps: int = 300) -> str:
    """One line about a walker's performance: speed and falls over random walks on open ground."""
    env, speeds, falls = open_ground(), [], 0
    for walked in range(walks):
        rng = np.random.default_rng([987, walked])
        speed, fell = walk(env, walkers(rng), rng, steps, noise)
        speeds.append(speed)
        falls += fell
    return f"noise {noise}: {np.mean(speeds):.2f} m/s (slowest {min(speeds):.2f}), {falls} falls in {walks} walks"


if __name__ == "__main__":
    main()
