"""What policies optimized by gradient descent share: a bank of independent fits, one per budget."""

import copy
import math
from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from eenet.outputs.evidence import Evidence
from eenet.outputs.exit_outputs import ExitOutputs, mean_costs
from eenet.policies.base import Policy, Rule, rule_for, score_exits
from eenet.policies.nested import NestedFamily, common_rule
from eenet.policies.thresholds import check_budget


class LearnedPolicy(Policy):
    """A policy with one fit per budget: every parameter's first dimension.

    `eenet.modules.fit_policies` fits it, as stage 2 does: `prepare`, gradient steps on `loss` with
    `keep_best` now and then, `finish`. No fit may depend on another. Scores come from one `member`
    at a time. A policy of one's own has `build`, `loss` and `step`, see docs/policies.md.
    """

    any_budget = False
    least_samples = 2  # to learn from, and to choose the best epoch by
    sized_by_data = (*Policy.sized_by_data, "sizes", "budgets", "costs", "shares")
    rate = 1.0
    """Factor of stage 2's learning rate for this policy."""
    common = False
    """Whether all exits share one threshold, in place of the exit distribution `exit_shares`."""
    chosen = slice(None)
    """Which fits compute: all of them in training, one in `step`."""
    sizes: Tensor  # those of `build`
    budgets: Tensor
    costs: Tensor
    shares: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._best: dict[str, Tensor] = {}

    def fit(self, outputs: ExitOutputs) -> Self:
        """Is refused: budgets are needed too.

        Raises:
            ValueError: Always.
        """
        raise ValueError(self.how_to_fit)

    @property
    def fitted(self) -> bool:
        """Whether training has ended."""
        return self.calibration_scores.numel() > 0

    @property
    def how_to_fit(self) -> str:
        """One line that says how to fit a policy that is not fitted."""
        return (
            f"{self.label} is fitted for given budgets: use "
            "eenet.modules.fit_policies([policy], outputs, budgets)"
        )

    def prepare(self, outputs: ExitOutputs, budgets: list[float]) -> None:
        """Makes fresh parameters for outputs of this shape and these costs.

        Args:
            outputs: What it will be fitted on.
            budgets: Average costs per sample, in the unit of the costs; checked.

        Raises:
            ValueError: If a budget is out of range, or a given quality leaves [0, 1].
        """
        quality = outputs.quality
        if quality is not None and not (quality.min() >= 0 and quality.max() <= 1):
            raise ValueError(f"quality must lie in [0, 1] for {self.label}: rescale it")
        self.costs = outputs.mean_costs.float()
        self.budgets = torch.tensor([check_budget(b, outputs.mean_costs) for b in budgets])
        self.calibration_scores = self.calibration_scores.new_empty(0)
        self._build([len(budgets), outputs.num_exits, outputs.num_classes])
        self.start(outputs)
        self._best = {}

    def _build(self, sizes: list[int]) -> None:
        self.sizes = torch.tensor(sizes, device=self.sizes.device)
        self.build(*sizes)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Makes the parameters that the state was saved with, before they are loaded."""
        saved = state_dict.get(prefix + "sizes", self.sizes).tolist()
        if saved != self.sizes.tolist():
            self._build(saved)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @abstractmethod
    def build(self, members: int, exits: int, classes: int) -> None:
        """Makes the parameters of M fits for E exits and C classes."""

    @torch.no_grad()
    def start(self, outputs: ExitOutputs) -> None:
        """Sets parameters to begin from, where random ones are not good enough."""

    @abstractmethod
    def loss(self, evidence: Evidence, quality: Tensor, epoch: int) -> Tensor:
        """Loss of a batch, a scalar summed over the fits.

        Args:
            evidence: Evidence of all exits, `[E, B]`.
            quality: `[E, B]` in [0, 1], 1 where the answer is right.
            epoch: Epoch, from 0.
        """

    def held_out_loss(self, evidence: Evidence, quality: Tensor) -> Tensor | None:
        """Loss `[M]` of each fit, by which its best epoch is chosen; None: the last one counts."""
        return None

    def exit_shares(self, evidence: Evidence) -> Tensor:
        """Exit distribution `[M, E]` of each fit on these samples, before it is tilted.

        By default all exits are alike, which tilting makes geometric.
        """
        return evidence.entropy.new_ones(len(self.budgets), len(evidence.entropy))

    def member(self, m: int) -> Self:
        """Fit `m` as a scorer: the same policy, parameters and all, with this one chosen."""
        member = copy.copy(self)
        member.chosen = slice(m, m + 1)
        return member

    def finish(self, outputs: ExitOutputs) -> Self:
        """Ends training: goes back to each fit's best parameters, if any were kept; calibrates."""
        self.load_state_dict(self._best, strict=False)
        return self._calibrate(outputs)

    def calibrate(self, outputs: ExitOutputs) -> Self:
        """Takes scores `[M, E, N]` and the exit distributions `[M, E]` of these samples."""
        self._check_calibration(outputs)
        return self._calibrate(outputs)

    @torch.no_grad()
    def _calibrate(self, outputs: ExitOutputs) -> Self:
        members = [self.member(m) for m in range(len(self.budgets))]
        shares = []

        def scores(evidence: Evidence) -> Tensor:
            weight = evidence.entropy.shape[1] / outputs.num_samples
            shares.append(weight * self.exit_shares(evidence))
            return torch.stack([score_exits(member, evidence) for member in members])

        self._set_calibration(outputs, outputs.map(scores))
        self.shares = torch.stack(shares).sum(0)
        return self

    @property
    def fitted_classes(self) -> int | None:
        """Number of classes that the parameters were built for."""
        return int(self.sizes[2]) if len(self.sizes) else None

    def check_budget(self, budget: float, fraction: bool = False) -> None:
        """See `Policy.check_budget`; only the budgets fitted are served."""
        super().check_budget(budget, fraction)
        self._fit_for(budget, fraction)

    def at(self, budget: float) -> Rule:
        """The rule of the fit for `budget`; the error where there is none lists those there are."""
        return self._rule(budget, fraction=False)

    def at_fraction(self, budget: float) -> Rule:
        """The rule of the fit for this fraction of what the full network cost in training."""
        return self._rule(budget, fraction=True)

    def _rule(self, budget: float, fraction: bool) -> Rule:
        self.check_budget(budget, fraction)
        m, budget = self._fit_for(budget, fraction), budget * self._unit(fraction)
        scores, costs = self.calibration_scores[m], self.calibration_costs
        if self.common:
            return common_rule(self.member(m), NestedFamily(scores, costs), budget)
        return rule_for(self.member(m), scores, costs, self.shares[m], budget)

    def _fit_for(self, budget: float, fraction: bool) -> int:
        budgets = self.budgets / self.costs[-1] if fraction else self.budgets
        distance = (budgets - budget).abs()
        m = int(distance.argmin())
        if float(distance[m]) > 1e-4 * budget:
            low, high = (
                mean_costs(self.calibration_costs)[[0, -1]] / self._unit(fraction)
            ).tolist()
            raise ValueError(
                f"budget={budget:g}: {self.label} was fitted for "
                f"{', '.join(f'{float(b):g}' for b in budgets)} only; fit it for this one too, or "
                f"use eenet+, which serves any budget from {low:g} to {high:g}"
            )
        return m

    def keep_best(self, losses: Tensor) -> None:
        """Copies the parameters of those fits whose held-out loss `[M]` is the lowest so far."""
        if not self._best:
            self._best = {name: p.detach().clone() for name, p in self.named_parameters()}
            self._best_losses = losses.clone()
        better = losses < self._best_losses
        self._best_losses[better] = losses[better]
        for name, parameter in self.named_parameters():
            self._best[name][better] = parameter.detach()[better]


class BankLinear(nn.Module):
    """M linear layers side by side, all starting from the same random numbers.

    Args:
        members: Number of layers, M.
        inputs: Features of their inputs.
        outputs: Features of their outputs.
    """

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        weight = torch.empty(inputs, outputs).uniform_(-bound, bound)
        bias = torch.empty(1, outputs).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight.repeat(members, 1, 1))
        self.bias = nn.Parameter(bias.repeat(members, 1, 1))

    def forward(self, x: Tensor, members: slice = slice(None)) -> Tensor:
        """Applies the chosen layers: `[m, N, inputs]`, or `[N, inputs]`, to `[m, N, outputs]`."""
        weight = self.weight[members]
        return torch.baddbmm(self.bias[members], x.expand(len(weight), -1, -1), weight)
