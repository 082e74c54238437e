"""The EENet scheduler (Ilhan et al. 2024, section 3.2 and 3.3), one fit per budget in one bank."""

import math
from dataclasses import dataclass
from operator import mul
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eenet.outputs.evidence import Evidence, along_exits, count_votes
from eenet.outputs.exit_outputs import ExitOutputs
from eenet.policies.learned import BankLinear, LearnedPolicy
from eenet.policies.single_sample import CLOSE, SampleEvidence, ScalarDecision, reaches

_EPS = 1e-6


class EENet(LearnedPolicy):
    """Learned exit scores and a learned exit distribution, fitted for each budget asked for.

    At exit k the score is a linear function, and the exit assignment a two-layer perceptron, of
    the class probabilities, the confidences `[a_max, a_ent, a_vote]` and the scores of the exits
    before. The budget is part of the loss, so the policy is a bank of M independent fits that
    share their batches; other budgets are refused.

    The fits start where the score of an exit is a logistic function of `a_max` alone, as in the
    schedulers that the authors released, and the assignment is uniform.

    Departures from the authors' code (scores as logits, no sigmoid before the softmax, a tilt that
    meets the budget) and their reasons are in docs/method.md.

    Args:
        hidden: Hidden width of the assignment over its input width (the paper: 0.5 for images,
            2 for text).
        alpha_ce: Weight of the assignment's divergence from its targets.
        alpha_cost: Weight of the distance to the budget.
        beta: Exponent of the scores in the assignment's targets.
        alternate: Epochs after which score and assignment take turns.
        weight_scores: Weight the score's loss by the assignment (ablation: uniform weights).
        probs: Show the class probabilities to both parts.
        vote: Show `a_vote` to both parts.
        past_scores: Show the scores of the exits before to both parts.
        exit_distribution: "learned", "geometric" as in MSDNet, or whatever comes of a "common"
            threshold; the latter two leave the assignment only its part in the weights.
        start: "max_prob", at a tenth of stage 2's learning rate, or "random" parameters.
        label: Name in tables; give ablations names of their own.
    """

    label = "eenet"

    def __init__(
        self,
        hidden: float = 0.5,
        alpha_ce: float = 1e-3,
        alpha_cost: float = 1e-2,
        beta: float = 1.0,
        alternate: int = 10,
        weight_scores: bool = True,
        probs: bool = True,
        vote: bool = True,
        past_scores: bool = True,
        exit_distribution: Literal["learned", "geometric", "common"] = "learned",
        start: Literal["max_prob", "random"] = "max_prob",
        label: str = "eenet",
    ) -> None:
        super().__init__()
        if exit_distribution not in ("learned", "geometric", "common"):
            raise ValueError(f"{exit_distribution=} must be 'learned', 'geometric' or 'common'")
        if start not in ("max_prob", "random"):
            raise ValueError(f"{start=} must be 'max_prob' or 'random'")
        for name, value in (("hidden", hidden), ("alternate", alternate), ("beta", beta)):
            if not value > 0:
                raise ValueError(f"{name}={value} must be positive")
        self.hidden = hidden
        self.alpha_ce = alpha_ce
        self.alpha_cost = alpha_cost
        self.beta = beta
        self.alternate = alternate
        self.weight_scores = weight_scores
        self.probs = probs
        self.vote = vote
        self.past_scores = past_scores
        self.exit_distribution, self.common = exit_distribution, exit_distribution == "common"
        self.begin_at, self.rate = start, 0.1 if start == "max_prob" else 1.0
        self.label = label

    def build(self, members: int, exits: int, classes: int) -> None:
        """See `LearnedPolicy.build`."""
        self.score, self.assign = nn.ModuleList(), nn.ModuleList()
        for k in range(exits):
            width = classes * self.probs + 2 + self.vote + k * self.past_scores
            hidden = max(1, math.ceil(self.hidden * width))
            self.score.append(BankLinear(members, width, 1))
            first, last = BankLinear(members, width, hidden), BankLinear(members, hidden, 1)
            self.assign.append(nn.Sequential(first, nn.ReLU(), last))

    @torch.no_grad()
    def start(self, outputs: ExitOutputs) -> None:
        """Starts the scores as a logistic regression on `a_max`, and the assignments uniform."""
        if self.begin_at == "random":
            return
        sure = outputs.map(lambda evidence: 1 - evidence.one_minus_max)
        quality, place = outputs.learning_quality(), int(self.sizes[2]) * self.probs
        units: Any = [*self.score, *(assign[-1] for assign in self.assign)]  # type: ignore[index]
        for parameter in (p for unit in units for p in unit.parameters()):
            parameter.zero_()
        for unit, *samples in zip(units, sure, quality, strict=False):
            slope, bias = logistic(*samples)
            unit.weight[:, place] = slope
            unit.bias += bias

    def loss(self, evidence: Evidence, quality: Tensor, epoch: int) -> Tensor:
        """Loss of the part whose turn it is: scores first, then the assignment."""
        scores, assignment = self._forward(evidence)
        if (epoch // self.alternate) % 2 == 0:
            return self._score_loss(scores, assignment.detach(), quality).sum()
        return self._assign_loss(scores.detach(), assignment).sum()

    @torch.no_grad()
    def held_out_loss(self, evidence: Evidence, quality: Tensor) -> Tensor:
        """Sum of both losses, `[M]`."""
        scores, assignment = self._forward(evidence)
        return self._score_loss(scores, assignment, quality) + self._assign_loss(scores, assignment)

    def _score_loss(self, scores: Tensor, assignment: Tensor, quality: Tensor) -> Tensor:
        """`1/E sum_k sum_n w_nk BCE(s_nk, q_nk)` of each fit, `[M]`."""
        weights = assignment if self.weight_scores else torch.ones_like(assignment)
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(_EPS)
        quality = quality.expand_as(scores)
        errors = F.binary_cross_entropy_with_logits(scores, quality, reduction="none")
        return (weights * errors).sum(-1).mean(-1)

    def _assign_loss(self, scores: Tensor, assignment: Tensor) -> Tensor:
        """`alpha_ce KL(t || r) + alpha_cost |cost - B| / B` of each fit, `[M]`."""
        targets = (scores.sigmoid() + _EPS) ** self.beta
        targets = targets / targets.sum(1, keepdim=True)
        divergence = (targets * (targets.log() - (assignment + _EPS).log())).sum(1).mean(-1)
        spent = (assignment.mean(-1) * self.costs.to(assignment)).sum(1)
        miss = (spent - self.budgets).abs() / self.budgets
        return self.alpha_ce * divergence + self.alpha_cost * miss

    def exit_shares(self, evidence: Evidence) -> Tensor:
        """The mean assignment, or uniform shares, which tilting makes geometric."""
        shares = self._forward(evidence)[1].mean(-1)
        return shares if self.exit_distribution == "learned" else torch.ones_like(shares)

    @torch.no_grad()
    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by the score logits of a member."""
        (score, _), state = self.exit_scores(k, evidence, state)
        return score[0], state

    def decide_one(self, k: int) -> ScalarDecision:
        """See `Policy.decide_one`."""
        unit: Any = self.score[k]
        weight, bias = unit.weight[self.chosen][0, :, 0].tolist(), unit.bias[self.chosen].item()
        rounding = CLOSE * (sum(map(abs, weight)) + abs(bias))  # no input is larger than 1
        shown = self.probs, self.vote, self.past_scores
        return _LinearDecision(k, weight, bias, rounding, *shown)

    def _forward(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Score logits and assignments, both `[M, E, N]`."""
        scores, inputs = zip(*along_exits(self.exit_scores, evidence), strict=True)
        heights = [a(x).squeeze(-1) for a, x in zip(self.assign, inputs, strict=True)]
        return torch.stack(scores, 1), torch.stack(heights, 1).softmax(1)

    def exit_scores(
        self, k: int, evidence: Evidence, state: Any
    ) -> tuple[tuple[Tensor, Tensor], Any]:
        """Score logits `[m, N]` at exit k with their input `[m, N, D]`, and the next state.

        The state holds the votes `[N, C]` and the scores `[N, m]` of each exit so far.
        """
        votes, past = state or (None, ())
        votes = count_votes(votes, evidence)
        confidences = [1 - evidence.one_minus_max, 1 - evidence.entropy]
        confidences += [votes.amax(-1) / (k + 1)] if self.vote else []
        shown = torch.stack(confidences, -1)
        if self.probs:
            shown = torch.cat([evidence.log_probs.exp(), shown], -1)
        x = shown.expand(len(self.budgets[self.chosen]), -1, -1)
        if past and self.past_scores:
            x = torch.cat([x, *(score.T.unsqueeze(-1) for score in past)], -1)
        score = self.score[k](x, self.chosen).squeeze(-1)
        return (score, x), (votes, (*past, score.detach().sigmoid().T))


def logistic(x: Tensor, quality: Tensor) -> tuple[float, float]:
    """Slope and bias of the logistic regression of a quality in [0, 1] on one input (Platt 1999).

    The targets are pulled towards 1/2 by one sample of each kind, so that there is an optimum;
    a trace of damping (Levenberg 1944) leaves one step where the inputs are all equal.

    Args:
        x: `[N]`.
        quality: `[N]`.
    """
    inputs = torch.stack([x.double(), torch.ones_like(x, dtype=torch.float64)], 1)
    target = (quality.double() * len(x) + 1) / (len(x) + 2)
    fit = torch.zeros(2, dtype=torch.float64, device=x.device)
    for _ in range(50):  # Newton, damped where it would overshoot
        p = (inputs @ fit).sigmoid()
        curvature = inputs.T @ (inputs * (p * (1 - p) + 1e-6)[:, None])
        curvature += 1e-9 * curvature.trace() * torch.eye(2).to(curvature)
        step = torch.linalg.solve(curvature, inputs.T @ (target - p))
        fit += step * min(1.0, 2.0 / float(step.abs().max() + 1e-12))
    return float(fit[0]), float(fit[1])


@dataclass(frozen=True)
class _LinearDecision:
    """The score of exit `k` of one sample."""

    k: int
    weight: list[float]
    bias: float
    rounding: float
    probs: bool
    vote: bool
    past_scores: bool

    def __call__(
        self, sample: SampleEvidence, threshold: float, state: Any
    ) -> tuple[bool | None, Any]:
        state = state or ([0] * len(sample.probs), [])
        votes, past = state
        votes[sample.predicted] += 1
        x = [*sample.probs] if self.probs else []
        x += [1 - sample.one_minus_max, 1 - sample.entropy]
        x += [max(votes) / (self.k + 1)] if self.vote else []
        x += past if self.past_scores else []
        score = sum(map(mul, x, self.weight), self.bias)
        past.append(0.5 + 0.5 * math.tanh(0.5 * score))
        return reaches(score, threshold, self.rounding), state
