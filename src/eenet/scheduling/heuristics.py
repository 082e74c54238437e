"""Policies whose score is a plain confidence."""

from typing import Any

from torch import Tensor

from eenet.scheduling.evidence import Evidence
from eenet.scheduling.policy import HeuristicPolicy


class MaxProbability(HeuristicPolicy):
    """Leave where the highest class probability is high (MSDNet, Huang et al. 2018)."""

    label = "max_prob"

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by `max_c p_c - 1`."""
        return -evidence.one_minus_max, None


class Entropy(HeuristicPolicy):
    """Leave where the prediction's entropy is low (BranchyNet, Teerapittayanon et al. 2016)."""

    label = "entropy"

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by the negative entropy."""
        return -evidence.entropy, None


class Margin(HeuristicPolicy):
    """Leave where the two most probable classes lie far apart."""

    label = "margin"

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by `p_first - p_second - 1`."""
        return -evidence.one_minus_margin, None
