"""Which samples continue: evidence, score and threshold of one exit as one small graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eenet.outputs import Evidence
from eenet.outputs.evidence import pool_pixels
from eenet.policies import Policy
from eenet.policies.eenet_plus_inputs import WIDEST
from eenet.policies.single_sample import SampleEvidence


class Decision(nn.Module):
    """Decides at one exit.

    Args:
        scorer: Gives the scores.
        k: The exit, from 0.
    """

    def __init__(self, scorer: Policy, k: int) -> None:
        super().__init__()
        self.scorer, self.k, self.single = scorer, k, scorer.decide_one(k)

    def forward(self, logits: Tensor, threshold: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """A mask `[B]` of the samples that stay, and the next state; logits are `[B, C, ...]`."""
        view = policy_view(logits)
        evidence = Evidence.from_logits(view) if view is logits else Evidence.from_pooled(view)
        score, state = self.scorer.step(self.k, evidence, state)
        return ~(score >= threshold), state


class SingleSample:
    """The only sample of a batch, decided in plain Python where float32 is sure to agree.

    Elsewhere, and for policies that have no such way, the graphs decide.

    Args:
        chain: The graphs, one for each exit but the last.
        thresholds: As many numbers, or more.
    """

    def __init__(self, chain: Sequence[Decision], thresholds: Sequence[float]) -> None:
        self.chain, self.thresholds = chain, thresholds
        self.seen: list[Tensor] = []
        self.plain, self.state = True, None
        self.asked, self.memory = 0, None  # how many exits the graphs have seen, and their state

    def stays(self, logits: Tensor) -> bool:
        """Whether the sample continues, by the logits `[1, C, ...]` of the next exit."""
        k, leaves = len(self.seen), None
        self.seen.append(logits)
        single = self.chain[k].single
        if single and self.plain and logits.dim() == 2 and logits.shape[1] <= WIDEST:
            sample = SampleEvidence.from_logits(logits.tolist()[0])
            self.plain = sample is not None
            if sample:
                leaves, self.state = single(sample, self.thresholds[k], self.state)
        if leaves is None:
            for j in range(self.asked, k + 1):
                threshold = torch.tensor(self.thresholds[j])
                stays, self.memory = self.chain[j](self.seen[j], threshold, self.memory)
            self.asked, leaves = k + 1, not stays
        return not leaves


def decisions(scorer: Policy, exits: int) -> list[Decision]:
    """The decisions at all exits but the last."""
    return [Decision(scorer, k) for k in range(exits - 1)]


def policy_view(logits: Tensor) -> Tensor:
    """Logits as policies see them: `[B, C]` as they are, those of pixels pooled to `[B, C + 3]`."""
    return logits if logits.dim() == 2 else pool_pixels(logits)
