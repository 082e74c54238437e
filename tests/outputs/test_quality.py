import pytest
import torch

from eenet.outputs import cost_matrix_quality

LABELS = torch.tensor([0, 1, 2])
ANSWERS = torch.tensor([[0, 0, 0], [0, 1, 2]])


def test_zero_one_costs_are_accuracy():
    quality = cost_matrix_quality(ANSWERS, LABELS, 1 - torch.eye(3))
    assert quality.tolist() == [[1, 0, 0], [1, 1, 1]]


def test_by_hand_from_logits():
    matrix = torch.tensor([[0.0, 4, 4], [1, 0, 2], [3, 4, 0]])
    logits = torch.nn.functional.one_hot(ANSWERS, 3).float()
    assert cost_matrix_quality(logits, LABELS, matrix).tolist() == [[1, 0.75, 0.25], [1, 1, 1]]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(3, 3), "only the number 1"),
        (torch.ones(2, 3), "matrix must be"),
        (torch.eye(2), "answers must lie|labels must lie"),
    ],
)
def test_bad_matrices_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        cost_matrix_quality(ANSWERS, LABELS, matrix)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="labels must be"):
        cost_matrix_quality(ANSWERS, LABELS[:2], torch.eye(3))
