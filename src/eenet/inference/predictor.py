"""The adaptive runtime: a batch goes in, some samples leave early, the rest continues."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from eenet.inference.asked import check_device, choose
from eenet.inference.runtime import Answers, Departure, Report, Runtime, Step
from eenet.inference.stream import stream
from eenet.metrics import Asked
from eenet.models import MultiExitNetwork, narrow
from eenet.models.base import others
from eenet.models.layers import fold
from eenet.outputs import ExitOutputs
from eenet.outputs.exit_outputs import mean_costs
from eenet.policies import BudgetControl, Policy, Rule
from eenet.policies.thresholds import first_exit
from eenet.run_folder import RunFolder


class AdaptivePredictor(Runtime):
    """Runs a multi-exit network stage by stage; samples leave where a policy says so.

    Decisions are those of `Rule.decide` on the same logits, whose last bits depend on the
    composition of a batch: runs can differ where a score lies that close to its threshold.

    Args:
        net: The network; put into evaluation mode and onto the device.
        policy: A fitted policy; put onto the device too.
        budget: Average cost per sample; assign to `budget` to change it between calls.
        budget_unit: "fraction" of the full network's cost, or "cost" for the unit of the policy's
            costs. `Answers.costs` has the same unit.
        control: Step size of an online `BudgetControl`, in (0, 1], which keeps the average at the
            budget while the data drift; it needs nested rules. 0.01 averages over about 100
            samples, and twice as many as are decided at once or under way.
        device: Where to run; by default a GPU if there is one.

    Raises:
        TypeError: If `net` is not a `MultiExitNetwork`, or the budget not a number.
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
        costs = mean_costs(policy.calibration_costs)
        if not len(costs):
            raise ValueError(f"policy: {policy.how_to_fit}")
        self._fractions = budget_unit == "fraction"
        self._scale = float(costs[-1]) if self._fractions else 1.0
        super().__init__(net, costs / self._scale, device)
        self._check_exits(policy.label, len(costs))
        if control is not None and not policy.nested:
            raise ValueError(f"control: it needs the nested rules of eenet+, not {policy.label}")
        self.policy = policy.to(self.device)
        self.control: BudgetControl | None = None
        self.asked: Asked | None = None
        self._step = control
        self._rules: dict[float, Rule] = {}
        self.budget = budget

    @classmethod
    def from_run(
        cls,
        folder: str | Path,
        budget: float | None = None,
        policy: str | None = None,
        stage2: str | Path | None = None,
        max_loss: float | None = None,
        delta: float = 0.1,
        alarm: float | None = None,
        max_disagreement: float | None = None,
        max_ms: float | None = None,
        tail: float = 0.05,
        **settings: Any,
    ) -> Self:
        """Loads what `eenet pipeline` left in a run folder, with batch norms folded away.

        Args:
            folder: The run folder, with `stage1` and `stage2` in it.
            budget: Average cost per sample, in the unit of the run's budgets; by default 0.5.
            policy: Label of one of the run's policies; by default the first that serves the budget.
            stage2: Folder of other policies fitted on the run's outputs, such as a trial's.
            max_loss: Largest loss of quality against the full network, in place of a budget:
                promised on the calibration split, or else estimated on test.
            delta: Probability of breaking that promise.
            max_disagreement: Largest share of answers that are not the full network's, in place of
                a budget; the calibration split needs no labels for it.
            max_ms: Latency that all but a share `tail` of the samples keep, in place of a budget,
                if they are answered one by one where the run's `costs.json` was measured.
            tail: Largest share of the samples that may take longer.
            alarm: `watch` against the test samples, with this rate of false alarms.
            **settings: Those of the constructor.

        Raises:
            FileNotFoundError: If the folder is not that of a finished run.
            ValueError: If no such policy serves the budget, a checkpoint does not fit its config,
                or several limits are given, or one with control.
        """
        run, control = RunFolder(folder, stage2), settings.get("control")
        limits = {"max_loss": max_loss, "max_disagreement": max_disagreement, "max_ms": max_ms}
        fitted, budget, asked = choose(run, policy, budget, limits, tail, delta, control)
        settings.setdefault("budget_unit", run.budget_unit)
        predictor = cls(fold(run.network()), fitted, budget, **settings)
        predictor.asked, predictor.source = asked, run
        if max_ms is not None:
            check_device(run, predictor.device)
        if alarm is not None:
            predictor.watch(alarm, run.outputs("test"))
        return predictor

    @property
    def budget(self) -> float:
        """Average cost per sample, in its unit. The rule of each budget is kept once set."""
        return self._budget

    @budget.setter
    def budget(self, budget: float) -> None:
        if not isinstance(budget, Real) or isinstance(budget, bool):
            raise TypeError(f"budget={budget!r} is not a number")
        if budget not in self._rules:
            at = self.policy.at_fraction if self._fractions else self.policy.at
            self._rules[budget] = at(budget)
        control, unit = None, self._scale
        if self._step is not None:
            exits = first_exit(self.policy.calibration_scores, self._rules[budget].thresholds)
            shares = exits.bincount(minlength=self.net.num_exits)
            control = BudgetControl(budget * unit, self.costs * unit, self._step, shares)
        self._start(budget, self._rules[budget], control)

    def serve(self, rule: Rule) -> None:
        """Serves a rule, of `within_loss` say, without control, until a budget is set.

        Args:
            rule: The rule; the budget becomes its cost.

        Raises:
            ValueError: If it is for another number of exits.
        """
        self._check_exits("the rule", len(rule.thresholds))
        rule.scorer.to(self.device)
        rule = replace(rule, thresholds=rule.thresholds.to(self.device))
        self._start(rule.cost / self._scale, rule, None)

    def predict(self, x: Any, deadline_ms: float | None = None) -> Answers:
        """Answers a batch.

        Args:
            x: B samples as the network takes them, or a pair of them and labels, on any device.
            deadline_ms: All that are still there leave with the answer of the exit reached when
                the next stage would probably (95%) end later than this. Needs `measure` once.

        Raises:
            TypeError: If `x` holds anything but tensors.
            ValueError: If a deadline is given and `measure` was never called.
        """
        start = time.perf_counter()
        if deadline_ms is not None and self.profile is None:
            raise ValueError("deadline_ms: call measure(x) first, to learn how long stages take")
        departures, steps = list[Departure](), list[Step]()
        with torch.inference_mode():
            state, samples = self.begin(x)
            rows = torch.arange(samples, device=self.device)
            policy_state = self.single_sample() if samples == 1 else None
            for k in range(self.net.num_exits):
                logits, state, policy_state, staying = self.run(k, state, policy_state)
                forced = 0
                if deadline_ms is not None and self.profile is not None and len(staying):
                    spent = 1e3 * (time.perf_counter() - start)
                    if spent + self.profile.step_ms(k + 1, len(staying)) > deadline_ms:
                        forced, staying = len(staying), staying[:0]
                steps.append(Step(k, len(logits), len(staying), forced))
                if len(staying) == 0:
                    departures.append(Departure(rows, logits, k))
                    break
                if len(staying) < len(logits):
                    leaving = others(staying, len(rows))
                    departures.append(Departure(rows[leaving], logits[leaving], k))
                    rows, policy_state = narrow((rows, policy_state), staying)
                    state = self.net.narrow(state, staying)
            answers = self.assemble(departures, samples)
        self.record(steps)
        return answers

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
        or the batches end. Answers of at most `max_wait` batches wait.

        Args:
            batches: Input batches of any sizes, or pairs of them and labels; read one at a time.
            batch_size: Samples in a full batch.
            max_wait: Number of later batches after which a sample waits no more.
            max_wait_ms: The same in milliseconds, looked at whenever a batch arrives.
        """
        return stream(self, batches, batch_size, max_wait, max_wait_ms)

    def recalibrate(self, batches: Iterable[Any], budget: float | None = None) -> None:
        """Sets the thresholds, and the alarm's reference, by the user's own traffic.

        Args:
            batches: As for `collect`, with its errors.
            budget: Average cost per sample; by default as before.
        """
        self._renew(self.policy.calibrate, batches, budget)

    def refit(
        self, batches: Iterable[Any], budget: float | None = None, cost_matrix: Tensor | None = None
    ) -> None:
        """Fits the policy again, on the user's own traffic; no labels are needed.

        Where `recalibrate` sets other thresholds on the same scores, this learns other scores too.

        Args:
            batches: As for `recalibrate`, like the budget.
            budget: Average cost per sample.
            cost_matrix: `[C, C]`, the cost of answering a where y is true, in place of accuracy.

        Raises:
            ValueError: If there are too few samples, or the policy needs labels or a budget.
        """
        fit = self.policy.fit
        self._renew(lambda x: fit(replace(x, cost_matrix=cost_matrix)), batches, budget)

    def _renew(
        self, learn: Callable[[ExitOutputs], Any], batches: Iterable[Any], budget: float | None
    ) -> None:
        """Gives the policy and the alarm the evidence of all exits, and sets the budget again."""
        outputs = self.collect(batches)
        learn(outputs)
        self._rules, self._decisions = {}, {}
        self.budget = self._budget if budget is None else budget
        if self.alarm is not None:
            self.watch(self.alarm.delta, outputs)

    def report(self) -> Report:
        """Reports the cost spent since the budget was last set."""
        samples, counts = sum(self._counts), torch.tensor(self._counts, dtype=torch.float64)
        shares = counts / max(samples, 1)
        cost = float((shares * self.costs.cpu()).sum())
        control, alarm, none = self.control, self.alarm, (None, None)
        held = none if control is None else (control.u, control.bound() / self._scale)
        drift = none if alarm is None else (alarm.p_value, alarm.advice)
        return Report(samples, cost, self.budget, shares.tolist(), *held, *drift)

    def record(self, steps: Sequence[Step]) -> None:
        """Counts what has left, and moves the working point."""
        for step in steps:
            self._counts[step.exit] += step.reached - step.staying
        if self.control is not None:
            point = self.control.decided(steps)
            if steps[0].exit == 0:  # often enough: once for each batch that begins
                self.set_rule(self.policy.at_point(point))

    def drop(self, k: int, samples: int) -> None:
        """Lets the control forget samples that will not be answered."""
        if self.control is not None:
            self.control.dropped(k, samples)

    def _start(self, budget: float, rule: Rule, control: BudgetControl | None) -> None:
        if control is not None and self.control is not None:
            control.take_over(self.control)
        self._budget, self.control = budget, control
        self._counts = [0] * self.net.num_exits
        self.set_rule(rule)

    def _check_exits(self, name: str, exits: int) -> None:
        if exits != self.net.num_exits:
            raise ValueError(
                f"policy: {name} was fitted on {exits} exits, the network has {self.net.num_exits}"
            )
