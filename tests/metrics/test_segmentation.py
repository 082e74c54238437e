import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from eenet.metrics import BudgetCurve, MeanIoU
from eenet.metrics.segmentation import confusion_counts, mean_iou


def test_a_hand_computed_image():
    labels = torch.tensor([[[0, 0, 1], [1, 255, -1]]])
    predicted = torch.tensor([[[0, 2, 1], [1, 1, 1]]])
    counts = confusion_counts(predicted, labels, 3)
    assert counts.tolist() == [[[1, 0, 1], [0, 2, 0], [0, 0, 0]]]
    assert counts.dtype == torch.int32
    # Class 0: 1 of 2 pixels; class 1: 2 of 2; class 2 is not in the labels.
    assert mean_iou(counts).tolist() == [0.75]
    assert mean_iou(torch.zeros(3, 3)).isnan()


def test_no_image_has_no_counts():
    assert confusion_counts(*torch.zeros(2, 0, 4, 5).long(), num_classes=3).shape == (0, 3, 3)


def test_images_add_up_to_torchmetrics_over_all_pixels():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (6, 8, 8), generator=generator)
    predicted = torch.randint(4, (6, 8, 8), generator=generator)
    labels[:, :2] = 255
    theirs = MulticlassJaccardIndex(4, ignore_index=255)
    metric = MeanIoU(4, ignore_index=255, validate_args=False)
    for part in (slice(0, 2), slice(2, 6)):
        theirs.update(predicted[part], labels[part])
        metric.update(predicted[part], labels[part])
    counts = confusion_counts(predicted, labels, 4)
    assert metric.compute() == pytest.approx(theirs.compute().item())
    assert mean_iou(counts.sum(0)).item() == pytest.approx(theirs.compute().item())
    one = MulticlassJaccardIndex(4, ignore_index=255)(predicted[3], labels[3])
    assert mean_iou(counts)[3].item() == pytest.approx(one.item())


def test_a_policys_confusion_is_that_of_the_exits_it_chose():
    generator = torch.Generator().manual_seed(0)
    exits = torch.randint(3, (2, 10), generator=generator)
    confusion = torch.randint(50, (3, 10, 4, 4), generator=generator, dtype=torch.int32)
    metric = BudgetCurve(budgets=2, exits=3, classes=4)
    for part in torch.arange(10).split(4):
        metric.update(
            exits[:, part], torch.arange(1.0, 4), torch.ones(3, len(part)), confusion[:, part]
        )
    total = metric.curve().confusion
    for m in range(2):
        expected = sum(confusion[e, n].numpy() for n, e in enumerate(exits[m].tolist()))
        np.testing.assert_array_equal(total[m], expected)
