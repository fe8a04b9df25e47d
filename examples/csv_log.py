"""Your own reader: one CSV file with a row per step, as `--data examples.csv_log:read#FILE.csv`.

calql data check examples.csv_log:read#cart.csv --task examples.cart:task
"""

import csv
import itertools

import numpy as np

from calql import InputError
from calql.types import Episode

COLUMNS = ["episode", "position", "velocity", "force", "reward", "end"]
"""`end` is 1 in a row whose step ended the task. The last row of an episode holds the state that it ended in, alone."""


def read(path):
    """The episodes of the file, in its order."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or list(rows[0]) != COLUMNS:
        raise InputError(f"{path}: the columns must be {', '.join(COLUMNS)}; write the file again")
    episodes = []
    for _, group in itertools.groupby(rows, lambda row: row["episode"]):
        table = np.array([[float(row[name]) for name in COLUMNS[1:]] for row in group])
        position, velocity, force, reward, end = table.T
        ends = end[:-1] == 1
        states = np.stack([position, velocity], axis=1)
        episodes.append(Episode(states, force[:-1, None], reward[:-1], ends, truncated=not ends[-1]))
    return episodes
