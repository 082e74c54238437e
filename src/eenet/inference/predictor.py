"""The adaptive runtime: a batch goes in, samples leave early, the rest goes on."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from eenet.inference.decision import Alone, Decision, decisions, shown
from eenet.inference.stream import stream
from eenet.models import MultiExitNetwork, narrow
from eenet.models.base import batch_size, others
from eenet.models.costs import LatencyProfile, profile_latency
from eenet.models.layers import fold
from eenet.outputs import ExitOutputs
from eenet.outputs.exit_outputs import mean_costs
from eenet.policies import BudgetControl, Policy, Rule
from eenet.run_folder import RunFolder

_FIRST = torch.zeros(1, dtype=torch.int64)
_NOBODY = _FIRST[:0]


class Answers(NamedTuple):
    """What the network says about B samples, each at the exit where it left."""

    predictions: Tensor
    """`[B]` int64; for segmentation `[B, H, W]`."""
    probabilities: Tensor
    """`[B, C]` float32; for segmentation `[B, C, H, W]`."""
    exits: Tensor
    """`[B]` int64, from 0."""
    costs: Tensor
    """`[B]` float64, in the unit of the budget."""


class Report(NamedTuple):
    """What a predictor has spent so far."""

    samples: int
    """Number of samples answered."""
    mean_cost: float
    """Average cost per sample, in the unit of the budget."""
    budget: float
    """The budget, in its unit."""
    exit_shares: list[float]
    """Share of the samples that left at each exit."""
    point: float | None
    """Working point of the budget control, if there is one (`BudgetControl`)."""
    bound: float | None
    """Largest possible distance of the average cost from the budget under that control."""


class AdaptivePredictor:
    """Runs a multi-exit network stage by stage; samples leave where a policy says so.

    Decisions are those of `Rule.decide` on the same logits. Logits themselves depend on the
    composition of a batch in their last bits, so two runs can differ where a score lies that close
    to its threshold.

    Args:
        net: The network; put into evaluation mode and onto the device.
        policy: A fitted policy; put onto the device too.
        budget: Average cost per sample; assign to `budget` to change it between calls.
        budget_unit: "fraction" of the full network's cost, or "cost" for the unit of the policy's
            costs. `Answers.costs` has the same unit.
        control: Step size of an online `BudgetControl` (0.01 forgets in a hundred samples), which
            keeps the average at the budget while the data drift; it needs an `EENetPlus`.
        device: Where to run; by default a GPU if there is one.

    Raises:
        ValueError: If the policy was not fitted, is for another number of exits, cannot serve the
            budget, or cannot be controlled.
    """

    def __init__(
        self,
        net: MultiExitNetwork,
        policy: Policy,
        budget: float = 0.5,
        budget_unit: Literal["fraction", "cost"] = "fraction",
        control: float | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.net = net.to(self.device).eval()
        self.policy = policy.to(self.device)
        exits = len(policy.calibration_costs)
        if exits != net.num_exits:
            raise ValueError(
                f"policy: {policy.label} was fitted on {exits} exits (0: not at all), the network "
                f"has {net.num_exits}"
            )
        if control is not None and not policy.nested:
            raise ValueError(f"control: it needs the nested rules of eenet+, not {policy.label}")
        costs = mean_costs(policy.calibration_costs)
        self._fractions = budget_unit == "fraction"
        self._scale = float(costs[-1]) if budget_unit == "fraction" else 1.0
        self.costs = costs / self._scale
        self.profile: LatencyProfile | None = None
        self._step = control
        self._rules: dict[float, Rule] = {}
        self._decisions: dict[Policy, list[Decision]] = {}
        self.budget = budget

    @classmethod
    def from_run(
        cls, folder: str | Path, budget: float = 0.5, policy: str | None = None, **settings: Any
    ) -> Self:
        """Loads what `eenet pipeline` left in a run folder, with batch norms folded away.

        Args:
            folder: The run folder, with `stage1` and `stage2` in it.
            budget: Average cost per sample, in the unit of the run's budgets.
            policy: Label of one of the run's policies; by default the first.
            **settings: Those of the constructor.

        Raises:
            FileNotFoundError: If the folder is not that of a finished run.
            ValueError: If it holds no such policy, or a checkpoint does not fit its config.
        """
        run = RunFolder(folder)
        fitted = next(iter(run.policies(policy).values()))
        settings = {"budget_unit": run.budget_unit, **settings}
        return cls(fold(run.network()), fitted, budget, **settings)

    @property
    def budget(self) -> float:
        """Average cost per sample, in its unit. The rule of each budget is kept once set."""
        return self._budget

    @budget.setter
    def budget(self, budget: float) -> None:
        if budget not in self._rules:
            at = self.policy.at_fraction if self._fractions else self.policy.at
            self._rules[budget] = at(budget)
        self._budget = budget
        self._counts, self._largest = [0] * self.net.num_exits, 1
        self.control = None
        if self._step is not None:
            self.control = BudgetControl(budget * self._scale, self.costs * self._scale, self._step)
        self._use(self._rules[budget])

    def predict(self, x: Any, deadline_ms: float | None = None) -> Answers:
        """Answers a batch.

        Args:
            x: Input batch of B samples as the network takes it; moved to the device.
            deadline_ms: All that are still there leave with the answer of the exit reached when
                the next stage would probably (95 %) end later than this. Needs `measure` once.

        Raises:
            ValueError: If a deadline is given and `measure` was never called.
        """
        start = time.perf_counter()
        if deadline_ms is not None and self.profile is None:
            raise ValueError("deadline_ms: call measure(x) first, to learn how long stages take")
        left: list[tuple[Tensor | None, Tensor, int]] = []
        rows: Tensor | None = None  # all, as long as nobody has left
        memory: Any = None
        with torch.inference_mode():
            state, samples = self._begin(x)
            if samples == 1 and self.device.type == "cpu":
                memory = Alone(self._chain, self._limits)
            for k in range(self.net.num_exits):
                logits, state, memory, stays = self._run(k, state, memory)
                if deadline_ms is not None and self.profile is not None and len(stays):
                    spent = 1e3 * (time.perf_counter() - start)
                    if spent + self.profile.step_ms(k + 1, len(stays)) > deadline_ms:
                        stays = stays[:0]
                if len(stays) == 0:
                    left.append((rows, logits, k))
                    break
                if len(stays) < len(logits):
                    rows = torch.arange(len(logits), device=self.device) if rows is None else rows
                    gone = others(stays, len(rows))
                    left.append((rows[gone], logits[gone], k))
                    rows, memory = narrow((rows, memory), stays)
                    state = self.net.narrow(state, stays)
            return self._answers(left, samples)

    def predict_stream(
        self,
        batches: Iterable[Any],
        batch_size: int = 256,
        max_wait: int = 64,
        max_wait_ms: float | None = None,
    ) -> Iterator[Answers]:
        """Answers batch after batch, pooling samples so that every stage runs on full batches.

        Answers come in order, one `Answers` for each batch. A stage runs once three quarters of
        `batch_size` wait for it (and on `batch_size` at most), or one sample has waited too long,
        or the batches end. Fewer than that wait before each stage, and answers of at most
        `max_wait` batches.

        Args:
            batches: Input batches of any sizes, read one at a time.
            batch_size: Samples in a full batch.
            max_wait: Number of later batches after which a sample waits no more.
            max_wait_ms: The same in milliseconds, looked at whenever a batch arrives.
        """
        return stream(self, batches, batch_size, max_wait, max_wait_ms)

    def measure(
        self, x: Any, batch_sizes: Sequence[int] = (1, 8, 32, 128), repeats: int = 20
    ) -> LatencyProfile:
        """Measures how long the exits take on this device, from the samples of a batch.

        The profile is kept for deadlines.
        """
        self.profile = profile_latency(self.net, self._here(x), batch_sizes, repeats=repeats)
        return self.profile

    def recalibrate(self, batches: Iterable[Any], budget: float | None = None) -> None:
        """Sets the thresholds anew, for the user's own traffic; no labels are needed.

        Args:
            batches: Input batches, all of which run through the whole network.
            budget: Average cost per sample; by default as before.
        """
        with torch.inference_mode():
            seen = [torch.stack([shown(z) for z in self.net(self._here(x))]) for x in batches]
            pooled = self.net.num_classes < seen[0].shape[-1]
        # Out of inference mode, so that the policy can be saved and fitted further.
        fields: Any = {"pooled" if pooled else "logits": torch.cat(seen, 1).clone()}
        self.policy.calibrate(ExitOutputs(self.costs * self._scale, **fields))
        self._rules, self._decisions = {}, {}
        self.budget = self._budget if budget is None else budget

    def report(self) -> Report:
        """What was spent since the budget was last set."""
        samples, counts = sum(self._counts), torch.tensor(self._counts, dtype=torch.float64)
        shares = counts / max(samples, 1)
        point = bound = None
        if self.control is not None:
            point = self.control.u
            bound = self.control.bound(max(samples, 1), self._largest) / self._scale
        cost = float((shares * self.costs.cpu()).sum())
        return Report(samples, cost, self.budget, shares.tolist(), point, bound)

    def _begin(self, x: Any) -> tuple[Any, int]:
        """The first state of a batch, and its size."""
        state = self.net.begin(self._here(x))
        return state, batch_size(state)

    def _run(self, k: int, state: Any, memory: Any) -> tuple[Tensor, Any, Any, Tensor]:
        """Runs stage k: logits, both states, and the indices of those who go on."""
        logits, state = self.net.step(k, state)
        if k + 1 == self.net.num_exits:  # nobody asks for a score here
            return logits, state, memory, _NOBODY.to(logits.device)
        return logits, state, *self._decide(k, logits, memory)

    def _decide(self, k: int, logits: Tensor, memory: Any) -> tuple[Any, Tensor]:
        """The scorer's state, which may be `Alone`, and the indices of those who go on."""
        if isinstance(memory, Alone):
            return memory, _FIRST if memory.stays(logits) else _NOBODY  # cheaper than nonzero
        stays, memory = self._chain[k](logits, self.rule.thresholds[k], memory)
        return memory, stays.nonzero()[:, 0]

    def _answers(self, left: Sequence[tuple[Any, Tensor, int]], samples: int) -> Answers:
        """Puts those who left `(rows, logits, exit)` back into the order of their rows."""
        _, logits, k = left[0]
        exits = torch.full((samples,), k, device=self.device)
        if len(left) > 1:
            logits = torch.empty(samples, *logits.shape[1:], dtype=logits.dtype, device=self.device)
            for rows, some, k in left:
                logits.index_copy_(0, rows, some)
                exits.index_fill_(0, rows, k)
        costs = self.costs[exits]
        for _, some, k in left:
            self._counts[k] += len(some)
        if self.control is not None:
            self._largest = max(self._largest, samples)
            point = self.control.update(costs * self._scale)
            self._use(self.policy.at_point(point))
        return Answers(logits.argmax(1), logits.float().softmax(1), exits, costs)

    def _use(self, rule: Rule) -> None:
        if rule.scorer not in self._decisions:
            self._decisions[rule.scorer] = decisions(rule.scorer, self.net.num_exits)
        self._chain, self._limits = self._decisions[rule.scorer], rule.thresholds.tolist()
        self.rule = rule

    def _here(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.to(self.device)
        return pytree.tree_map_only(Tensor, lambda t: t.to(self.device, non_blocking=True), x)
