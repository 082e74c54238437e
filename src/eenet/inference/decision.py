"""Who goes on: evidence, score and threshold of one exit as one small graph."""

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from eenet.scheduling import Evidence, Scorer
from eenet.scheduling.evidence import pool_pixels


class Decision(nn.Module):
    """Decides at one exit; the scorer's state goes in and out as a flat list of tensors.

    Args:
        scorer: Gives the scores.
        k: The exit, from 0.
        forms: Nesting of the scorer's states, by exit; shared by the decisions of one scorer.
    """

    def __init__(self, scorer: Any, k: int, forms: dict[int, Any]) -> None:
        super().__init__()
        self.policy = getattr(scorer, "policy", scorer)  # so that its tensors are found
        self.scorer, self.k, self.forms = scorer, k, forms
        self._traced: list[Any] = []

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """From logits `[B, C, ...]`, threshold and state: a mask `[B]` of who stays, and state."""
        logits, threshold, *memory = tensors
        seen = shown(logits)
        evidence = Evidence.from_logits(seen) if seen is logits else Evidence.from_pooled(seen)
        state = pytree.tree_unflatten(memory, self.forms[self.k]) if memory else None
        score, state = self.scorer.step(self.k, evidence, state)
        leaves, self.forms[self.k + 1] = pytree.tree_flatten(state)
        return ~(score >= threshold), *(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def quick(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The same for one sample, traced, with the policy's tensors as constants of the graph."""
        if not self._traced:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                traced = torch.jit.trace(self.eval(), tensors, check_trace=False)  # type: ignore
                self._traced.append(torch.jit.freeze(traced))
        result: tuple[Tensor, ...] = self._traced[0](*tensors)
        return result


def decisions(scorer: Scorer, exits: int) -> list[Decision]:
    """The decisions at all exits but the last, on a copy of the scorer that asks no tensor."""
    frozen: Any = copy.deepcopy(scorer)
    policy: nn.Module = getattr(frozen, "policy", frozen).requires_grad_(False)
    for name, buffer in list(policy.named_buffers(recurse=False)):
        if buffer.dim() == 0:  # a graph cannot branch on what a tensor holds
            delattr(policy, name)
            setattr(policy, name, buffer.item())
    forms: dict[int, Any] = {}
    return [Decision(frozen, k, forms) for k in range(exits - 1)]


def shown(logits: Tensor) -> Tensor:
    """What policies see: logits `[B, C]` as they are, those of pixels pooled to `[B, C + 3]`."""
    return logits if logits.dim() == 2 else pool_pixels(logits)
