"""Exit policies: scores, thresholds and budgets as plain tensor maths."""

from eenet.policies.base import Policy, Rule
from eenet.policies.control import BudgetControl
from eenet.policies.eenet import EENet
from eenet.policies.eenet_plus import EENetPlus
from eenet.policies.gates import JointGates, LearnedStopping
from eenet.policies.guarantee import within_budget, within_loss
from eenet.policies.heuristics import (
    Entropy,
    Margin,
    MaxProbability,
    Patience,
    Random,
    Temperature,
    Vote,
)

__all__ = [
    "BudgetControl",
    "EENet",
    "EENetPlus",
    "Entropy",
    "JointGates",
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
    "within_loss",
]
