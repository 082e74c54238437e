from dataclasses import replace

import pytest
import torch
from tests.conftest import make_outputs
from tests.policies.contract import ALL, fitted

from eenet.outputs import ExitOutputs
from eenet.policies import Random

GOOD = {
    "costs": torch.tensor([1.0, 2.0]),
    "logits": torch.zeros(2, 3, 4),
    "labels": torch.tensor([0, 1, 3]),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 3)}, "logits must be"),
        ({"logits": torch.full((2, 3, 4), float("nan"))}, "logits hold NaN"),
        ({"logits": torch.zeros(2, 0, 4), "labels": None}, "no sample"),
        ({"logits": torch.zeros(2, 3, 1)}, "at least 2 classes"),
        ({"logits": None}, "exactly one of logits and pooled"),
        ({"labels": torch.tensor([0, 1, 4])}, r"labels must lie in \[0, 3\].*0 to 4"),
        ({"labels": torch.tensor([0, 1])}, r"labels must be \[3\]"),
        ({"labels": torch.tensor([0.0, 1.0, 2.0])}, "int64"),
        ({"costs": torch.tensor([1.0])}, "costs must be one per exit"),
        ({"costs": torch.tensor([2.0, 1.0])}, "cumulative"),
        ({"costs": torch.tensor([0.0, 1.0])}, "positive"),
        ({"costs": torch.tensor([1, 2])}, "floating"),
        ({"quality": torch.zeros(3, 2)}, "quality must be"),
        ({"quality": torch.zeros(2, 3).to(torch.float8_e4m3fn)}, "quality must be floating"),
        ({"logits": torch.zeros(2, 3, 4).to(torch.float8_e5m2)}, "logits must be floating"),
        ({"confusion": torch.zeros(2, 3, 5, 5)}, "confusion must be"),
        ({"labels": ["a", "b", "c"]}, "labels must be a tensor or an array of numbers"),
    ],
)
def test_a_bad_field_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        ExitOutputs(**{**GOOD, **change})


def test_quality_is_being_right_unless_given():
    logits = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    outputs = ExitOutputs(torch.tensor([1.0, 2.0]), logits, labels=torch.tensor([0, 1]))
    assert outputs.answer_quality().tolist() == [[1, 0], [1, 1]]
    unlabelled = ExitOutputs(torch.tensor([1.0, 2.0]), logits)
    with pytest.raises(ValueError, match="labels"):
        unlabelled.answer_quality()


def test_numpy_arrays_and_tensors_with_a_gradient_are_taken():
    arrays = {name: value.numpy() for name, value in GOOD.items()}
    logits = GOOD["logits"].clone().requires_grad_()
    for outputs in (ExitOutputs(**arrays), ExitOutputs(**{**GOOD, "logits": logits})):
        assert all(torch.equal(getattr(outputs, name), value) for name, value in GOOD.items())
        assert not outputs.logits.requires_grad


def test_probabilities_in_place_of_logits_are_mentioned():
    probs = make_outputs().logits.softmax(-1)
    with pytest.warns(UserWarning, match="give their logarithm"):
        ExitOutputs(costs=torch.tensor([1.0, 2.0, 3.0]), logits=probs)


def test_select_narrows_every_field():
    costs = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    outputs = ExitOutputs(**{**GOOD, "costs": costs})
    some = outputs.select(torch.tensor([2, 0]))
    assert some.labels.tolist() == [3, 0]
    assert some.costs.tolist() == [[3, 1], [6, 4]]
    assert some.logits.shape == (2, 2, 4)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_policy_fitted_block_by_block_is_the_same(kind, dtype, monkeypatch):
    outputs = make_outputs(samples=300, classes=7)
    outputs = replace(outputs, logits=outputs.logits.to(dtype))
    if kind is Random:  # its noise is of the place in a block
        return

    def fit():
        policy = fitted(kind(), outputs, [0.5])
        return policy, outputs.map(policy.at_fraction(0.5).decide)

    whole, at_once = fit()
    monkeypatch.setattr("eenet.outputs.exit_outputs._NUMBERS", 3 * 7 * 41)
    assert len(list(outputs.blocks())) == 8
    blocks, bit_by_bit = fit()
    torch.testing.assert_close(blocks.state_dict(), whole.state_dict(), rtol=1e-6, atol=1e-6)
    assert torch.equal(bit_by_bit, at_once)
