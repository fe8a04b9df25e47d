"""Update rules: one a file, each a frozen dataclass of hyper-parameters with pure methods over an explicit state."""

from calql.algorithms.bc import BC
from calql.algorithms.cal_ql import CalQL
from calql.algorithms.cql import CQL, VARIANTS
from calql.algorithms.sac import SAC, ActorCriticState

__all__ = ["BC", "CQL", "SAC", "VARIANTS", "ActorCriticState", "CalQL"]
