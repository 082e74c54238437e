"""The critical price: from gains of going on at a grid of prices to a score, or one decision."""

import math
from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eenet.policies.eenet_plus_inputs import sample_inputs
from eenet.policies.single_sample import SampleEvidence, reaches


def scale(doubt: Any) -> Any:
    """Scale to which the gain of continuing and its variance are roughly proportional."""
    return doubt + 0.01


def critical_price(gains: Tensor, prices: Tensor, step: Tensor) -> Tensor:
    """The price at which the gain of going on falls to zero.

    Args:
        gains: `[N, P]`, gain of going on at each price; made non-increasing by taking the mean of
            its least non-increasing majorant and its largest non-increasing minorant.
        prices: `[P]`, increasing.
        step: Cost of the next step, the slope of the gain beyond both ends.

    Returns:
        `[N]`: interpolated where the gain changes sign within the prices, extrapolated beyond.
    """
    if torch.compiler.is_compiling():  # ONNX lacks cummin and cummax
        columns = gains.unbind(1)
        least = torch.stack([*accumulate(columns, torch.minimum)], 1)
        most = torch.stack([*accumulate(reversed(columns), torch.maximum)], 1)
    else:
        least, most = gains.cummin(1).values, gains.flip(1).cummax(1).values
    falling = 0.5 * (least + most.flip(1))
    left = ((falling > 0).sum(1, keepdim=True) - 1).clamp(0, len(prices) - 2)
    pair = left + torch.arange(2, device=left.device)
    above, below = falling.gather(1, pair).unbind(1)
    lower, upper = prices[pair].unbind(1)
    share = (above / (above - below).clamp_min(1e-12)).clamp(0, 1)
    beyond = falling[:, 0].clamp_max(0) + falling[:, -1].clamp_min(0)
    return torch.lerp(lower, upper, share) + beyond / step


def gain_at(
    price: float, gains: list[float], prices: list[float], step: float
) -> tuple[float, float]:
    """The gain of one sample at a price, which is positive exactly below its `critical_price`.

    Returns:
        The gain, and by how much it falls between the neighboring prices.
    """
    inside = min(max(price, prices[0]), prices[-1])
    right = min(bisect_right(prices, inside), len(prices) - 1)
    least, most = min(gains[:right]), max(gains[right:])
    above = 0.5 * (least + max(gains[right - 1], most))
    below = 0.5 * (min(least, gains[right]) + most)
    share = (inside - prices[right - 1]) / (prices[right] - prices[right - 1])
    return above + share * (below - above) - step * (price - inside), above - below


class GainDecision:
    """Whether one sample leaves exit `k`: whether its gain at the threshold's price is negative.

    Args:
        k: Exit, from 0.
        weight: `[D + 1, 2 P]` float64, regressions of gain and cost with the bias in the last row.
        prices: P prices.
        step: Cost of the next step.
        confidence: Field of the evidence that decides for thresholds above the switch.
        switch: Score from which on it does.
    """

    def __init__(
        self,
        k: int,
        weight: NDArray[np.float64],
        prices: list[float],
        step: float,
        confidence: str,
        switch: float,
    ) -> None:
        self.k, self.weight, self.prices, self.step = k, weight, prices, step
        self.confidence, self.switch = confidence, switch
        # What rounding each input can add to a gain: float32's, for sums of so many terms.
        count = len(prices)
        self.size = (abs(weight[:, :count]) + prices * abs(weight[:, count:])).max(1)
        self.size[-1] += step * prices[-1]
        self.size *= len(self.size) * 2.0**-24

    def __call__(
        self, sample: SampleEvidence, threshold: float, state: Any
    ) -> tuple[bool | None, Any]:
        """See `ScalarDecision`."""
        inputs, state = sample_inputs(self.k, sample, state)
        if threshold > self.switch:  # there the order is that of a confidence
            sure = sample.at_most(self.confidence, math.exp(self.switch - threshold))
            if not sure:
                return sure, state
        inputs.append(1.0)
        x, doubt, step, count = np.array(inputs), scale(inputs[0]), self.step, len(self.prices)
        parts = (x @ self.weight).tolist()
        pairs = zip(parts[:count], parts[count:], self.prices, strict=True)
        gains = [doubt * g - price * (c if c > step else step) for g, c, price in pairs]
        gain, fall = gain_at(-min(threshold, self.switch), gains, self.prices, step)
        return reaches(-gain, 0.0, float(abs(x) @ self.size) + 1e-5 * fall), state
