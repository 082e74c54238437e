"""What EENet+ reads off the exits: the same number of inputs at every exit."""

from typing import Any

import torch
from torch import Tensor

from eenet.scheduling.evidence import Evidence

CORE = 5
"""The first inputs are plain confidences, the basis that every penalty spares."""
_WIDEST = 128
"""With more classes than this nothing is learned for each class: too few samples of each."""
_TOP = 5


def exit_inputs(k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
    """Inputs `[N, D]` float32 of the samples at exit k, and the state for the next exit.

    In order: plain confidences (`1 - max p` first, the log-odds of max p, its variance, margin,
    entropy); the highest log-probabilities and probabilities; agreement with the exits before
    (votes and mean probability of the class now predicted); and, with at most 128 classes, the
    log-probability and the probability of each class, the class predicted, and that times
    `1 - max p`.

    Args:
        k: Exit, from 0.
        evidence: What it shows.
        state: From exit k-1, None at k = 0: votes and summed probabilities, both `[N, C]`.
    """
    log_probs = evidence.log_probs.clamp_min(-15.0)  # far tails would be outliers
    probs = log_probs.exp()
    classes = log_probs.shape[-1]
    doubt = evidence.one_minus_max.clamp(1e-6, 1 - 1e-6)
    log_odds = torch.log1p(-doubt) - doubt.log()
    margin = 1 - evidence.one_minus_margin
    top = log_probs.topk(min(_TOP, classes), dim=-1)
    predicted = top.indices[:, :1]

    one_hot = torch.zeros_like(probs).scatter_(1, predicted, 1.0)
    votes, summed = (state[0] + one_hot, state[1] + probs) if state else (one_hot, probs)
    agreement = torch.cat([votes.gather(1, predicted), summed.gather(1, predicted)], 1) / (k + 1)

    core = torch.stack([doubt, log_odds, (1 - doubt) * doubt, margin, evidence.entropy], -1)
    columns = [core, top.values, top.values.exp(), agreement]
    if classes <= _WIDEST:
        columns += [log_probs, probs, one_hot, one_hot * doubt[:, None]]
    return torch.cat(columns, -1), (votes, summed)
