import math

import numpy as np
import pytest
import torch

from eenet.outputs import Evidence
from eenet.outputs.evidence import count_votes


def test_evidence_of_a_hand_computed_case():
    logits = torch.tensor([[math.log(6.0), math.log(3.0), math.log(1.0)]])
    evidence = Evidence.from_logits(logits)
    assert evidence.log_probs.exp()[0].tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert evidence.one_minus_max.item() == pytest.approx(0.4)
    assert evidence.one_minus_margin.item() == pytest.approx(1 - 0.3)
    entropy = -(0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1)) / math.log(3)
    assert evidence.entropy.item() == pytest.approx(entropy)
    assert evidence.prediction.item() == 0


def test_evidence_agrees_with_numpy_in_double_precision():
    logits = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(0)) * 4
    evidence = Evidence.from_logits(logits)
    z = logits.double().numpy()
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    top = np.sort(p, -1)
    np.testing.assert_allclose(evidence.one_minus_max, 1 - top[..., -1], atol=1e-6)
    np.testing.assert_allclose(
        evidence.one_minus_margin, 1 - top[..., -1] + top[..., -2], atol=1e-6
    )
    np.testing.assert_allclose(evidence.entropy, -(p * np.log(p)).sum(-1) / np.log(7), atol=1e-5)


def test_very_confident_samples_do_not_tie():
    logits = torch.stack([torch.linspace(20, 60, 100), torch.zeros(100)], -1)
    evidence = Evidence.from_logits(logits)
    assert len(evidence.one_minus_max.unique()) == 100
    assert (evidence.one_minus_max.diff() < 0).all()


def test_pooled_evidence_keeps_means_and_normalized_probabilities():
    pooled = torch.tensor([[0.5, 0.5, 0.0, 0.2, 0.3, 0.4]])
    evidence = Evidence.from_pooled(pooled)
    assert evidence.log_probs.exp()[0].tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert [x.item() for x in evidence[1:]] == pytest.approx([0.2, 0.3, 0.4])
    assert torch.isfinite(evidence.log_probs).all()


def test_votes_count_each_exit_once():
    first = Evidence.from_logits(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    second = Evidence.from_logits(torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
    votes = count_votes(count_votes(None, first), second)
    assert votes.tolist() == [[1, 1], [0, 2]]
