"""Losses of multi-exit training (Ilhan et al. 2024, section 3.1; Kaya et al. 2019)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ExitWeighting = Literal["linear", "uniform"] | Sequence[float]


def exit_weights(weighting: ExitWeighting, num_exits: int) -> Tensor:
    """Weights `gamma_k` of the exits' losses, summing to 1.

    Args:
        weighting: "linear" for `2k / (E (E + 1))` (k from 1), "uniform" for `1 / E`, or one
            non-negative number per exit, which is scaled to sum to 1.
        num_exits: Number of exits E.

    Returns:
        Weights `[E]`, float32.

    Raises:
        ValueError: If a list has the wrong length, a negative entry or no positive one.
    """
    if weighting == "linear":
        weights = torch.arange(1.0, num_exits + 1)
    elif weighting == "uniform":
        weights = torch.ones(num_exits)
    else:
        weights = torch.tensor(weighting, dtype=torch.float32)
        if weights.shape != (num_exits,) or weights.min() < 0 or weights.sum() <= 0:
            raise ValueError(
                f"exit_weights={weighting!r} must be 'linear', 'uniform' or {num_exits} "
                "non-negative numbers, one per exit, not all zero"
            )
    return weights / weights.sum()


def multi_exit_cross_entropy(
    logits: Tensor | Sequence[Tensor], target: Tensor, weights: Tensor, ignore_index: int = -100
) -> Tensor:
    """Weighted cross-entropy of all exits, `sum_k gamma_k CE(z_k, y)`.

    Args:
        logits: `[E, B, C, ...]`, or one `[B, C, ...]` per exit.
        target: Class indices `[B, ...]`, int64.
        weights: `[E]`.
        ignore_index: Target that does not count.

    Returns:
        A scalar, 0 where no target counts.
    """
    losses = [F.cross_entropy(z, target, ignore_index=ignore_index) for z in logits]
    loss = (torch.stack(losses) * weights).sum()
    return loss.where((target != ignore_index).any(), 0)


def upsample_to_labels(logits: Tensor, target: Tensor) -> Tensor:
    """Logits `[B, C, h, w]` enlarged bilinearly to targets `[B, H, W]`; others as they are.

    The logits grow rather than the labels shrink, as is usual, so that thin things count.
    """
    if logits.dim() == 2 or logits.shape[2:] == target.shape[1:]:
        return logits
    return F.interpolate(logits, target.shape[1:], mode="bilinear")


def self_distillation(logits: Tensor, weights: Tensor, temperature: float = 3.0) -> Tensor:
    """Pulls every exit towards the last one: `T^2 KL(softmax(z_E / T) || softmax(z_k / T))`.

    Args:
        logits: `[E, B, C, ...]`, maps at the network's stride; the last exit is the teacher and
            gets no gradient from this.
        weights: `[E]`; the last one is not used.
        temperature: T.

    Returns:
        A scalar, the mean over the samples of the weighted sum over the exits.
    """
    teacher = F.log_softmax(logits[-1].detach() / temperature, dim=1)
    students = F.log_softmax(logits[:-1] / temperature, dim=2)
    divergence = (teacher.exp() * (teacher - students)).sum(dim=2)
    per_exit = divergence.flatten(1).mean(dim=1)
    return temperature**2 * (per_exit * weights[:-1]).sum()
