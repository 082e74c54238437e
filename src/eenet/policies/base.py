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
from eenet.policies.single_sample import ScalarDecision
from eenet.policies.thresholds import at_exits, budget_thresholds, check_budget, first_exit

_BLOCK = 16384
"""Samples scored at a time: what lies in between stays in the processor's cache."""


@torch.no_grad()
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
        return decide_all([self], evidence)[0]


def scores_of(rules: Sequence[Rule], evidence: Evidence) -> list[Tensor]:
    """Scores `[E, N]` behind each rule; what several rules share scores the samples once.

    Raises:
        ValueError: If a policy was fitted on another number of exits or classes.
    """
    scorers = {rule.scorer for rule in rules}
    for scorer in scorers:
        scorer.check_shape(len(evidence.entropy), evidence.log_probs.shape[-1])
    scores = {scorer: score_exits(scorer, evidence) for scorer in scorers}
    return [scores[rule.scorer] for rule in rules]


def decide_all(rules: Sequence[Rule], evidence: Evidence) -> Tensor:
    """Exits `[M, N]` (int64, from 0) that each of M rules chooses."""
    scores = scores_of(rules, evidence)
    return torch.stack([first_exit(s, r.thresholds) for s, r in zip(scores, rules, strict=True)])


def reached_by(rules: Sequence[Rule], outputs: ExitOutputs, values: Tensor) -> Tensor:
    """The samples' values `[M, N]` at the exits that each of M rules chooses.

    Args:
        rules: One or more.
        outputs: What the rules decide on, block by block.
        values: `[E]` or `[E, N]`, such as the costs or the quality.

    Raises:
        ValueError: If there is no rule.
    """
    if not rules:
        raise ValueError("rules: there must be one or more")
    return at_exits(values, outputs.map(lambda evidence: decide_all(rules, evidence)))


