"""An alarm for traffic that is not like the reference, with few false alarms however long it runs.

A conformal test martingale (Vovk et al. 2003, 2021): p-values of each sample among *all* before it,
reference included, are independent and uniform while all are exchangeable, so that a bet on where
they fall wins more than `1 / delta` with probability at most `delta`, ever. See docs/method.md.
"""

import random

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from eenet.outputs.evidence import Evidence

_BLOCK = 64
"""Samples that are looked at together: a bet is placed once for all of them."""
_PLACES = 20
"""Bins of p-values."""
_MEMORIES = (200.0, 1000.0, 5000.0)
"""Samples over which the plug-in bets remember p-values, one bet each."""
_CAUTION = 5.0
"""Pretended p-values in each bin."""
_LOGITS = (-6.0, 18.0, 96)
"""Range and number of the bins of a confidence's logit."""


class Bet:
    """Bets that values among `kinds` are not exchangeable; memory and time are those of counts.

    Args:
        kinds: Number of different values.
        seed: Seed of the tie breaking.
    """

    def __init__(self, kinds: int, seed: int = 0) -> None:
        self.counts = torch.zeros(kinds, dtype=torch.float64)
        self.most = 1.0  # the largest capital so far
        self._ties = random.Random(seed)
        self._blocks = 0
        self._memory = torch.tensor(_MEMORIES, dtype=torch.float64)
        self._seen = torch.zeros(len(_MEMORIES), _PLACES, dtype=torch.float64)
        self._staked = torch.zeros(len(_MEMORIES), dtype=torch.float64)

    def p_values(self, values: Tensor) -> Tensor:
        """P-values `[b]` float64 of the next values `[b]` (int64), which are then counted.

        Each is the share of all values so far, itself included, that are larger or, at random, tie.
        """
        places = torch.arange(len(self.counts))
        counts = self.counts + one_hot(values, len(places)).double().cumsum(0)
        larger = (counts * (places > values[:, None])).sum(1)
        ties = torch.tensor([self._ties.random() for _ in range(len(values))], dtype=torch.float64)
        tied = ties * counts.gather(1, values[:, None])[:, 0]
        before = float(self.counts.sum())
        self.counts = counts[-1]
        return (larger + tied) / torch.arange(before + 1, before + 1 + len(values))

    def update(self, values: Tensor) -> float:
        """Takes in the next values `[b]` (int64) and returns the largest capital so far."""
        p = self.p_values(values)
        bins = (p * _PLACES).long().clamp(max=_PLACES - 1)
        # The density expected of the p-values, from those of earlier blocks.
        expected = self._seen + _CAUTION
        density = _PLACES * expected / expected.sum(1, keepdim=True)
        # Part of the capital is not staked before later blocks: 1 / t - 1 / (t + 1) in block t.
        self._blocks += 1
        held = 1 / (self._blocks + 1)
        self._staked += 1 / self._blocks - held
        self._staked *= density[:, bins].log().sum(1).exp()
        self._staked.clamp_(max=1e100)
        fade = (-len(values) / self._memory).exp()[:, None]
        self._seen = fade * self._seen + one_hot(bins, _PLACES).sum(0)
        self.most = max(self.most, float(self._staked.mean()) + held)
        return self.most


class Alarm:
    """Bets on what every sample shows at the first exit: how sure it is, and of which class.

    Nothing else changes with the budget, the control or a deadline. The capitals of both bets stay
    below `2 / delta` for ever with probability `1 - delta` while the samples are exchangeable with
    the reference; without a reference, with each other.

    Args:
        classes: Number of classes.
        delta: Probability of a false alarm over any length of time.
        reference: What the first exit said of samples that nothing was fitted on, such as the test
            samples: logits `[N, C]` or pooled pixels `[N, C + 3]`.

    Raises:
        ValueError: If delta is not in (0, 1).
    """

    def __init__(self, classes: int, delta: float, reference: Tensor | None = None) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"alarm={delta}: the rate of false alarms must lie between 0 and 1")
        self.delta = delta
        self.bets = Bet(_LOGITS[2], seed=0), Bet(classes, seed=1)
        self._waiting: list[Tensor] = []
        if reference is not None:
            for bet, values in zip(self.bets, self._observed(reference), strict=True):
                bet.counts += torch.bincount(values, minlength=len(bet.counts))

    @property
    def p_value(self) -> float:
        """Probability of as much evidence of drift, at any time, where there is none."""
        return min(1.0, len(self.bets) / max(bet.most for bet in self.bets))

    @property
    def rings(self) -> bool:
        """Whether the p-value has reached delta, once and for all."""
        return self.p_value <= self.delta

    @property
    def advice(self) -> str | None:
        """Advice once it rings."""
        if not self.rings:
            return None
        return (
            f"alarm: the traffic is no longer like the reference (p = {self.p_value:.2g}): budgets "
            "and promises may not hold. Recalibrate or refit on it (no labels needed), or keep the "
            "cost by control=0.01"
        )

    def update(self, shown: Tensor) -> bool:
        """Takes in what the first exit says of the next samples, in blocks of 64 or more.

        Args:
            shown: `[b, C]` or `[b, C + 3]`, as the reference; kept until the block is full.

        Returns:
            Whether the alarm rings now and did not before.
        """
        self._waiting.append(shown)
        if sum(map(len, self._waiting)) < _BLOCK:
            return False
        before, block = self.rings, torch.cat(self._waiting)
        self._waiting.clear()
        for bet, values in zip(self.bets, self._observed(block), strict=True):
            bet.update(values)
        return self.rings and not before

    def _observed(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Bin of the confidence's logit, and class, of each sample; each `[b]` int64."""
        pooled = shown.shape[-1] > len(self.bets[1].counts)
        evidence = Evidence.from_pooled(shown) if pooled else Evidence.from_logits(shown)
        (low, high, bins), doubt = _LOGITS, evidence.one_minus_max.double()
        place = (torch.log1p(-doubt) - doubt.log() - low) * (bins / (high - low))
        place = place.nan_to_num(nan=0.0).clamp(0, bins - 1)
        return place.long().cpu(), evidence.prediction.cpu()
