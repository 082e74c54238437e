"""What EENet+ reads off the exits: the same number of inputs at every exit."""

import math
from operator import add
from typing import Any

import torch
from torch import Tensor

from eenet.outputs.evidence import Evidence
from eenet.policies.single_sample import SampleEvidence

CORE = 5
"""The first inputs are plain confidences, the basis that every penalty spares."""
WIDEST = 128
"""With more classes than this nothing is learned for each class: too few samples of each."""
_TOP = 5


def input_groups(classes: int) -> dict[str, int]:
    """How many of the inputs of `exit_inputs` have which meaning, in their order."""
    groups = {"plain confidences": CORE, "top probabilities": 2 * min(_TOP, classes)}
    groups["agreement of exits"] = 2
    if classes <= WIDEST:
        groups |= {"probability of each class": 2 * classes, "class predicted": 2 * classes}
    return groups


def exit_inputs(k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
    """Inputs `[N, D]` float32 of the samples at exit k, and the state for the next exit.

    In the order of `input_groups`: plain confidences (`1 - max p` first, the log-odds of max p, its
    variance, margin, entropy); the highest log-probabilities and probabilities; agreement with the
    exits before (votes and mean probability of the class now predicted); and, with at most 128
    classes, the log-probability and the probability of each class, the class predicted, and that
    times `1 - max p`.

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
    if classes <= WIDEST:
        columns += [log_probs, probs, one_hot, one_hot * doubt[:, None]]
    return torch.cat(columns, -1), (votes, summed)


def sample_inputs(k: int, sample: SampleEvidence, state: Any) -> tuple[list[float], Any]:
    """`exit_inputs` of one sample of at most `WIDEST` classes; the state is changed in place."""
    log_probs, probs = sample.log_probs, sample.probs
    if min(log_probs) < -15.0:
        floor = math.exp(-15.0)
        log_probs = [max(value, -15.0) for value in log_probs]
        probs = [max(value, floor) for value in probs]
    doubt, predicted = min(max(sample.one_minus_max, 1e-6), 1 - 1e-6), sample.predicted
    nothing = [0.0] * len(probs)
    votes, summed = state or (nothing.copy(), nothing)
    votes[predicted] += 1.0
    summed = [*map(add, summed, probs)]

    log_odds, margin = math.log1p(-doubt) - math.log(doubt), 1 - sample.one_minus_margin
    core = [doubt, log_odds, (1 - doubt) * doubt, margin, sample.entropy]
    top = [sorted(values, reverse=True)[:_TOP] for values in (log_probs, probs)]
    agreement = [votes[predicted] / (k + 1), summed[predicted] / (k + 1)]
    shown = [*core, *top[0], *top[1], *agreement, *log_probs, *probs, *nothing, *nothing]
    shown[predicted - 2 * len(probs)] = 1.0
    shown[predicted - len(probs)] = doubt
    return shown, (votes, summed)
