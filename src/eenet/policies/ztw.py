"""Zero Time Waste: confidence of an ensemble of the exits so far."""

from functools import lru_cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from eenet.outputs.evidence import Evidence
from eenet.outputs.exit_outputs import ExitOutputs
from eenet.policies.heuristics import HeuristicPolicy

_STEPS = 200
"""Steps of descent, with a learning rate that falls linearly to zero."""
_LEAST = -87.0
"""Least log-probability, about that of float32's least normal number."""
_BATCH = 2**20
"""Most probabilities of an exit in a step, which bounds time and memory with many classes."""
_RATE = 0.05
"""Learning rate at the start; Adam moves no parameter by much more in a step, so fits stay finite
where the exits are always right."""


class ZTW(HeuristicPolicy):
    """Leave where an ensemble of the exits so far is sure (Zero Time Waste, Wolczyk et al. 2021).

    `p_k = softmax(sum_{j <= k} exp(w_kj) log p_j + b_k)`, a weighted geometric mean, is trained by
    cross-entropy on the outputs of the frozen exits; the score is its largest probability. As in
    the code that the authors released, the last exit has no ensemble. The paper has one threshold
    for all exits.

    Only the confidence is ZTW's: answers remain those of the exit where a sample leaves, as for all
    policies, while the paper answers with the ensemble. Its cascade connections, which are part of
    the network, are not here either.

    Args:
        common: Whether all exits share one threshold.
    """

    label, usually_common = "ztw", True
    sized_by_data = (*HeuristicPolicy.sized_by_data, "weights", "bias")
    weights: Tensor  # [E, E], exp(w)
    bias: Tensor  # [E, C]

    def __init__(self, common: bool = True) -> None:
        super().__init__(common)

    def fit(self, outputs: ExitOutputs) -> Self:
        """Trains the ensembles on the labels, or without labels on the last exit's probabilities.

        Images of a segmentation count with their mean class probabilities, without labels.
        """
        self.weights, self.bias = _train(outputs)
        return super().fit(outputs)

    @property
    def fitted_classes(self) -> int | None:
        """Number of classes, each of which has a bias."""
        return self.bias.shape[1] if self.fitted else None

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by `max_c p_c - 1` of the ensemble; the state holds log p of the exits so far."""
        seen = (*(state or ()), evidence.log_probs.clamp_min(_LEAST))
        weighted = [w * x for w, x in zip(self.weights[k, : k + 1], seen, strict=True)]
        logits = sum(weighted, self.bias[k])
        return -Evidence.from_logits(logits).one_minus_max, seen


@torch.enable_grad()
def _train(outputs: ExitOutputs) -> tuple[Tensor, Tensor]:
    """Weights `[E, E]` and biases `[E, C]` of the ensembles with the least cross-entropy."""
    labels = outputs.labels if outputs.logits is not None else None
    exits, classes = outputs.num_exits, outputs.num_classes
    parts = -(-outputs.num_samples * classes // _BATCH)

    @lru_cache(1)
    def batch(part: int) -> tuple[Tensor, Tensor]:
        rows = slice(part, None, parts)  # evenly spaced, as files may be sorted by class
        log_probs = outputs.evidence(rows).log_probs.clamp_min(_LEAST)
        return log_probs, log_probs[-1].exp() if labels is None else labels[rows]

    device = outputs.costs.device
    w = -torch.ones(exits, exits, device=device).cumsum(0).log()  # plain geometric means
    bias = torch.zeros(exits, classes, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([w.requires_grad_(), bias], _RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / _STEPS, _STEPS)
    for n in range(_STEPS):
        log_probs, target = batch(n % parts)
        optimizer.zero_grad()
        for k in range(exits - 1):
            weights = w[k, : k + 1].exp()
            logits = torch.einsum("j,jnc->nc", weights, log_probs[: k + 1]) + bias[k]
            F.cross_entropy(logits, target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    weights = w.detach().exp().tril()
    weights[-1] = torch.eye(exits, device=device)[-1]
    return weights, bias.detach()
