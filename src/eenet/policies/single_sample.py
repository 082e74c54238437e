"""One sample at one exit in plain Python, where a tensor operation costs as much as ten classes."""

import math
from collections.abc import Callable
from operator import mul
from typing import Any, NamedTuple

CLOSE = 1e-4
"""Relative distance within which float32 and float64 may disagree, with a wide margin."""


class SampleEvidence(NamedTuple):
    """`Evidence` of one exit for one sample, in float64, and the class predicted."""

    log_probs: list[float]
    probs: list[float]
    one_minus_max: float
    entropy: float
    one_minus_margin: float
    predicted: int

    @classmethod
    def from_logits(cls, logits: list[float]) -> "SampleEvidence | None":
        """None where rounding may decide which class is predicted, or a logit is infinite."""
        first, second = sorted(logits)[:-3:-1]
        if not 1e-5 < first - second < math.inf:
            return None
        predicted = logits.index(first)
        odds = [math.exp(z - first) for z in logits]
        odds[predicted] = 0.0
        rest = sum(odds)
        odds[predicted] = 1.0
        shift, total = first + math.log1p(rest), 1.0 + rest
        log_probs, probs = [z - shift for z in logits], [o / total for o in odds]
        entropy = -sum(map(mul, probs, log_probs)) / math.log(len(logits))
        margin = (rest + math.exp(second - first)) / total
        return cls(log_probs, probs, rest / total, entropy, margin, predicted)

    def at_most(self, field: str, limit: float) -> bool | None:
        """Whether an uncertainty is at most `limit`; None where rounding may decide."""
        value: float = getattr(self, field)
        # Entropy has the absolute error of log p near p = 1; the others are sums of small numbers.
        return reaches(limit, value, CLOSE * value + (1e-6 if field == "entropy" else 1e-30))


ScalarDecision = Callable[[SampleEvidence, float, Any], tuple[bool | None, Any]]
"""Whether a sample leaves an exit, by what it shows, the threshold and the state the exit before
left (None at the first): None where float32 may disagree, so that scores have to be computed as
they are for many samples. Returns the state for the next exit too, which it may change in place."""


def reaches(score: float, threshold: float, rounding: float) -> bool | None:
    """Whether a score reaches a threshold; None if they are closer than rounding, or NaN."""
    gap = score - threshold
    return gap > 0 if abs(gap) > rounding else None
