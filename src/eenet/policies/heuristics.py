"""Policies without gradients: confidences, agreement of exits, temperature scaling, and chance."""

import math
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor

from eenet.outputs.evidence import Evidence, count_votes
from eenet.outputs.exit_outputs import ExitOutputs
from eenet.policies.base import HeuristicPolicy
from eenet.policies.single_sample import SampleEvidence, ScalarDecision


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
        """Scores by noise, drawn anew for each exit and kept with the sample."""
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

    @property
    def fitted(self) -> bool:
        """Whether there are temperatures."""
        return self.inverse.numel() > 0

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by `max_c p_c - 1` of the scaled probabilities."""
        return -Evidence.from_logits(evidence.log_probs * self.inverse[k]).one_minus_max, None


def _inverse_temperature(outputs: ExitOutputs, k: int) -> Tensor:
    """Minimises the negative log-likelihood, convex in the inverse temperature, by bisection."""
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
