"""Exit policies: evidence, scores, thresholds and budgets as plain tensor maths."""

from eenet.scheduling.eenet import EENet
from eenet.scheduling.evidence import Evidence
from eenet.scheduling.heuristics import Entropy, Margin, MaxProbability
from eenet.scheduling.optimal_stopping import EENetPlus
from eenet.scheduling.outputs import ExitOutputs
from eenet.scheduling.policy import Policy, Rule, Scorer

__all__ = [
    "EENet",
    "EENetPlus",
    "Entropy",
    "Evidence",
    "ExitOutputs",
    "Margin",
    "MaxProbability",
    "Policy",
    "Rule",
    "Scorer",
]
