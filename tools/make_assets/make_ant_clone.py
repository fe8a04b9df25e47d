"""Clones the tuned trot of `ant_gait.py` into the network that ships with calql (about two minutes of one core).

python tools/make_assets/make_ant_clone.py --seed 0
"""

from __future__ import annotations

import argparse

import numpy as np
from ant_gait import Gait, open_ground, report, trot, uprightness
from cloning import train_clone

from calql.paper.demonstrators.ant_clone import ASSET, inputs, walker

WALK_STEPS, TURN_EVERY = 300, 50
"""Steps per walk that is cloned, and between two of its headings."""


def record(gait: Gait, steps: int, seed: int = 0, noise: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [N, 29] and the gait's own actions [N, 8], on walks with noise on the actions."""
    rng, env = np.random.default_rng(seed), open_ground()
    seen, done = [], []
    while len(seen) < steps:
        act = trot(gait, rng.uniform(0, 2 * np.pi))
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        heading = rng.uniform(-np.pi, np.pi)
        for step in range(WALK_STEPS):
            if step % TURN_EVERY == 0:
                heading += rng.integers(-1, 2) * np.pi / 2
            action = act(observation, heading)
            seen.append(inputs(observation, heading))
            done.append(action)
            observation, *_ = env.step(action + noise * rng.standard_normal(8))
            if uprightness(observation) < 0:
                break
    return np.array(seen, np.float32), np.array(done, np.float32)


def main() -> None:
    """Clone the tuned gait and store the network in `ASSET`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=100_000, help="recorded steps of the gait")
    parser.add_argument("--steps", type=int, default=30_000, help="gradient steps")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 128], help="width of each hidden layer")
    options = parser.parse_args()
    print(f"recording {options.samples} steps", flush=True)
    seen, done = record(Gait.load(), options.samples, options.seed)

    def progress(step: int, steps: int, loss: float) -> None:
        if step % 5_000 == 0:
            print(f"{step}/{steps}: mean squared error {loss:.4f}", flush=True)

    clone = train_clone(seen, done, options.hidden, options.steps, options.seed, progress=progress)
    clone.save(ASSET)
    for noise in (0.0, 0.2):
        print(report(lambda rng: walker(clone), noise))


if __name__ == "__main__":
    main()
