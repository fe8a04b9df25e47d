"""Algorithm 2 of the paper, Hy-Q, and the regret bound of Theorem E.5, on small MDPs that are known exactly.

NumPy only; nothing here imports other parts of calql. The notation is that of Appendices E and F. `mdp.py` has the MDPs
(called worlds in results) and their exact values, `fqi.py` the algorithm, `bound.py` the quantities of the theorem,
`experiment.py` the runs of `calql theory`.
"""

from calql.theory.bound import arms, regret_bound, transfer_coefficient
from calql.theory.experiment import LEARNERS, REFERENCES, WIDTHS, WORLDS, Result, Setting, run, settings
from calql.theory.fqi import Data, Learner, fine_tune, sample
from calql.theory.mdp import (
    MDP,
    bellman,
    combination_lock,
    greedy,
    linear_mdp,
    maze,
    mixed,
    occupancy,
    offline_distribution,
    optimal_q,
    policy_q,
    value,
)

__all__ = [
    "LEARNERS",
    "MDP",
    "REFERENCES",
    "WIDTHS",
    "WORLDS",
    "Data",
    "Learner",
    "Result",
    "Setting",
    "arms",
    "bellman",
    "combination_lock",
    "fine_tune",
    "greedy",
    "linear_mdp",
    "maze",
    "mixed",
    "occupancy",
    "offline_distribution",
    "optimal_q",
    "policy_q",
    "regret_bound",
    "run",
    "sample",
    "settings",
    "transfer_coefficient",
    "value",
]
