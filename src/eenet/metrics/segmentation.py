"""Mean intersection over union, for segmentation."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


def most_probable(logits: Tensor) -> Tensor:
    """Classes `[B, H, W]` of logits `[B, C, H, W]`; `argmax` takes four times as long on a CPU."""
    return logits.max(1).indices


def confusion_counts(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Confusion counts of each image.

    Args:
        prediction: Classes `[B, H, W]`, int64.
        labels: True classes `[B, H, W]`, int64; pixels outside [0, C - 1] do not count.
        num_classes: Number of classes C.

    Returns:
        `[B, C, C]` int32: pixels of true class (row) and predicted class (column).
    """
    cells = labels * num_classes + prediction
    counted = (labels >= 0) & (labels < num_classes)
    counts = [torch.bincount(c[m], minlength=num_classes**2) for c, m in zip(cells, counted)]  # noqa: B905
    return torch.stack(counts).view(-1, num_classes, num_classes).int()


def mean_iou(confusion: Tensor) -> Tensor:
    """Mean IoU of `[..., C, C]` counts over the classes that the labels hold, `[...]` float64.

    A class without a labelled pixel is left out: a few stray pixels of it would count as much as a
    whole class, and the classes averaged over would differ between exits. They still count as
    misses of the class that they should be. NaN where no pixel is labelled.
    """
    counts = confusion.double()
    hits, labelled = counts.diagonal(dim1=-2, dim2=-1), counts.sum(-1)
    return (hits / (labelled + counts.sum(-2) - hits)).where(labelled > 0, torch.nan).nanmean(-1)


class MeanIoU(MulticlassConfusionMatrix):
    """`mean_iou` of all pixels seen: torchmetrics' confusion counts, exact over processes."""

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds logits `[B, C, H, W]` of one exit and labels `[B, H, W]`."""
        super().update(most_probable(logits), labels)

    def compute(self) -> Tensor:
        """The mean IoU, a scalar."""
        return mean_iou(self.confmat).float()
