"""The stages of a network with the decisions between them, one stage of one batch at a time."""

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from eenet.inference.decision import Decision, SingleSample, decisions, policy_view
from eenet.models import MultiExitNetwork
from eenet.models.base import batch_size
from eenet.models.costs import LatencyProfile, profile_latency
from eenet.outputs import ExitOutputs
from eenet.policies import Alarm, Policy, Rule
from eenet.run_folder import RunFolder

_FIRST = torch.zeros(1, dtype=torch.int64)
_NOBODY = _FIRST[:0]


class Answers(NamedTuple):
    """The network's answers to B samples, each from the exit where it left."""

    predictions: Tensor
    """`[B]` int64; for segmentation `[B, H, W]`."""
    probabilities: Tensor
    """`[B, C]` float32; for segmentation `[B, C, H, W]`."""
    exits: Tensor
    """`[B]` int64, from 0."""
    costs: Tensor
    """`[B]` float64, in the unit of the budget."""


class Report(NamedTuple):
    """The cost that a predictor has spent so far."""

    samples: int
    """Number of samples that have left the network."""
    mean_cost: float
    """Average cost per sample, in the unit of the budget."""
    budget: float
    """The budget, in its unit."""
    exit_shares: list[float]
    """Share of the samples that left at each exit."""
    point: float | None
    """Working point of the budget control, if there is one (`BudgetControl`)."""
    bound: float | None
    """Largest possible distance of `mean_cost` from the budget under that control, at present."""
    drift: float | None
    """Probability of as much evidence of drift where there is none, if there is an alarm."""
    alarm: str | None
    """Advice once the alarm rings."""


class Departure(NamedTuple):
    """Samples of one batch that left together."""

    rows: Tensor
    """`[b]` int64, their places in the batch, in order."""
    logits: Tensor
    """`[b, C, ...]`, their answers."""
    exit: int
    """From 0."""


class Step(NamedTuple):
    """The decisions for some samples at one exit."""

    exit: int
    """From 0."""
    reached: int
    """Number of samples that were there."""
    staying: int
    """Number of samples that continue."""
    forced: int = 0
    """Number of those that left though the rule would have kept them."""


