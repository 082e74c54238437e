"""Who goes on: evidence, score and threshold of one exit as one small graph."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from eenet.scheduling import Evidence, Policy
from eenet.scheduling.evidence import pool_pixels
from eenet.scheduling.inputs import WIDEST
from eenet.scheduling.single import Sample


class Decision(nn.Module):
    """Decides at one exit; the scorer's state goes in and out as a flat list of tensors.

    Args:
        scorer: Gives the scores.
        k: The exit, from 0.
        forms: Nesting of the scorer's states, by exit; shared by the decisions of one scorer.
    """

    def __init__(self, scorer: Policy, k: int, forms: dict[int, Any]) -> None:
        super().__init__()
        self.scorer, self.k, self.forms = scorer, k, forms
        self.single = scorer.single(k)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """From logits `[B, C, ...]`, threshold and state: a mask `[B]` of who stays, and state."""
        logits, threshold, *memory = tensors
        seen = shown(logits)
        evidence = Evidence.from_logits(seen) if seen is logits else Evidence.from_pooled(seen)
        state = pytree.tree_unflatten(memory, self.forms[self.k]) if memory else None
        score, state = self.scorer.step(self.k, evidence, state)
        leaves, self.forms[self.k + 1] = pytree.tree_flatten(state)
        return ~(score >= threshold), *(leaf for leaf in leaves if isinstance(leaf, Tensor))


class Alone:
    """The only sample of a batch, decided in plain Python where float32 is sure to agree.

    Elsewhere, and for policies that have no such way, the graphs decide.

    Args:
        chain: The graphs, one for each exit but the last.
        thresholds: As many numbers, or more.
    """

    def __init__(self, chain: Sequence[Decision], thresholds: Sequence[float]) -> None:
        self.chain, self.thresholds = chain, thresholds
        self.seen: list[Tensor] = []
        self.memory: list[Tensor] = []  # of the graphs, which have seen `asked` exits
        self.asked, self.plain, self.state = 0, True, None

    def stays(self, logits: Tensor) -> bool:
        """Whether the sample goes on, by the logits `[1, C, ...]` of the next exit."""
        k, leaves = len(self.seen), None
        self.seen.append(logits)
        single = self.chain[k].single
        if single and self.plain and logits.dim() == 2 and logits.shape[1] <= WIDEST:
            sample = Sample.from_logits(logits[0].tolist())
            self.plain = sample is not None
            if sample:
                leaves, self.state = single(sample, self.thresholds[k], self.state)
        if leaves is None:
            for j in range(self.asked, k + 1):
                threshold = torch.tensor(self.thresholds[j])
                stays, *self.memory = self.chain[j](self.seen[j], threshold, *self.memory)
            self.asked, leaves = k + 1, not stays
        return not leaves


def decisions(scorer: Policy, exits: int) -> list[Decision]:
    """The decisions at all exits but the last, on a copy of the scorer that asks no tensor."""
    frozen = copy.deepcopy(scorer).requires_grad_(False)
    for name, buffer in list(frozen.named_buffers(recurse=False)):
        if buffer.dim() == 0:  # a graph cannot branch on what a tensor holds
            delattr(frozen, name)
            setattr(frozen, name, buffer.item())
    forms: dict[int, Any] = {}
    return [Decision(frozen, k, forms) for k in range(exits - 1)]


def shown(logits: Tensor) -> Tensor:
    """What policies see: logits `[B, C]` as they are, those of pixels pooled to `[B, C + 3]`."""
    return logits if logits.dim() == 2 else pool_pixels(logits)
