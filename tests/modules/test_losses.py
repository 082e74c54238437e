import numpy as np
import pytest
import torch

from eenet.modules.losses import (
    exit_weights,
    multi_exit_cross_entropy,
    self_distillation,
    upsample_to_labels,
)


def test_exit_weights():
    assert exit_weights("linear", 3).tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert exit_weights("uniform", 4).tolist() == [0.25] * 4
    assert exit_weights([0, 1, 3], 3).tolist() == [0, 0.25, 0.75]
    for bad in ([1.0, 2.0], [-1.0, 1.0, 1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="exit_weights"):
            exit_weights(bad, 3)


def test_losses_agree_with_a_loop_over_samples():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, 5, generator=generator, requires_grad=True)
    labels = torch.randint(5, (8,), generator=generator)
    weights = torch.tensor([0.2, 0.3, 0.5])
    z = logits.detach().double().numpy()

    def log_softmax(v):
        return v - np.log(np.exp(v).sum())

    entropy, divergence, temperature = 0.0, 0.0, 3.0
    for n in range(8):
        teacher = log_softmax(z[2, n] / temperature)
        for k in range(3):
            entropy -= weights[k].item() * log_softmax(z[k, n])[labels[n]] / 8
            student = log_softmax(z[k, n] / temperature)
            kl = (np.exp(teacher) * (teacher - student)).sum()
            divergence += temperature**2 * weights[k].item() * kl / 8
    assert multi_exit_cross_entropy(logits, labels, weights).item() == pytest.approx(entropy)
    loss = self_distillation(logits, weights, temperature)
    assert loss.item() == pytest.approx(divergence, rel=1e-4)
    loss.backward()
    assert not logits.grad[2].any()  # the teacher is detached
    assert logits.grad[0].any()


def test_pixels_to_ignore_do_not_count():
    logits = torch.randn(2, 1, 3, 2, 2)
    labels = torch.tensor([[[0, 255], [1, 255]]])
    weights = torch.tensor([0.5, 0.5])
    loss = multi_exit_cross_entropy(logits, labels, weights, ignore_index=255)
    log_probs = logits.log_softmax(2)
    kept = log_probs[:, 0, 0, 0, 0] + log_probs[:, 0, 1, 1, 0]
    assert loss.item() == pytest.approx(-0.25 * kept.sum().item(), rel=1e-5)
    logits.requires_grad_()
    loss = multi_exit_cross_entropy(logits, labels * 0 + 255, weights, ignore_index=255)
    loss.backward()
    assert loss.item() == logits.grad.abs().max() == 0


def test_logits_grow_to_the_labels():
    column = torch.tensor([0.0, 4.0]).view(1, 1, 2, 1)
    grown = upsample_to_labels(column, torch.zeros(1, 4, 1))
    assert grown.flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    assert upsample_to_labels(column, torch.zeros(1, 2, 1)) is column
    flat = torch.randn(3, 5)
    assert upsample_to_labels(flat, torch.zeros(3)) is flat


def test_maps_are_distilled_pixel_by_pixel():
    logits = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.4, 0.6])
    pixels = logits.movedim(2, -1).reshape(2, -1, 4)
    maps, listed = self_distillation(logits, weights), self_distillation(pixels, weights)
    assert maps.item() == pytest.approx(listed.item())