class Runtime:
    """Runs a network stage by stage; behind each stage a rule says which samples continue.

    `AdaptivePredictor.predict`, `stream` and the benchmarks are loops over `begin`, `run` and
    `assemble`.

    Args:
        net: The network; put into evaluation mode and onto the device.
        costs: Cost of leaving at each exit `[E]` float64, in the unit of the answers.
        device: Where to run; by default a GPU if there is one.

    Raises:
        TypeError: If `net` is not a `MultiExitNetwork`.
        ValueError: If the device is not to be had.
    """

    _scale = 1.0  # of the policy's costs to those of the answers

    def __init__(
        self, net: MultiExitNetwork, costs: Tensor, device: str | torch.device | None = None
    ) -> None:
        if not isinstance(net, MultiExitNetwork):
            raise TypeError(
                f"net is a {type(net).__name__}, not a MultiExitNetwork; docs/own-network.md says "
                "how to make one"
            )
        self.device = _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.net = net.to(self.device).eval()
        self.costs = costs.to(self.device)
        self.alarm: Alarm | None = None
        self.profile: LatencyProfile | None = None
        self.source: RunFolder | None = None
        self._data: Any = None
        self._decisions: dict[Policy, list[Decision]] = {}

    def set_rule(self, rule: Rule) -> None:
        """Decides by this rule from now on."""
        if rule.scorer not in self._decisions:
            self._decisions[rule.scorer] = decisions(rule.scorer, self.net.num_exits)
        self._decisions_at = self._decisions[rule.scorer]
        self._thresholds = rule.thresholds.tolist()
        self.rule = rule

    def encode(self, samples: Sequence[Any]) -> Any:
        """A batch as the network takes it, by the data of the run, as in its evaluation.

        Args:
            samples: Texts; or images, by path or PIL's.

        Raises:
            ValueError: If the predictor is of no run, or a sample is not what the run was on.
        """
        if self._encoder is None:
            raise ValueError("encode: only a predictor made by `from_run` knows the data of a run")
        if isinstance(samples, str | Path) or not len(samples):
            raise ValueError(f"encode: a list of texts or images is wanted, not {samples!r:.80}")
        return self._encoder.encode(samples)

    @property
    def _encoder(self) -> Any:
        if self._data is None and self.source is not None:
            self._data = self.source.data()
        return self._data

    def watch(self, rate: float = 0.01, reference: ExitOutputs | None = None) -> None:
        """Warns, and says in `report`, when the traffic is no longer like the reference.

        Args:
            rate: Probability of a false alarm over any length of time.
            reference: Outputs of samples that nothing was fitted on; by default the traffic itself,
                of which only changes are then seen.
        """
        shown = None
        if reference is not None:
            answers = reference.pooled if reference.logits is None else reference.logits
            shown = None if answers is None else answers[0]
        self.alarm = Alarm(self.net.num_classes, rate, shown)

    def collect(self, batches: Iterable[Any]) -> ExitOutputs:
        """Exit outputs of the user's own traffic, without labels: all runs through the network.

        Args:
            batches: Input batches, or pairs of them and integer labels, which are left aside.

        Raises:
            ValueError: If there is no sample in them.
        """
        with torch.inference_mode():
            inputs = (self.to_device(inputs_of(batch)) for batch in batches)
            answers = (self.net(x) for x in inputs if batch_size(x))
            views = [torch.stack([policy_view(logits) for logits in exits]) for exits in answers]
        if not views:
            raise ValueError("batches: there is no sample in them")
        pooled = self.net.num_classes < views[0].shape[-1]
        # Out of inference mode, so that the policy can be saved and fitted further.
        fields: Any = {"pooled" if pooled else "logits": torch.cat(views, 1).clone()}
        return ExitOutputs(self.costs * self._scale, **fields)

    def measure(
        self, x: Any, batch_sizes: Sequence[int] = (1, 8, 32, 128), repeats: int = 20
    ) -> LatencyProfile:
        """Measures how long exits take here, by a batch's samples; kept for deadlines."""
        x = self.to_device(inputs_of(x))
        if not batch_size(x):
            raise ValueError("x: measure needs at least one sample")
        self.profile = profile_latency(self.net, x, batch_sizes, repeats=repeats)
        return self.profile

    def to_device(self, x: Any) -> Any:
        """An input batch, any nesting of tensors, on the device.

        Images of uint8, as loaders of small images give them, are normalized as in the run.

        Raises:
            TypeError: If it holds anything but tensors, as a text that was not encoded does.
        """
        if isinstance(x, Tensor):
            x = x.to(self.device)
            small = x.dtype == torch.uint8 and hasattr(self._encoder, "normalize")
            return self._encoder.normalize(x) if small else x
        kinds = {type(leaf) for leaf in pytree.tree_leaves(x)}
        wrong = [kind for kind in kinds if not issubclass(kind, (Tensor, int, float, type(None)))]
        if wrong or not any(issubclass(kind, Tensor) for kind in kinds):
            found = [kind.__name__ for kind in (*wrong, *kinds)] or ["nothing"]
            raise TypeError(
                f"x: the network takes tensors, not {found[0]}; "
                "encode texts and images first (`predictor.encode`), and turn arrays into "
                "tensors by torch.from_numpy"
            )
        return pytree.tree_map_only(Tensor, lambda t: t.to(self.device, non_blocking=True), x)

    def begin(self, x: Any) -> tuple[Any, int]:
        """The first state of a batch, and its size."""
        state = self.net.begin(self.to_device(inputs_of(x)))
        return state, batch_size(state)

    def run(self, k: int, state: Any, policy_state: Any) -> tuple[Tensor, Any, Any, Tensor]:
        """Runs stage `k` (from 0) and decides at its exit.

        Args:
            k: The stage.
            state: What the stage before left, or `begin`.
            policy_state: What the decision before left; None or `single_sample()` at first.

        Returns:
            Logits `[B, C, ...]`, both states, and the indices `[b]` of the samples that go on, to
            which the states are still to be narrowed.
        """
        logits, state = self.net.step(k, state)
        return logits, state, *self.decide(k, logits, policy_state)

    def decide(self, k: int, logits: Tensor, policy_state: Any) -> tuple[Any, Tensor]:
        """The next state of the policy, and the indices `[b]` of the samples that go on."""
        if k == 0 and self.alarm is not None and self.alarm.update(policy_view(logits)):
            warnings.warn(str(self.alarm.advice), stacklevel=2)
        # Without the score where the threshold lets everything leave, NaN scores too.
        if k + 1 == self.net.num_exits or self._thresholds[k] == -math.inf:
            return policy_state, _NOBODY.to(logits.device)
        if isinstance(policy_state, SingleSample):  # cheaper than nonzero
            return policy_state, _FIRST if policy_state.stays(logits) else _NOBODY
        stays, policy_state = self._decisions_at[k](logits, self.rule.thresholds[k], policy_state)
        return policy_state, stays.nonzero()[:, 0]

    def single_sample(self) -> SingleSample | None:
        """The policy's first state for a batch of one sample."""
        if self.device.type != "cpu":
            return None
        return SingleSample(self._decisions_at, self._thresholds)

    def assemble(self, departures: Sequence[Departure], samples: int) -> Answers:
        """Puts the answers of all samples of a batch into the order of its rows."""
        _, logits, k = departures[0]
        exits = torch.full((samples,), k, device=self.device)
        if len(departures) > 1:
            logits = torch.empty(samples, *logits.shape[1:], dtype=logits.dtype, device=self.device)
            for rows, some, k in departures:
                logits.index_copy_(0, rows, some)
                exits.index_fill_(0, rows, k)
        return Answers(logits.argmax(1), logits.float().softmax(1), exits, self.costs[exits])

    def record(self, steps: Sequence[Step]) -> None:
        """Called with what was decided since the last call; to be overridden."""

    def drop(self, k: int, samples: int) -> None:
        """Called with the number of samples that will never reach exit `k` after all."""


def inputs_of(batch: Any) -> Any:
    """The network's input out of a loader's batch: of `(x, labels)` the former, else all of it."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        labels = batch[1]
        if isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex()):
            return batch[0]
    return batch


def _usable(name: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch's builds differ
        raise ValueError(
            f"device={str(name)!r} cannot be used here: {str(error).splitlines()[0]}"
        ) from None
