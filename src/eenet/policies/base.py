"""The one contract of exit policies: scores from what was seen so far, thresholds by budget."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from eenet.outputs.evidence import Evidence, along_exits
from eenet.outputs.exit_outputs import ExitOutputs, mean_costs
from eenet.policies.single_sample import Single
from eenet.policies.thresholds import at_exits, budget_thresholds, first_exit

_BLOCK = 16384
"""Samples scored at a time: what lies in between stays in the processor's cache."""


def score_exits(scorer: "Policy", evidence: Evidence) -> Tensor:
    """Scores `[E, N]` of all samples at all exits, given the evidence of all exits."""
    blocks = zip(*(torch.split(field, _BLOCK, 1) for field in evidence), strict=True)
    scores = [torch.stack(along_exits(scorer.step, Evidence(*block))) for block in blocks]
    return torch.cat(scores, 1)


@dataclass(frozen=True)
class Rule:
    """A policy at one budget: leave at the first exit where the score reaches the threshold.

    Args:
        scorer: Gives the scores: the policy, or one fit of a bank of them.
        thresholds: `[E]`.
        cost: Average cost on the samples that the thresholds were set on.
        cost_se: Standard error of that average.
    """

    scorer: "Policy"
    thresholds: Tensor
    cost: float
    cost_se: float

    def decide(self, evidence: Evidence) -> Tensor:
        """Exits `[N]` (int64, from 0) for the evidence of all exits."""
        return first_exit(score_exits(self.scorer, evidence), self.thresholds)


def scores_of(rules: Sequence[Rule], evidence: Evidence) -> list[Tensor]:
    """Scores `[E, N]` behind each rule; what several rules share scores the samples once."""
    found = {scorer: score_exits(scorer, evidence) for scorer in {rule.scorer for rule in rules}}
    return [found[rule.scorer] for rule in rules]


def decide_all(rules: Sequence[Rule], evidence: Evidence) -> Tensor:
    """Exits `[M, N]` (int64, from 0) that each of M rules chooses."""
    scores = scores_of(rules, evidence)
    return torch.stack([first_exit(s, r.thresholds) for s, r in zip(scores, rules, strict=True)])


class Policy(nn.Module, ABC):
    """Decides where samples leave: `fit` learns and calibrates, `at(budget)` gives a `Rule`.

    It scores samples exit by exit and cannot look ahead: later exits are never shown. The budget
    is an argument of evaluation, unless a policy's own loss holds it. Scores of the calibration
    samples are kept as buffers, so that a saved policy serves new budgets.
    """

    label: str
    """Short name in tables and plots."""
    sized_by_data: tuple[str, ...] = ("calibration_scores", "calibration_costs")
    """Buffers, empty at first, whose shape is known only when they are set or loaded."""
    calibration_scores: Tensor
    calibration_costs: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in self.sized_by_data:
            self.register_buffer(name, torch.empty(0))

    def fit(self, outputs: ExitOutputs) -> Self:
        """Learns from labelled outputs, if there is something to learn, and calibrates."""
        return self.calibrate(outputs)

    def calibrate(self, outputs: ExitOutputs) -> Self:
        """Takes scores and costs of these samples, labelled or not, to set thresholds by."""
        scores = outputs.map(lambda evidence: score_exits(self, evidence))
        if not torch.isfinite(scores).all():
            raise ValueError(f"{self.label}: the scores hold NaN or infinity")
        self.calibration_scores, self.calibration_costs = scores, outputs.costs
        return self

    @abstractmethod
    def at(self, budget: float) -> Rule:
        """The rule that meets an average cost of `budget`, in the unit of the costs."""

    @abstractmethod
    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores the samples that reached exit `k`.

        Args:
            k: Exit, from 0.
            evidence: What exit k shows about B samples.
            state: What the step of exit k-1 returned, narrowed to these samples; None at k = 0.

        Returns:
            Scores `[B]`, higher meaning readier to leave, and a state: any nesting of tensors
            whose first dimension is the sample.
        """

    def single(self, k: int) -> Single | None:
        """The decision at exit `k` on one sample of few classes, if there is a fast one."""
        return None

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name in self.sized_by_data:
            if prefix + name in state_dict:
                setattr(self, name, state_dict[prefix + name].to(getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)


class HeuristicPolicy(Policy):
    """A fixed score with the geometric exit distribution of BranchyNet and MSDNet."""

    def at(self, budget: float) -> Rule:
        """The rule that meets `budget`."""
        shares = torch.ones(len(self.calibration_scores))
        return rule_for(self, self.calibration_scores, self.calibration_costs, shares, budget)


def rule_for(scorer: Policy, scores: Tensor, costs: Tensor, shares: Tensor, budget: float) -> Rule:
    """The rule whose exit distribution is `shares`, tilted until it meets the budget.

    Args:
        scorer: Gave the scores.
        scores: `[E, N]` of the calibration samples.
        costs: `[E]` or `[E, N]`.
        shares: `[E]`, the exit distribution to start from.
        budget: Average cost to meet, in the unit of `costs`; checked.
    """
    if not scores.numel():
        raise ValueError("this policy was not fitted yet: call fit or calibrate first")
    solution = budget_thresholds(scores, costs, shares, budget)
    spent = at_exits(costs, first_exit(scores, solution)).double()
    error = spent.std(correction=0) / len(spent) ** 0.5
    rule = Rule(scorer, solution, float(spent.mean()), float(error))
    warn_of_ties(rule, costs, budget)
    return rule


def warn_of_ties(rule: Rule, costs: Tensor, budget: float) -> None:
    """Warns where tied scores keep a rule far below its budget, as samples that tie leave together.

    Args:
        rule: The rule for `budget`.
        costs: `[E]` or `[E, N]` of the calibration samples.
        budget: In the unit of the costs.
    """
    low, high = mean_costs(costs)[[0, -1]].tolist()
    if budget - rule.cost > 0.05 * (high - low) + 3 * rule.cost_se:
        warnings.warn(
            f"{rule.scorer.label}: many scores tie (saturated or rounded confidences, or few "
            "samples), so that less than the budget can be spent",
            stacklevel=2,
        )
