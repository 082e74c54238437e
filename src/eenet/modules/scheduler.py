"""Stage 2: fitting exit policies on exit outputs, and evaluating them at budgets."""

import re
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from eenet.data.outputs_data import OutputsBatch, OutputsData
from eenet.metrics import BudgetCurve, Curve, area, quality_at
from eenet.metrics.curve_maths import exit_means, relative
from eenet.modules.optim import StageModule, parameter_group
from eenet.outputs.exit_outputs import ExitOutputs
from eenet.policies import Policy, Rule
from eenet.policies.base import decide_all
from eenet.policies.learned import LearnedPolicy
from eenet.policies.thresholds import at_exits, check_budget


def metric_key(label: str) -> str:
    """A policy's label in the names of metrics: letters, digits and "_", as W&B sorts and filters.

    >>> metric_key("eenet+")
    'eenet_plus'
    """
    return re.sub(r"\W", "_", label.replace("+", "_plus"), flags=re.ASCII)


class SchedulerModule(StageModule):
    """Fits policies on the exit outputs of a frozen network and evaluates each at each budget.

    Policies that hold the budget in their loss (`LearnedPolicy`) are optimized together; their
    parameters are disjoint, so none influences another. The rest is fitted in closed form. All are
    then calibrated on the whole file of validation outputs.

    Args:
        policies: The policies, each with a label of its own.
        budgets: Average costs per sample to serve.
        budget_unit: "fraction" of the last exit's cost, or "cost" for the unit of the outputs'
            own costs (MACs, milliseconds, or whatever they are in).
        optimizer: Makes the optimizer of the learned policies.
        lr_scheduler: Makes its schedule.
    """

    part = "policies"

    def __init__(
        self,
        policies: list[Policy],
        budgets: list[float],
        budget_unit: Literal["fraction", "cost"] = "fraction",
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=0.1),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        labels = [policy.label for policy in policies]
        if not policies or len({*map(metric_key, labels)}) < len(labels):
            raise ValueError(
                f"policies: the labels must differ and there must be one, got {labels}"
            )
        if any("." in label or not label for label in labels):
            raise ValueError(f"policies: a label may not be empty or hold a dot, got {labels}")
        if not budgets or budgets != sorted(set(budgets)):
            raise ValueError(f"budgets={budgets} must be one or more increasing numbers")
        self.policies: Any = nn.ModuleDict(dict(zip(labels, policies, strict=True)))
        self.budgets, self.budget_unit = budgets, budget_unit
        self.curves: Any = nn.ModuleDict()
        self.rules: dict[str, list[Rule]] = {}
        self._held_out: dict[str, Tensor | int] = {}
        self._held_out_samples = 0

    def configure_model(self) -> None:
        """Before a fit, checks the budgets and sizes the learned policies by the outputs."""
        if self.trainer.state.fn != "fit":
            return
        ddp = getattr(self.trainer.strategy, "_ddp_kwargs", {"find_unused_parameters": True})
        if self.trainer.world_size > 1 and not ddp.get("find_unused_parameters"):
            raise ValueError(
                "strategy: the policies' parts take turns, so with several devices give "
                "ddp_find_unused_parameters_true; one device is enough for most outputs"
            )
        outputs = self._outputs()
        budgets = self.resolve_budgets(outputs.mean_costs)
        self.check_samples(outputs.num_samples)
        for policy in self.learned:
            policy.prepare(outputs, budgets)

    def resolve_budgets(self, costs: Tensor) -> list[float]:
        """The budgets in the unit of the costs `[E]` of the exits.

        Raises:
            ValueError: If one is out of range.
        """
        unit = float(costs[-1]) if self.budget_unit == "fraction" else 1.0
        return [check_budget(budget, costs / unit) * unit for budget in self.budgets]

    def relative_budgets(self, full_cost: float) -> list[float]:
        """The budgets as fractions of the full network's cost."""
        unit = 1.0 if self.budget_unit == "fraction" else full_cost
        return [budget / unit for budget in self.budgets]

    def check_samples(self, samples: int) -> None:
        """Raises a ValueError that names a policy which cannot be fitted on so few samples."""
        for policy in self.policies.values():
            policy.check_samples(samples)

    @property
    def learned(self) -> list[LearnedPolicy]:
        """The policies that gradient descent fits."""
        return [p for p in self.policies.values() if isinstance(p, LearnedPolicy)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters of each learned policy, at its rate."""
        return [group for p in self.learned for group in parameter_group(p, p.rate)]

    def training_step(self, batch: OutputsBatch, batch_idx: int) -> Tensor | None:
        """Sum of the learned policies' losses."""
        if not self.learned:
            return None
        losses = [p.loss(batch.evidence, batch.quality, self.current_epoch) for p in self.learned]
        loss = torch.stack(losses).sum()
        self.log("train/loss", loss, prog_bar=True, batch_size=batch.quality.shape[1])
        return loss

    def validation_step(self, batch: OutputsBatch, batch_idx: int) -> None:
        """Held-out losses of the learned policies."""
        samples = batch.quality.shape[1]
        for policy in self.learned:
            loss = policy.held_out_loss(batch.evidence, batch.quality)
            if loss is not None:
                total = self._held_out.get(policy.label, 0)
                self._held_out[policy.label] = total + samples * loss
        self._held_out_samples += samples

    def on_validation_epoch_end(self) -> None:
        """Keeps the best state of every fit so far."""
        for label, total in self._held_out.items():
            loss = self.trainer.strategy.reduce(total / self._held_out_samples, reduce_op="mean")
            self.log(f"val/{metric_key(label)}/loss", loss.mean(), sync_dist=True)
            if not self.trainer.sanity_checking:
                self.policies[label].keep_best(loss)
        self._held_out, self._held_out_samples = {}, 0

    def on_train_end(self) -> None:
        """Fits the rest and calibrates all on the whole of the validation outputs."""
        outputs, learned = self._outputs(), self.learned
        for policy in self.policies.cpu().values():
            policy.finish(outputs) if policy in learned else policy.fit(outputs)

    def on_fit_end(self) -> None:
        """Saves the fitted policies as the checkpoint `best.ckpt`."""
        callback: Any = self.trainer.checkpoint_callback
        if callback is not None:
            self.trainer.save_checkpoint(Path(callback.dirpath) / "best.ckpt")

    def on_test_start(self) -> None:
        """Sets the thresholds of every policy for every budget, by the costs it was fitted with.

        Raises:
            ValueError: If a policy was fitted on other budgets, exits or classes.
        """
        outputs = self._outputs("test")
        if self.trainer.testing and not outputs.labelled:
            raise ValueError("data.test: to report on it, outputs need labels or their `quality`")
        for label, policy in self.policies.items():
            policy.check_shape(outputs.num_exits, outputs.num_classes)
            at = policy.at_fraction if self.budget_unit == "fraction" else policy.at
            self.rules[label] = [at(budget) for budget in self.budgets]
            classes = None if outputs.confusion is None else outputs.num_classes
            curve = BudgetCurve(len(self.budgets), outputs.num_exits, classes)
            self.curves[label] = curve.to(self.device)

    def test_step(self, batch: OutputsBatch, batch_idx: int) -> None:
        """Sends a batch through every policy at every budget."""
        for label, exits in self._decide(batch).items():
            self.curves[label].update(exits, batch.costs, batch.quality, batch.confusion)

    on_predict_start = on_test_start

    def predict_step(self, batch: OutputsBatch, batch_idx: int) -> dict[str, tuple[Tensor, ...]]:
        """Exits, predictions and costs of each policy, `[M, B]` each, for the M budgets."""
        answers = batch.evidence.prediction
        return {
            label: (exits, at_exits(answers, exits), at_exits(batch.costs, exits))
            for label, exits in self._decide(batch).items()
        }

    def results(self) -> dict[str, Curve]:
        """The curve of each policy on the test outputs."""
        return {label: metric.curve() for label, metric in self.curves.items()}

    def on_test_epoch_end(self) -> None:
        """Logs the area under each curve, from the first exit to the full network.

        If there is one budget, also `test/budget` and, of each policy, the cost, the accuracy and
        the accuracy within the budget: that of a mixture with the first exit which costs no more.
        """
        outputs = self._outputs("test")
        full, budgets = float(outputs.mean_costs[-1]), self.budgets
        costs, qualities = (x[[0, -1]] for x in exit_means([relative(outputs)]))
        values: dict[str, float | Tensor] = {}
        for label, curve in self.results().items():
            spent, reached = curve.cost.cpu() / full, curve.quality.cpu()
            points = torch.cat([costs, spent]), torch.cat([qualities, reached])
            key, measure = f"test/{metric_key(label)}", outputs.measure
            if costs[0] < costs[1]:
                values[f"{key}/area"] = area(*points, *costs.tolist())
            if len(budgets) == 1:
                budget = values["test/budget"] = self.relative_budgets(full)[0]
                within = quality_at(*points, spent.clamp(max=budget))
                values |= {f"{key}/cost": spent, f"{key}/{measure}": reached}
                values[f"{key}/{measure}_within_budget"] = within
        self.log_dict({name: float(x) for name, x in values.items()}, sync_dist=True)

    def _decide(self, batch: OutputsBatch) -> dict[str, Tensor]:
        """Exits `[M, B]` of each policy."""
        return {label: decide_all(rules, batch.evidence) for label, rules in self.rules.items()}

    def _outputs(self, name: str = "fit") -> ExitOutputs:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, OutputsData):
            raise TypeError("data: SchedulerModule takes its outputs from eenet.data.OutputsData")
        return data.outputs(name)
