"""How far an exit's confidence can be trusted."""

from typing import Any

import torch
from torch import Tensor

from eenet.outputs import ExitOutputs

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
    weights = torch.ones_like(right), confidence, right
    count, sure, hit = (bars(confidence, weight, _BINS) for weight in weights)
    error = (sure - hit).abs().sum(1) / right.shape[1]
    fields = zip(sure / count, hit / count, count, error.tolist(), strict=True)
    return [dict(zip(("confidence", "right", "count", "ece"), own, strict=True)) for own in fields]


def bars(places: Tensor, weights: Tensor, bins: int) -> Tensor:
    """Histogram `[E, bins]` of places `[E, N]` in [0, 1], each counted with its weight."""
    empty = torch.zeros(len(places), bins, dtype=torch.float64)
    return empty.scatter_add(1, (places * bins).long().clamp_max(bins - 1), weights)