class Policy(nn.Module, ABC):
    """Decides where samples leave: `fit` learns and calibrates, `at_fraction(budget)` gives a rule.

    It scores samples exit by exit and cannot look ahead: later exits are never shown. The budget
    is an argument of evaluation, unless a policy's own loss holds it (`any_budget`). Scores of the
    calibration samples are kept as buffers, so that a saved policy serves new budgets.
    """

    label: str
    """Short name in tables and plots."""
    any_budget = True
    """Whether one fit serves every budget; if not, `fit_policies` makes one fit for each."""
    nested = False
    """Whether a larger budget lets no sample leave earlier, so that there is `at_point`."""
    least_samples = 1
    """How many samples `fit` needs."""
    sized_by_data: tuple[str, ...] = ("calibration_scores", "calibration_costs")
    """Buffers, empty at first, whose shape is known only when they are set or loaded."""
    calibration_scores: Tensor
    calibration_costs: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in self.sized_by_data:
            self.register_buffer(name, torch.empty(0))

    def fit(self, outputs: ExitOutputs) -> Self:
        """Learns from labelled outputs, if there is something to learn, and calibrates.

        Raises:
            ValueError: If there are too few samples, a field is missing, or the policy is fitted
                otherwise; the message says how.
        """
        return self._set_calibration(outputs, outputs.map(self._scores))

    def calibrate(self, outputs: ExitOutputs) -> Self:
        """Sets the thresholds by other samples, labelled or not, with what was learned as it is.

        Raises:
            ValueError: If there is something to learn and it was not, or the outputs have another
                number of exits or classes.
        """
        self._check_calibration(outputs)
        return self._set_calibration(outputs, outputs.map(self._scores))

    @property
    def fitted(self) -> bool:
        """Whether the policy is fitted."""
        return True

    @property
    def fitted_classes(self) -> int | None:
        """Number of classes that it was fitted on, if it serves no other."""
        return None

    @property
    def how_to_fit(self) -> str:
        """One line that says how to fit a policy that is not fitted."""
        return f"{self.label} was not fitted yet: call fit(outputs) first"

    def check_samples(self, samples: int) -> None:
        """Raises a ValueError if `fit` needs more samples than there are."""
        if samples < self.least_samples:
            raise ValueError(
                f"{self.label}: there are only {samples} samples to fit on; it needs "
                f"{self.least_samples} or more"
            )

    def check_shape(self, exits: int, classes: int) -> None:
        """Raises a ValueError if the policy was fitted on other exits, or classes if they count."""
        sizes = {
            "exits": (len(self.calibration_costs) or None, exits),
            "classes": (self.fitted_classes, classes),
        }
        for name, (fitted, size) in sizes.items():
            if fitted not in (None, size):
                raise ValueError(
                    f"{self.label} was fitted on {fitted} {name}; these outputs have {size}"
                )

    def check_budget(self, budget: float, fraction: bool = False) -> None:
        """Checks that `at`, or `at_fraction`, serves a budget.

        Raises:
            ValueError: If the policy is not fitted, or the budget is out of range or was not
                fitted; the message speaks in the unit of the budget.
        """
        if not self.calibration_scores.numel():
            raise ValueError(self.how_to_fit)
        check_budget(budget, mean_costs(self.calibration_costs) / self._unit(fraction))

    @property
    def least_budget(self) -> float:
        """Cost of the first exit as a fraction of the full network's."""
        costs = mean_costs(self.calibration_costs)
        return float(costs[0] / costs[-1])

    def at_fraction(self, budget: float) -> Rule:
        """The rule that meets an average cost of `budget`, a fraction of the full network's cost.

        Raises:
            ValueError: If the policy is not fitted, or cannot serve the budget.
        """
        self.check_budget(budget, fraction=True)
        return self.at(budget * self._unit(fraction=True))

    @abstractmethod
    def at(self, budget: float) -> Rule:
        """The rule that meets an average cost of `budget`, in the unit of the costs.

        Raises:
            ValueError: If the policy is not fitted, or cannot serve the budget.
        """

    def at_point(self, u: float) -> Rule:
        """The rule at a working point, of a policy whose rules are `nested`.

        Args:
            u: 0 and below: all leave first; 1 and above: all leave last; in between the budget
                `c_1 + u (c_E - c_1)`.

        Raises:
            ValueError: If they are not.
        """
        raise ValueError(f"{self.label} has no nested rules, which working points need; eenet+ has")

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

    def decide_one(self, k: int) -> ScalarDecision | None:
        """The decision at exit `k` on one sample of few classes, if there is a fast one."""
        return None

    def _unit(self, fraction: bool) -> float:
        """Cost of a budget of 1: with fractions, the full network's on the calibration samples."""
        return float(mean_costs(self.calibration_costs)[-1]) if fraction else 1.0

    def _scores(self, evidence: Evidence) -> Tensor:
        return score_exits(self, evidence)

    def _check_calibration(self, outputs: ExitOutputs) -> None:
        if not self.fitted:
            raise ValueError(self.how_to_fit)
        self.check_shape(outputs.num_exits, outputs.num_classes)

    def _set_calibration(self, outputs: ExitOutputs, scores: Tensor) -> Self:
        if not torch.isfinite(scores).all():
            raise ValueError(f"{self.label}: the scores hold NaN or infinity")
        self.calibration_scores, self.calibration_costs = scores, outputs.costs
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name in self.sized_by_data:
            if prefix + name in state_dict:
                setattr(self, name, state_dict[prefix + name].to(getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def rule_for(scorer: Policy, scores: Tensor, costs: Tensor, shares: Tensor, budget: float) -> Rule:
    """The rule whose exit distribution is `shares`, tilted until it meets the budget.

    Args:
        scorer: Gave the scores.
        scores: `[E, N]` of the calibration samples.
        costs: `[E]` or `[E, N]`.
        shares: `[E]`, the exit distribution to start from.
        budget: Average cost to meet, in the unit of `costs`; checked.
    """
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
