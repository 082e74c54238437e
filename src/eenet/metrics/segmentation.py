"""Mean intersection over union, for segmentation."""

import torch
from torch import Tensor


def confusion_counts(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Pixels of each image by true class (row) and predicted class (column), `[B, C, C]` int32.

    Args:
        prediction: Classes `[B, H, W]`, int64.
        labels: True classes `[B, H, W]`, int64; pixels outside [0, C - 1] do not count.
        num_classes: Number of classes C.
    """
    counted = (labels >= 0) & (labels < num_classes)
    last = num_classes**2  # the cell of what does not count
    cells = (labels * num_classes + prediction).where(counted, last)
    counts = cells.new_zeros(len(cells), last + 1)
    for row, image in zip(counts, cells.flatten(1), strict=True):
        row += image.bincount(minlength=last + 1)
    return counts[:, :-1].reshape(len(cells), num_classes, num_classes).int()


def mean_iou(confusion: Tensor) -> Tensor:
    """Mean IoU of `[..., C, C]` counts over the classes that the labels hold, `[...]` float64.

    A class without a labelled pixel is left out: a few stray pixels would weigh as much as a whole
    class, and exits would be averaged over different classes. The strays still count as misses of
    the class that they should be. NaN where no pixel is labelled.
    """
    counts = confusion.double()
    hits, labelled = counts.diagonal(dim1=-2, dim2=-1), counts.sum(-1)
    return (hits / (labelled + counts.sum(-2) - hits)).where(labelled > 0, torch.nan).nanmean(-1)
