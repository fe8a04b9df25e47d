"""Update rules: one per file, each a frozen dataclass of hyper-parameters with pure methods over an explicit state.

`calql.algorithms.protocol` defines what training needs from a rule.
"""

from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.awac import AWAC
from calql.algorithms.bc import BC
from calql.algorithms.cal_ql import CalQL
from calql.algorithms.cal_ql_plus import CalQLPlus
from calql.algorithms.cql import CQL, VARIANTS
from calql.algorithms.iql import IQL
from calql.algorithms.o3f import O3F
from calql.algorithms.odt import ODT
from calql.algorithms.protocol import Acts, ActsInContext, HasValues, UpdateRule
from calql.algorithms.sac import SAC
from calql.algorithms.smac import SMAC
from calql.algorithms.td3_bc import TD3BC

__all__ = [
    "AWAC",
    "BC",
    "CQL",
    "IQL",
    "O3F",
    "ODT",
    "SAC",
    "SMAC",
    "TD3BC",
    "VARIANTS",
    "ActorCriticState",
    "Acts",
    "ActsInContext",
    "CalQL",
    "CalQLPlus",
    "HasValues",
    "UpdateRule",
]
