"""Exit outputs as the data of stage 2."""

from functools import partial
from typing import Any, Literal, NamedTuple, Self

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from eenet.data.batches import BatchSampler
from eenet.outputs import Evidence, ExitOutputs, load_outputs, recost, with_cost_matrix

_NUMBERS = 2**22
"""About the maximum number of logits of a batch, whatever its size; four times that in training."""


class OutputsBatch(NamedTuple):
    """A batch of exit outputs as stage 2 takes it."""

    evidence: Evidence
    """Leading shape `[E, B]`."""
    quality: Tensor
    """`[E, B]`; NaN where it is not known."""
    costs: Tensor
    """`[E]` or `[E, B]`."""
    confusion: Tensor | None = None
    """`[E, B, C, C]`, for segmentation."""


class OutputsData(L.LightningDataModule):
    """Exit outputs for stage 2: one file to fit on, one to report on.

    Args:
        fit: File of the validation split's exit outputs; never the training split's. Without
            labels policies learn from what the last exit would answer. Not needed to test policies
            that a checkpoint holds.
        test: File of the test split's; not needed to fit. To decide it needs no labels.
        holdout: Fraction of `fit` on which learned policies choose their best epoch.
        batch_size: Samples per training batch.
        eval_batch_size: Samples per batch elsewhere.
        split_seed: Seed of the hold-out.
        costs: Costs in place of the files' own: one cumulative number per exit, or the unit "macs"
            or "ms" of those that eenet measured and keeps in the metadata.
        cost_matrix: `[C, C]`, the cost of answering a where y is true; then its quality
            (`cost_matrix_quality`), not accuracy, is optimized and reported.
    """

    def __init__(
        self,
        fit: str | None = None,
        test: str | None = None,
        holdout: float = 0.2,
        batch_size: int = 512,
        eval_batch_size: int = 16384,
        split_seed: int = 0,
        costs: list[float] | Literal["macs", "ms"] | None = None,
        cost_matrix: list[list[float]] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < holdout < 1:
            raise ValueError(f"holdout={holdout} must be a fraction between 0 and 1")
        self.paths = {"fit": fit, "test": test}
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.holdout, self.split_seed = holdout, split_seed
        self.costs, self.cost_matrix = costs, cost_matrix
        self._loaded: dict[str, ExitOutputs] = {}

    @classmethod
    def from_outputs(
        cls, fit: ExitOutputs | None = None, test: ExitOutputs | None = None, **settings: Any
    ) -> Self:
        """The same with outputs in memory in place of files.

        Args:
            fit: In place of the file `fit`.
            test: In place of the file `test`.
            **settings: Those of the constructor.
        """
        data = cls(**settings)
        inputs = {"fit": fit, "test": test}
        data._loaded = {name: data._at_costs(x) for name, x in inputs.items() if x is not None}
        return data

    def outputs(self, name: str) -> ExitOutputs:
        """The outputs "fit" or "test", read once.

        Raises:
            ValueError: If that file was not given.
        """
        if name not in self._loaded:
            path = self.paths[name]
            if path is None:
                raise ValueError(f"data.{name}: no file of exit outputs was given")
            self._loaded[name] = self._at_costs(load_outputs(path))
        return self._loaded[name]

    def _at_costs(self, outputs: ExitOutputs) -> ExitOutputs:
        outputs = with_cost_matrix(outputs, self.cost_matrix)
        return outputs if self.costs is None else recost(outputs, self.costs)

    def setup(self, stage: str | None = None) -> None:
        """Reads what the stage needs, so that errors come first."""
        needed = {"fit": ("fit", "test"), "validate": ("fit",)}
        for name in needed.get(stage or "fit", ("test",)):
            if self.paths[name] is not None:
                self.outputs(name)
        if stage == "fit" and self.paths["test"] is not None:
            self._loaded.pop("test", None)  # only checked, and read again to report on it

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of the larger part of `fit`."""
        return self._loader("fit", self._parts()[0], training=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the part of `fit` held out."""
        return self._loader("fit", self._parts()[1])

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of `test`."""
        return self._loader("test", torch.arange(self.outputs("test").num_samples))

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of `test`."""
        return self.test_dataloader()

    def _parts(self) -> tuple[Tensor, Tensor]:
        samples = self.outputs("fit").num_samples
        if samples < 2:
            raise ValueError(
                f"data.fit: {samples} sample cannot be divided to learn and to choose by"
            )
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(self.split_seed))
        held = min(max(1, round(self.holdout * samples)), samples - 1)
        return order[held:], order[:held]

    def _loader(self, name: str, index: Tensor, training: bool = False) -> DataLoader[Any]:
        outputs = self.outputs(name)
        size, most = self.eval_batch_size, _NUMBERS
        if training:
            size, most = self.batch_size, 4 * _NUMBERS
        size = min(size, max(1, most // (outputs.num_exits * outputs.num_classes)))
        batches = BatchSampler(len(index), size, training, self.trainer)
        read = partial(_batch, outputs, learn=name == "fit")
        return DataLoader(index, batch_size=None, sampler=batches, collate_fn=read)  # type: ignore


def _batch(outputs: ExitOutputs, index: Tensor, learn: bool) -> OutputsBatch:
    """The samples at some positions; the file is read, and evidence made, as needed."""
    count = len(index)  # none where there are more processes than samples; outputs hold one or more
    part = outputs.select(index if count else torch.tensor([0]))
    evidence = part.evidence()
    if learn:
        quality = part.learning_quality()
    elif part.labelled:
        quality = part.answer_quality()
    else:
        quality = torch.full_like(evidence.entropy, torch.nan)
    costs = part.costs if part.costs.dim() == 1 else part.costs[:, :count]
    confusion = None if part.confusion is None else part.confusion[:, :count]
    evidence = Evidence(*(field[:, :count] for field in evidence))
    return OutputsBatch(evidence, quality[:, :count], costs, confusion)
