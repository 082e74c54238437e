import numpy as np
import torch

from eenet.metrics import BudgetCurve
from eenet.metrics.curve import curve_from_sums, exit_sums


def test_a_hand_computed_case():
    exits = torch.tensor([[0, 1, 1, 0]])
    quality = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0]])
    curve = curve_from_sums(exit_sums(exits, torch.tensor([1.0, 3.0]), quality))
    assert curve.cost.tolist() == [2.0]
    assert curve.cost_se.tolist() == [0.5]  # values 1, 3, 3, 1: deviation 1, over sqrt(4)
    assert curve.quality.tolist() == [0.5]
    assert curve.shares.tolist() == [[0.5, 0.5]]
    assert curve.exit_quality.tolist() == [[0.5, 0.5]]


def test_batches_add_up_to_a_loop_over_samples():
    generator = torch.Generator().manual_seed(0)
    exits = torch.randint(3, (4, 100), generator=generator)
    costs = torch.rand(3, 100, generator=generator, dtype=torch.float64).cumsum(0)
    quality = torch.rand(3, 100, generator=generator)
    metric = BudgetCurve(budgets=4, exits=3)
    for part in torch.arange(100).split(17):
        metric.update(exits[:, part], costs[:, part], quality[:, part])
    curve = metric.compute()
    for m in range(4):
        rows = [(costs[e, n].item(), quality[e, n].item()) for n, e in enumerate(exits[m].tolist())]
        spent, reached = np.array(rows).T
        np.testing.assert_allclose(curve.cost[m], spent.mean())
        np.testing.assert_allclose(curve.cost_se[m], spent.std() / 10)
        np.testing.assert_allclose(curve.quality[m], reached.mean(), rtol=1e-6)
        for k in range(3):
            here = exits[m] == k
            np.testing.assert_allclose(curve.shares[m, k], here.double().mean())
            np.testing.assert_allclose(curve.exit_quality[m, k], quality[k][here].mean(), rtol=1e-6)
