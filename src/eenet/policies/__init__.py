"""Exit policies: scores, thresholds and budgets as plain tensor maths."""

from eenet.policies.alarm import Alarm
from eenet.policies.base import Policy, Rule
from eenet.policies.control import BudgetControl
from eenet.policies.eenet import EENet
from eenet.policies.eenet_plus import EENetPlus
from eenet.policies.gates import JointGates, LearnedStopping
from eenet.policies.guarantee import (
    within_budget,
    within_disagreement,
    within_loss,
    within_tail,
)
from eenet.policies.heuristics import (
    BEEM,
    Entropy,
    HeuristicPolicy,
    Margin,
    MaxProbability,
    Patience,
    Random,
    Temperature,
    Vote,
)
from eenet.policies.learned import BankLinear, LearnedPolicy
from eenet.policies.ztw import ZTW

__all__ = [
    "BEEM",
    "ZTW",
    "Alarm",
    "BankLinear",
    "BudgetControl",
    "EENet",
    "EENetPlus",
    "Entropy",
    "HeuristicPolicy",
    "JointGates",
    "LearnedPolicy",
    "LearnedStopping",
    "Margin",
    "MaxProbability",
    "Patience",
    "Policy",
    "Random",
    "Rule",
    "Temperature",
    "Vote",
    "within_budget",
    "within_disagreement",
    "within_loss",
    "within_tail",
]
