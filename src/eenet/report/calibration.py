"""How far an exit's confidence can be trusted."""

from typing import Any

import torch
from torch import Tensor

from eenet.scheduling import ExitOutputs

_BINS = 10


def reliability(outputs: ExitOutputs) -> list[dict[str, Any]]:
    """Reliability diagram and expected calibration error of each exit (Guo et al. 2017).

    For segmentation a point is an image: its mean confidence over all pixels against the share of
    its labelled pixels that are right.

    Args:
        outputs: Labelled outputs.

    Returns:
        For each exit "confidence", "right" (means in each of ten equal bins of confidence, NaN in
        empty ones), "count" and "ece", the mean distance of the two weighted by the counts. Empty
        without labels.
    """
    evidence = outputs.evidence()
    confidence = (1 - evidence.one_minus_max).double()
    if outputs.confusion is not None:
        counts = outputs.confusion.double()
        hits, labelled = counts.diagonal(dim1=-2, dim2=-1).sum(-1), counts.sum((-2, -1))
        right = hits / labelled.clamp_min(1)
    elif outputs.labels is not None:
        right = (evidence.prediction == outputs.labels).double()
    else:
        return []
    return [_diagram(*pair) for pair in zip(confidence, right, strict=True)]


def _diagram(confidence: Tensor, right: Tensor) -> dict[str, Any]:
    bins = (confidence * _BINS).long().clamp_max(_BINS - 1)
    empty = torch.zeros(_BINS, dtype=torch.float64)
    count = empty.scatter_add(0, bins, torch.ones_like(right))
    sums = [empty.scatter_add(0, bins, values) for values in (confidence, right)]
    error = (sums[0] - sums[1]).abs().sum() / len(right)
    return {
        "confidence": sums[0] / count,
        "right": sums[1] / count,
        "count": count,
        "ece": float(error),
    }
