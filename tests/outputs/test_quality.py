import pytest
import torch

from eenet.outputs import ExitOutputs, cost_matrix_quality, with_cost_matrix

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


def two_exits(**fields):
    """Exit 1 answers 0, 1; the last exit is sure by 0.7 and 0.5 of 0 and 2."""
    first, last = [[0.6, 0.2, 0.2], [0.1, 0.8, 0.1]], [[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]]
    logits = torch.tensor([first, last]).log()
    return ExitOutputs(costs=torch.tensor([1.0, 2.0]), logits=logits, **fields)


def test_what_the_last_exit_expects_of_an_answer_by_hand():
    expected = two_exits().expected_quality()
    assert torch.allclose(expected, torch.tensor([[0.7, 0.3], [0.7, 0.5]]))
    matrix = [[0.0, 4, 4], [1, 0, 2], [3, 4, 0]]
    under = with_cost_matrix(two_exits(), matrix).expected_quality()
    quality = (4 - torch.tensor(matrix)) / 4
    for n, (last, answers) in enumerate((([0.7, 0.2, 0.1], (0, 0)), ([0.2, 0.3, 0.5], (1, 2)))):
        for k, answer in enumerate(answers):
            by_hand = sum(p * float(quality[c, answer]) for c, p in enumerate(last))
            assert float(under[k, n]) == pytest.approx(by_hand)


def test_the_quality_to_learn_from_mixes_labels_and_expectation():
    labelled = two_exits(labels=torch.tensor([0, 2]))
    hard, expected = labelled.answer_quality(), labelled.expected_quality()
    assert torch.equal(labelled.learning_quality(), hard)
    assert torch.allclose(labelled.learning_quality(0.75), 0.25 * hard + 0.75 * expected)
    assert torch.equal(two_exits().learning_quality(), expected)
    given = two_exits(quality=torch.rand(2, 2))
    assert torch.equal(given.learning_quality(0.75), given.quality)
    with pytest.raises(ValueError, match="without labels"):
        given.expected_quality()
