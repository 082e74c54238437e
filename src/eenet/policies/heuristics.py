"""Policies with a fixed score: confidences, agreement of exits, temperatures, and chance."""

import math
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor

from eenet.outputs.evidence import Evidence, count_votes
from eenet.outputs.exit_outputs import ExitOutputs
from eenet.policies.base import Rule, rule_for
from eenet.policies.nested import NestedPolicy
from eenet.policies.single_sample import SampleEvidence, ScalarDecision


class HeuristicPolicy(NestedPolicy):
    """A fixed score.

    Args:
        common: Whether all exits share one threshold. If not, the exit distribution is the
            geometric one of BranchyNet and MSDNet, and rules are not nested.
    """

    usually_common = False
    """Whether `common` needs no mention in the label."""

    def __init__(self, common: bool = False) -> None:
        super().__init__()
        self.nested = common
        if common != self.usually_common:
            self.label += "_common" if common else "_geometric"

    @property
    def fitted(self) -> bool:
        """Whether the buffers hold what `fit` learns, if anything."""
        learned = set(self.sized_by_data) - set(HeuristicPolicy.sized_by_data)
        return all(getattr(self, name).numel() for name in learned)

    def at(self, budget: float) -> Rule:
        """The rule that meets `budget`."""
        if self.nested:
            return super().at(budget)
        self.check_budget(budget)
        scores = self.calibration_scores
        return rule_for(self, scores, self.calibration_costs, torch.ones(len(scores)), budget)


class MaxProbability(HeuristicPolicy):
    """Leave where the highest class probability is high (MSDNet, Huang et al. 2018)."""

    label, field = "max_prob", "one_minus_max"

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by the negative uncertainty, a field of `Evidence`."""
        return -getattr(evidence, self.field), None

    def decide_one(self, k: int) -> ScalarDecision:
        """See `Policy.decide_one`."""
        return partial(_decide_by_doubt, self.field)


def _decide_by_doubt(
    field: str, sample: SampleEvidence, threshold: float, state: Any
) -> tuple[bool | None, Any]:
    return sample.at_most(field, -threshold), state


class Entropy(MaxProbability):
    """Leave where the prediction's entropy is low (BranchyNet, Teerapittayanon et al. 2016)."""

    label = field = "entropy"


class Margin(MaxProbability):
    """Leave where the two most probable classes lie far apart."""

    label, field = "margin", "one_minus_margin"


class Vote(HeuristicPolicy):
    """Leave where most exits so far agree (`a_vote` of EENet); max probability decides ties."""

    label = "vote"

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by minus the number of dissenting votes, less `1 - max p`."""
        votes = count_votes(state, evidence)
        return votes.amax(-1) - (k + 1) - evidence.one_minus_max, votes


class Patience(HeuristicPolicy):
    """Leave after enough equal predictions in a row (PABEE, Zhou et al. 2020), at any budget.

    PABEE's patience is one integer for all exits, so it knows only E working points. Here each
    exit lets the longest runs leave, as many as the budget allows; max probability decides ties.
    """

    label = "patience"

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by the run's length less k + 1, less `1 - max p`."""
        predicted = evidence.prediction
        run = torch.ones_like(evidence.one_minus_max)
        if state is not None:
            run = torch.where(predicted == state[0], state[1] + 1, run)
        return run - (k + 1) - evidence.one_minus_max, (predicted, run)


class BEEM(HeuristicPolicy):
    """Leave where the exits that agree in a row are sure enough (Bajpai and Hanawal 2025, BEEM-A).

    `S_k = w_k max p_k`, plus `S_{k-1}` if exit k predicts what the exit before did; the weight w_k
    is the exit's accuracy. The paper has one threshold for all exits.

    Args:
        common: Whether all exits share one threshold.
    """

    label, usually_common = "beem", True
    sized_by_data = (*HeuristicPolicy.sized_by_data, "weights")
    weights: Tensor

    def __init__(self, common: bool = True) -> None:
        super().__init__(common)

    def fit(self, outputs: ExitOutputs) -> Self:
        """Takes the exits' accuracies on these outputs, without labels those of the last one."""
        self.weights = outputs.learning_quality().double().mean(1).float()
        return super().fit(outputs)

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by the weighted confidence summed over the exits that agree."""
        predicted = evidence.prediction
        score = self.weights[k] * (1 - evidence.one_minus_max)
        if state is not None:
            score = score + torch.where(predicted == state[0], state[1], 0.0)
        return score, (predicted, score)


class Random(HeuristicPolicy):
    """Leave by chance, with the right exit distribution: the floor for every policy.

    Args:
        seed: Seed of the noise, which depends on a sample's place in its block and nothing else.
    """

    label = "random"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by noise, drawn for each exit and kept with the sample."""
        if state is None:
            state = torch.arange(len(evidence.entropy), device=evidence.entropy.device)
        generator = torch.Generator().manual_seed(self.seed * 1009 + k)
        size = int(state.max()) + 1 if len(state) else 0
        noise = torch.rand(size, generator=generator).to(evidence.entropy)
        return noise[state], state


class Temperature(HeuristicPolicy):
    """Max probability after temperature scaling of each exit (Guo et al. 2017)."""

    label = "temperature"
    sized_by_data = (*HeuristicPolicy.sized_by_data, "inverse")
    inverse: Tensor

    def fit(self, outputs: ExitOutputs) -> Self:
        """Fits each exit's temperature by the likelihood of the labels, which it needs."""
        if outputs.labels is None or outputs.logits is None:
            raise ValueError("labels: temperatures are fitted on labelled logits")
        exits = range(outputs.num_exits)
        self.inverse = torch.stack([_inverse_temperature(outputs, k) for k in exits])
        return super().fit(outputs)

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by `max_c p_c - 1` of the scaled probabilities."""
        return -Evidence.from_logits(evidence.log_probs * self.inverse[k]).one_minus_max, None


def _inverse_temperature(outputs: ExitOutputs, k: int) -> Tensor:
    """Minimizes the negative log-likelihood, convex in the inverse temperature, by bisection."""
    logits, labels = cast(Tensor, outputs.logits)[k], cast(Tensor, outputs.labels)[:, None]

    def rise(block: slice, inverse: float) -> Tensor:
        log_probs = torch.log_softmax(logits[block].float(), dim=-1)
        expected = (torch.softmax(log_probs * inverse, dim=-1) * log_probs).sum(-1)
        return log_probs.gather(1, labels[block])[:, 0] - expected

    low, high = math.log(0.02), math.log(50.0)
    for _ in range(24):  # to float32's precision
        middle = 0.5 * (low + high)
        rises = [rise(block, math.exp(middle)) for block in outputs.blocks()]
        if torch.cat(rises).mean() > 0:  # the likelihood still rises
            low = middle
        else:
            high = middle
    return torch.tensor(math.exp(low))
