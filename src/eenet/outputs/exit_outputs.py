"""Exit outputs: all that a scheduler ever sees of a network."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import InitVar, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from eenet.outputs.cost_matrix import cost_matrix_quality, ensure, qualities
from eenet.outputs.evidence import Evidence

FIELDS = ("costs", "logits", "pooled", "labels", "quality", "confusion")
"""Names of the tensors, in files too."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_HUGE = 1e30
"""Far from where differences of float32 numbers overflow."""

_BLOCK, _NUMBERS = 16384, 2**22
"""Most samples, and about the most logits, that are looked at at a time."""


@dataclass(frozen=True)
class ExitOutputs:
    """Outputs of E exits on N samples, tensors or numpy arrays.

    Args:
        costs: Cumulative cost of answering at each exit, `[E]`, or `[E, N]` where it depends on
            the sample. Positive, non-decreasing over the exits, in any one unit.
        logits: `[E, N, C]`, for classification.
        pooled: `[E, N, C + 3]`, in place of logits where there is one for every pixel (see
            `Evidence.from_pooled`).
        labels: True classes `[N]`, int64; None for unlabelled traffic.
        quality: `[E, N]`, how good each exit's answer is, any bounded number; by default 1 where
            the prediction equals the label and 0 elsewhere.
        cost_matrix: `[C, C]`; `cost_matrix[y, a]` is the cost of answering a where y is true. Then
            the quality is that of `cost_matrix_quality`. Not kept in files.
        ids: Ignored, as `features` is: nothing reads them, though older files hold them.
        features: Ignored.
        confusion: `[E, N, C, C]` counts per image, for segmentation.
        metadata: Provenance, strings to strings. "cost_unit" names the unit of the costs.

    Raises:
        ValueError: If a shape, a dtype or a value is not as described; it names the field.
    """

    costs: Tensor
    logits: Tensor | None = None
    pooled: Tensor | None = None
    labels: Tensor | None = None
    quality: Tensor | None = None
    cost_matrix: Tensor | None = None
    ids: InitVar[Any] = None
    features: InitVar[Any] = None
    confusion: Tensor | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self, ids: Any, features: Any) -> None:
        """Checks every field against the others."""
        for name in FIELDS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _tensor(name, value))
        answers = self._answers
        shape = tuple(answers.shape)
        ensure(answers.dim() == 3, f"logits must be [exits, samples, classes], got {shape}")
        exits, samples, _ = shape
        ensure(exits * samples > 0, f"logits hold no exit or no sample: {shape}")
        ensure(
            self.num_classes >= 2,
            "logits need at least 2 classes; of one sigmoid logit z give [0, z]",
        )
        _require_float("logits", answers)
        low, high = map(float, answers.aminmax())  # NaN if there is one, and no copy
        ensure(-_HUGE < low <= high < _HUGE, f"logits hold NaN or numbers beyond {_HUGE:g}")
        if self.logits is not None and 0 <= low <= high <= 1:
            sums = answers.sum(-1, dtype=torch.float32)
            if bool(((sums - 1).abs() < 1e-2).all()):
                warnings.warn("logits look like probabilities: give their logarithm", stacklevel=3)
        check_costs(self.costs, exits, samples)
        if self.labels is not None:
            labels, largest = self.labels, self.num_classes - 1
            shape = tuple(labels.shape)
            ensure(shape == (samples,), f"labels must be [{samples}], got {shape}")
            ensure(labels.dtype == torch.int64, f"labels must be int64, got {labels.dtype}")
            low, high = int(labels.min()), int(labels.max())
            inside = 0 <= low <= high <= largest
            ensure(inside, f"labels must lie in [0, {largest}], got values from {low} to {high}")
        if self.quality is not None:
            shape = tuple(self.quality.shape)
            ensure(shape == (exits, samples), f"quality must be {[exits, samples]}, got {shape}")
            _require_float("quality", self.quality)
            ensure(self.quality.isfinite().all(), "quality holds NaN or infinity")
        if self.cost_matrix is not None:
            object.__setattr__(self, "cost_matrix", _tensor("cost_matrix", self.cost_matrix))
            qualities(self.cost_matrix, self.num_classes)
        if self.confusion is not None:
            wanted, shape = (exits, samples, *2 * (self.num_classes,)), tuple(self.confusion.shape)
            ensure(shape == wanted, f"confusion must be {list(wanted)}, got {shape}")

    @property
    def num_exits(self) -> int:
        """Number of exits E."""
        return self._answers.shape[0]

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return self._answers.shape[1]

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self._answers.shape[2] - (3 if self.logits is None else 0)

    @property
    def mean_costs(self) -> Tensor:
        """Cost of each exit, averaged over the samples, `[E]` float64."""
        return mean_costs(self.costs)

    @property
    def relative_costs(self) -> Tensor:
        """Costs as fractions of the full network's mean cost, `[E]` or `[E, N]` float64."""
        return self.costs.double() / self.mean_costs[-1]

    def evidence(self, index: Tensor | slice = slice(None)) -> Evidence:
        """Evidence of all samples, or of those at some positions, leading shape `[E, N]`."""
        answers = self._answers[:, index]
        make = Evidence.from_pooled if self.logits is None else Evidence.from_logits
        return make(answers)

    def map(self, of: Callable[[Evidence], Tensor], dim: int = -1) -> Tensor:
        """Applies a function to the evidence of all samples, block by block.

        Args:
            of: From the evidence `[E, n]` of n samples to a tensor.
            dim: Which of that tensor's dimensions is the sample.
        """
        whole = torch.empty(0)
        for block in self.blocks():
            part = of(self.evidence(block))
            if block.start == 0:  # filled, since parts kept between large tensors scatter the heap
                shape = list(part.shape)
                shape[dim] = self.num_samples
                whole = part.new_empty(shape)
            whole.narrow(dim, block.start, part.shape[dim]).copy_(part)
        return whole

    def blocks(self) -> Iterator[slice]:
        """Positions of all samples, in blocks whose evidence takes little memory."""
        exits, samples, width = self._answers.shape
        size = max(1, min(_BLOCK, _NUMBERS // (exits * width)))
        return (slice(start, start + size) for start in range(0, samples, size))

    @property
    def measure(self) -> str:
        """Name of `answer_quality`: "accuracy" unless it was defined otherwise."""
        return "accuracy" if self.quality is self.cost_matrix is None else "quality"

    @property
    def labelled(self) -> bool:
        """Whether the quality of the answers is known."""
        return self.quality is not None or (self.labels is not None and self.logits is not None)

    def answer_quality(self) -> Tensor:
        """Quality of each exit's answer, `[E, N]` float32; needs labels or `quality`."""
        if self.quality is not None:
            return self.quality.float()
        if self.labels is None or self.logits is None:
            raise ValueError("labels: this needs labelled outputs, or their `quality`")
        answers = self.logits.argmax(-1)
        if self.cost_matrix is None:
            return (answers == self.labels).float()
        return cost_matrix_quality(answers, self.labels, self.cost_matrix)

    def expected_quality(self) -> Tensor:
        """Quality of each exit's answer as the last exit sees it, `[E, N]` float32; no labels used.

        It is `sum_c p_c quality(answer, c)` with the last exit's probabilities p: without a cost
        matrix the probability that it gives the exit's answer.

        Raises:
            ValueError: If there are no logits, or the quality was given instead of labels.
        """
        if self.logits is None or self.quality is not None:
            raise ValueError("quality: only that of classes, with logits, is known without labels")
        given = None if self.cost_matrix is None else qualities(self.cost_matrix, self.num_classes)

        def of(evidence: Evidence) -> Tensor:
            expected = evidence.log_probs[-1].exp()
            expected = expected if given is None else expected @ given
            return expected.gather(1, evidence.prediction.T).T

        return self.map(of)

    def learning_quality(self, soft: float = 0.0) -> Tensor:
        """The quality to learn from, `[E, N]` float32; `expected_quality` where no label is.

        Args:
            soft: Share of `expected_quality` where there are labels, in [0, 1]. It has the same
                mean, given what was seen, if the last exit is calibrated, and less noise.
        """
        if self.quality is not None or (self.labelled and soft == 0):
            return self.answer_quality()
        expected = self.expected_quality()
        return torch.lerp(self.answer_quality(), expected, soft) if self.labelled else expected

    def select(self, index: Tensor) -> "ExitOutputs":
        """The outputs of the samples at positions `[n]` (int64) or under a mask `[N]`."""
        fields = {name: getattr(self, name) for name in FIELDS}
        changed: dict[str, Any] = {
            name: value[index] if name == "labels" else value[:, index]
            for name, value in fields.items()
            if value is not None and not (name == "costs" and value.dim() == 1)
        }
        return replace(self, **changed)

    @property
    def _answers(self) -> Tensor:
        if (self.logits is None) == (self.pooled is None):
            raise ValueError("logits: give exactly one of logits and pooled")
        return self.logits if self.logits is not None else self.pooled  # type: ignore[return-value]


def mean_costs(costs: Tensor) -> Tensor:
    """Cost of each exit, averaged over the samples, `[E]` float64, of costs `[E]` or `[E, N]`."""
    costs = costs.double()
    if costs.dim() == 1:
        return costs
    return costs[:, 0] + (costs - costs[:, :1]).mean(1)  # exact where all samples cost the same


def per_sample(costs: Tensor, samples: int) -> Tensor:
    """Costs `[E]` or `[E, N]` as `[E, N]`."""
    return costs if costs.dim() == 2 else costs[:, None].expand(-1, samples)


def check_costs(costs: Tensor, exits: int, samples: int | None = None) -> None:
    """Checks cumulative costs `[E]` or `[E, N]`.

    Raises:
        ValueError: If they have another shape, are not positive and finite, or fall from one exit
            to the next.
    """
    shapes = [(exits,)] if samples is None else [(exits,), (exits, samples)]
    shape = tuple(costs.shape)
    ensure(shape in shapes, f"costs must be one per exit, {shapes}, got {shape}")
    _require_float("costs", costs)
    ensure(costs.isfinite().all() and (costs > 0).all(), "costs must be positive and finite")
    fault = "costs must be cumulative: they may not fall from one exit to the next"
    fault += f", got {costs.tolist()}" if costs.dim() == 1 else ""
    ensure((costs.diff(dim=0) >= 0).all(), fault)


def _tensor(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a tensor or an array of numbers: {error}") from error


def _require_float(name: str, value: Tensor) -> None:
    kinds = ", ".join(str(kind).removeprefix("torch.") for kind in _FLOATS)
    ensure(value.dtype in _FLOATS, f"{name} must be floating point ({kinds}), got {value.dtype}")
