"""Exit policies: evidence, scores, thresholds and budgets as plain tensor maths."""

from eenet.scheduling.control import BudgetControl
from eenet.scheduling.eenet import EENet
from eenet.scheduling.evidence import Evidence
from eenet.scheduling.gates import JointGates, LearnedStopping
from eenet.scheduling.guarantee import within_budget, within_loss
from eenet.scheduling.heuristics import (
    Entropy,
    Margin,
    MaxProbability,
    Patience,
    Random,
    Temperature,
    Vote,
)
from eenet.scheduling.optimal_stopping import EENetPlus
from eenet.scheduling.outputs import ExitOutputs, cost_matrix_quality
from eenet.scheduling.policy import Policy, Rule

__all__ = [
    "BudgetControl",
    "EENet",
    "EENetPlus",
    "Entropy",
    "Evidence",
    "ExitOutputs",
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
    "cost_matrix_quality",
    "within_budget",
    "within_loss",
]
