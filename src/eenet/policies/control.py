"""Online budget control: an average cost that holds on any sequence of samples."""

import math
from collections.abc import Iterable
from typing import Self

from torch import Tensor

from eenet.policies.thresholds import check_budget

_FOLLOW = 4
"""In how many memories the center follows the working point."""


class BudgetControl:
    """Moves a working point along a nested family by what was spent, in batches and with delay.

    The working point is `u = center + S / M`. S is what has been saved so far, `sum (B - x)` over
    the costs x (negative if overspent), in units of the range `c_E - c_1` of the exits' costs. M is
    a memory in samples, `1 / step + 2 L`, where L is the largest number of samples that were
    decided at once or under way: control cannot react faster than it hears of its decisions. The
    center starts where the budget B lies in the range, and slowly follows u within [0, 1], so that
    a lasting shift leaves no lasting deviation. A sample under way counts with what one that has
    come so far costs on average on the calibration samples. The family must *saturate*: at u <= 0
    everything leaves at the first exit, at u >= 1 at the last.

    **Bound.** For any sequence of costs in [c_1, c_E], shifted or adversarial, in batches or
    streams, after n samples with w under way and f forced out (by a deadline, say),

    `|average cost - B| <= (c_E - c_1) (M + L + w + f) / n`.

    So the average tends to the budget from either side: what was saved is spent later. Without f
    and w in the sum, the bound holds only for overspending. The proof is in docs/method.md.

    Args:
        budget: B, an average cost per sample in the unit of the costs.
        costs: Cost of each exit `[E]`, or the mean costs.
        step: In (0, 1]; its inverse is the number of samples to average over, to which 2 L is
            added.
        shares: Share, or number, of the calibration samples that leave at each exit under this
            budget `[E]`; needed where samples are under way.

    Raises:
        ValueError: If the budget or the step is out of range.
    """

    def __init__(
        self, budget: float, costs: Tensor, step: float = 0.01, shares: Tensor | None = None
    ) -> None:
        if not 0 < step <= 1:
            raise ValueError(
                f"control: step={step} must lie in (0, 1]; its inverse is the number of samples to "
                "average over"
            )
        self.budget, self.step = check_budget(budget, costs), step
        self.costs: list[float] = costs.tolist()
        self.range = (self.costs[-1] - self.costs[0]) or 1.0
        self.center = (self.budget - self.costs[0]) / self.range
        self.samples = self.forced = 0
        self.saved = 0.0
        self.waiting = [0] * len(self.costs)  # samples on their way to each exit
        self._expected = _expected_costs(self.budget, self.costs, shares)
        self._most_decided = self._most_waiting = 0

    @property
    def u(self) -> float:
        """The working point."""
        pairs = zip(self.waiting, self._expected, strict=True)
        reserved = sum(count * (cost - self.budget) for count, cost in pairs)
        return self.center + (self.saved - reserved) / (self.range * self._memory)

    @property
    def _largest(self) -> int:
        # What waits when the working point moves and what arrives before it moves again.
        return self._most_decided + self._most_waiting

    @property
    def _memory(self) -> float:
        return 1 / self.step + 2 * self._largest

    def update(self, spent: Tensor) -> float:
        """Takes in samples that were all decided at the working point.

        Args:
            spent: Their costs `[b]`. Costs that depend on the sample keep the bound if each
                sample's own range holds the budget.

        Returns:
            The next working point.

        Raises:
            ValueError: If a cost is NaN or infinite; nothing changes then.
        """
        saved = float((self.budget - spent.double()).sum())
        if not math.isfinite(saved):
            raise ValueError("spent holds NaN or infinity: budget control needs finite costs")
        self._most_decided = max(self._most_decided, len(spent))
        self.samples += len(spent)
        self.saved += saved
        return self._move(len(spent))

    def decided(self, steps: Iterable[tuple[int, int, int, int]]) -> float:
        """Takes in decisions exit by exit, with samples under way in between.

        Args:
            steps: What was decided at the working point: exit (from 0), number of samples there,
                number of samples that continue, and number of those forced to leave.

        Returns:
            The next working point.
        """
        begun = 0
        for k, reached, staying, forced in steps:
            if k == 0:
                begun += reached
            else:
                self.waiting[k] -= reached
            if staying:
                self.waiting[k + 1] += staying
            self.samples += reached - staying
            self.saved += (reached - staying) * (self.budget - self.costs[k])
            self.forced += forced
        self._most_decided = max(self._most_decided, begun)
        self._most_waiting = max(self._most_waiting, sum(self.waiting))
        return self._move(begun)

    def dropped(self, k: int, samples: int) -> None:
        """Forgets samples on their way to exit `k` that will never get there."""
        self.waiting[k] -= samples
        self.forced += samples

    def take_over(self, other: Self) -> None:
        """Takes over the samples under way from the control of another budget."""
        self.waiting = other.waiting.copy()
        self._most_waiting = sum(self.waiting)

    def bound(self) -> float:
        """Largest possible `|average cost - budget|` at present, in the unit of cost."""
        most = self._memory + self._largest + sum(self.waiting) + self.forced
        return self.range * most / max(self.samples, 1)

    def _move(self, samples: int) -> float:
        drift = (self.u - self.center) * samples / (_FOLLOW * self._memory)
        self.center = min(max(self.center + drift, 0.0), 1.0)
        return self.u


def _expected_costs(budget: float, costs: list[float], shares: Tensor | None) -> list[float]:
    """Mean cost `[E]` of the calibration samples that reach each exit, the budget at least.

    It lies between the exit's cost and the last one's and never falls, as the bound requires.
    """
    weights = [0.0] * len(costs) if shares is None else shares.tolist()
    expected, total, weight = list[float](), 0.0, 0.0
    for cost, share in zip(reversed(costs), reversed(weights), strict=True):
        total, weight = total + share * cost, weight + share
        expected.append(max(total / weight if weight else cost, budget))
    return expected[::-1]
