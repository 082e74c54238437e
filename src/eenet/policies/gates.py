"""Learned rivals on frozen outputs: a gate at each exit, one fit per budget in a bank."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eenet.outputs.evidence import Evidence
from eenet.policies.learned import BankLinear, LearnedPolicy


class GatePolicy(LearnedPolicy):
    """A logistic gate at each exit: `pi_k` is the chance to leave there on arrival.

    The chance to leave at exit k is `P_k = pi_k prod_{j<k} (1 - pi_j)`, the last gate being open.
    The score is the gate's log-odds; the mean of P over the calibration samples, tilted to the
    budget, is the exit distribution. The price l of computation in each fit's loss is a Lagrange
    multiplier: it rises while the fit spends more than its budget.
    """

    def build(self, members: int, exits: int, classes: int) -> None:
        """See `LearnedPolicy.build`."""
        width = self.inputs(Evidence.from_logits(torch.zeros(1, classes))).shape[-1]
        self.gate = nn.ModuleList(BankLinear(members, width, 1) for _ in range(exits - 1))
        self.price = nn.Parameter(torch.zeros(members))

    def inputs(self, evidence: Evidence) -> Tensor:
        """The inputs of a gate, `[N, D]`."""
        doubts = [evidence.one_minus_max, evidence.entropy, evidence.one_minus_margin]
        return torch.stack(doubts, -1)

    def log_odds(self, k: int, evidence: Evidence) -> Tensor:
        """`[m, N]`: log-odds of leaving at exit k on arrival, of the fits chosen."""
        count = len(self.budgets[self.chosen])
        if k == len(self.gate):
            return evidence.entropy.expand(count, -1) * 0
        x = self.inputs(evidence).expand(count, -1, -1)
        odds: Tensor = self.gate[k](x, self.chosen).squeeze(-1)
        return odds

    def leaving(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Log-odds of the gates `[M, E - 1, N]` and log P `[M, E, N]`."""
        exits = range(len(self.gate) + 1)
        odds = torch.stack([self.log_odds(k, evidence.at(k)) for k in exits], 1)[:, :-1]
        zero = odds.new_zeros(len(odds), 1, odds.shape[2])
        stays = torch.cat([zero, F.logsigmoid(-odds).cumsum(1)], 1)
        return odds, stays + torch.cat([F.logsigmoid(odds), zero], 1)

    def charges(self, quality: Tensor) -> Tensor:
        """`[M, E, N]`: loss of quality plus the price of what each exit costs."""
        prices = self.price.detach().clamp_min(0)[:, None]
        return 1 - quality + (prices * self.costs / self.costs[-1])[..., None]

    def ascent(self, leaving: Tensor) -> Tensor:
        """`[M]`, a loss whose gradient raises the prices while more than the budget is spent."""
        spent = (leaving.detach().mean(-1) * self.costs.to(leaving)).sum(1)
        return -self.price * (spent - self.budgets) / self.budgets

    def exit_shares(self, evidence: Evidence) -> Tensor:
        """The mean of P."""
        return self.leaving(evidence)[1].exp().mean(-1)

    @torch.no_grad()
    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by the log-odds of a member's gate."""
        return self.log_odds(k, evidence)[0], state


class LearnedStopping(GatePolicy):
    """The stopping distribution of MAML-stop's second stage (Chen et al. 2020).

    P is trained as the variational posterior of the best stopping time: minimize
    `sum_k P_k (1 - q_k + l c_k / c_E) + beta KL(P || uniform)`.

    Args:
        beta: Temperature of the posterior.
    """

    label = "maml_stop"

    def __init__(self, beta: float = 0.2) -> None:
        super().__init__()
        self.beta = beta

    def inputs(self, evidence: Evidence) -> Tensor:
        """The class probabilities and the confidences."""
        return torch.cat([evidence.log_probs.exp(), super().inputs(evidence)], -1)

    def loss(self, evidence: Evidence, quality: Tensor, epoch: int) -> Tensor:
        """Scalar loss of a batch, summed over the fits."""
        log_p = self.leaving(evidence)[1]
        p = log_p.exp()
        expected = (p * (self.charges(quality) + self.beta * log_p)).sum(1).mean(-1)
        return (expected + self.ascent(p)).sum()


class JointGates(GatePolicy):
    """Gates in the manner of JEI-DNN (Regol et al. 2024) on frozen outputs.

    Each gate learns by cross-entropy whether leaving is at least as good as the best exit to
    come, `1 - q_k + l c_k / c_E <= min_{j>k} ..`, weighted by the chance to get there. The price l
    of each fit is a Lagrange multiplier: it rises while the fit spends more than its budget.
    """

    label = "jei_dnn"

    def loss(self, evidence: Evidence, quality: Tensor, epoch: int) -> Tensor:
        """Scalar loss of a batch, summed over the fits."""
        odds, log_p = self.leaving(evidence)
        p = log_p.detach().exp()
        charges = self.charges(quality)
        to_come = charges.flip(1).cummin(1).values.flip(1)[:, 1:]
        leave = (charges[:, :-1] <= to_come).float()
        arrives = p.flip(1).cumsum(1).flip(1)[:, :-1]
        gates = F.binary_cross_entropy_with_logits(odds, leave, arrives, reduction="none")
        return (gates.sum(1).mean(-1) + self.ascent(p)).sum()
