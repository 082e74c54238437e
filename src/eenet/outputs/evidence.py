"""What the exits show about samples, and the confidences derived from it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Evidence(NamedTuple):
    """Evidence about N samples from one exit (leading shape `[N]`) or all exits (`[E, N]`).

    The three uncertainties are complements of the usual confidences, since float32 can tell
    1e-9 from 2e-9 but not `1 - 1e-9` from `1 - 2e-9`: confident networks would tie by the hundred.
    For classification they are computed from the logits; for segmentation each field is the mean
    over the pixels of an image (`log_probs` the logarithm of the mean).
    """

    log_probs: Tensor
    """`[..., N, C]`: logarithm of the class probabilities p."""
    one_minus_max: Tensor
    """`[..., N]`: `1 - max_c p_c`."""
    entropy: Tensor
    """`[..., N]`: `-sum_c p_c log p_c / log C`, in [0, 1]."""
    one_minus_margin: Tensor
    """`[..., N]`: `1 - (p_first - p_second)`, of the two most probable classes."""

    @classmethod
    def from_logits(cls, logits: Tensor) -> "Evidence":
        """Evidence of classification logits `[..., N, C]`, C at least 2; half becomes float32."""
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        probs = log_probs.exp()
        top = probs.topk(2, dim=-1)
        rest = probs.scatter(-1, top.indices[..., :1], 0.0).sum(-1)
        entropy = -(probs * log_probs).sum(-1) / math.log(logits.shape[-1])
        return cls(log_probs, rest, entropy, rest + top.values[..., 1])

    @classmethod
    def from_pooled(cls, pooled: Tensor) -> "Evidence":
        """Evidence of what `pool_pixels` gives, `[..., N, C + 3]`."""
        probs, rest = pooled[..., :-3], pooled[..., -3:].float()
        tiny = torch.finfo(torch.float32).tiny
        return cls(probs.float().clamp_min(tiny).log(), *rest.unbind(-1))

    def at(self, k: int) -> "Evidence":
        """The evidence of exit `k` (from 0) out of that of all exits."""
        return Evidence(*(field[k] for field in self))

    @property
    def prediction(self) -> Tensor:
        """`[..., N]`: the most probable class, int64."""
        return self.log_probs.argmax(-1)


def along_exits(step: Callable[[int, Evidence, Any], Any], evidence: Evidence) -> list[Any]:
    """Runs `step` exit by exit and collects its results.

    Args:
        step: From an exit (from 0), what it shows, and the state that the exit before left (None
            at the first), to what it gives and the next state.
        evidence: Evidence of all exits.
    """
    found, state = [], None
    for k in range(len(evidence.entropy)):
        given, state = step(k, evidence.at(k), state)
        found.append(given)
    return found


def pool_pixels(logits: Tensor) -> Tensor:
    """Pools segmentation logits over the pixels of each image, for policies to see.

    A whole image leaves or continues, so a policy needs numbers per image. Means are pooled: the
    mean of a pixel's uncertainty tells the share of doubtful pixels, where the maximum would
    always be that of some contour; the uncertainty of the mean probabilities would tell only how
    mixed the scene is. Every pixel counts, since at run time none is known to be
    unlabelled.

    Args:
        logits: `[..., N, C, h, w]`, at the network's stride.

    Returns:
        `[..., N, C + 3]` float32: mean class probabilities (what the scene shows), then the means
        of `one_minus_max`, `entropy` and `one_minus_margin`.
    """
    pixels = Evidence.from_logits(logits.movedim(-3, -1))
    shown = torch.cat([pixels.log_probs.exp(), torch.stack(pixels[1:], dim=-1)], dim=-1)
    return shown.mean(dim=(-3, -2))


def count_votes(votes: Tensor | None, evidence: Evidence) -> Tensor:
    """Adds one exit's prediction to the votes of the exits before.

    Args:
        votes: `[N, C]` numbers of votes so far, None before the first exit.
        evidence: Evidence of one exit.

    Returns:
        New counts `[N, C]`, float32. The vote confidence of exit k (from 0), `a_vote` in EENet,
        is their maximum over the classes divided by k + 1.
    """
    vote = torch.zeros_like(evidence.log_probs)
    vote.scatter_(-1, evidence.prediction[:, None], 1.0)
    return vote if votes is None else votes + vote
