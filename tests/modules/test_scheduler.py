from dataclasses import replace
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from tests.conftest import make_outputs

from eenet.data import OutputsData
from eenet.metrics import BudgetCurve
from eenet.modules import SchedulerModule
from eenet.policies import EENet, EENetPlus, MaxProbability


def run(fit, test, *policies, epochs=1, **settings):
    """Fits on outputs in memory, then tests what was fitted, as `eenet fit` and `eenet test` do."""
    data = OutputsData.from_outputs(fit, test)
    module = SchedulerModule(list(policies), [0.4, 0.6], **settings)
    trainer = L.Trainer(accelerator="cpu", barebones=True, max_epochs=epochs)
    trainer.fit(module, data)
    loaded = SchedulerModule([type(p)() for p in policies], [0.4, 0.6], **settings)
    loaded.load_state_dict(module.state_dict())
    trainer.test(loaded, data)
    return loaded


def test_fractions_are_of_the_costs_fitted_with_though_costs_differ_from_sample_to_sample():
    fit, test = (make_outputs(seed=seed, per_sample_costs=True) for seed in (0, 1))
    assert fit.mean_costs[-1] != test.mean_costs[-1]
    module = run(fit, test, EENet(), EENetPlus(), MaxProbability())
    for label, curve in module.results().items():
        used = curve.cost / test.mean_costs[-1]
        assert used.tolist() == pytest.approx([0.4, 0.6], abs=0.08), label


def test_costs_in_another_unit_or_with_another_full_network_keep_fractions():
    fit, test = make_outputs(), make_outputs(seed=1)
    test.costs.mul_(1.03)  # as if measured again
    module = run(fit, test, EENet())
    assert [rule.cost for rule in module.rules["eenet"]] == pytest.approx([4, 6], abs=0.05)


@pytest.mark.parametrize(
    ("other", "message"),
    [({"exits": 4}, "fitted on 3 exits.*have 4"), ({"classes": 7}, "fitted on .*classes")],
)
def test_outputs_of_another_shape_than_fitted_on_are_refused(other, message):
    for policy in (EENet(), EENetPlus()):
        with pytest.raises(ValueError, match=message):
            run(make_outputs(), make_outputs(**other), policy)


def test_too_few_samples_are_named_before_training(monkeypatch):
    monkeypatch.setattr(SchedulerModule, "training_step", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"eenet\+: there are only 4 samples.*needs 5"):
        run(make_outputs(samples=4), make_outputs(), EENetPlus())


def test_outputs_without_labels_are_fitted_and_decided_but_not_reported_on():
    fit, test = (replace(make_outputs(seed=k), labels=None) for k in (0, 1))
    data = OutputsData.from_outputs(fit, test)
    module = SchedulerModule([EENet(), EENetPlus(), MaxProbability()], [0.4, 0.6])
    trainer = L.Trainer(accelerator="cpu", barebones=True, max_epochs=1)
    trainer.fit(module, data)
    decided = trainer.predict(module, data)[0]
    rules = module.rules["eenet+"]
    assert torch.equal(
        decided["eenet+"][0], torch.stack([r.decide(test.evidence()) for r in rules])
    )
    with pytest.raises(ValueError, match=r"data\.test: .* need labels"):
        trainer.test(module, data)


def test_a_process_without_samples_adds_nothing():
    policy, test = MaxProbability().fit(make_outputs()), make_outputs(samples=1)
    data, metric = OutputsData.from_outputs(test=test), BudgetCurve(budgets=1, exits=3)
    for rank in (1, 0):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, current_epoch=0)
        (batch,) = data.test_dataloader()
        exits = policy.at_fraction(0.7).decide(batch.evidence)
        assert len(exits) == 1 - rank
        metric.update(exits[None], batch.costs, batch.quality)
    curve = metric.curve()
    assert curve.quality.tolist() == test.answer_quality()[exits].flatten().tolist()
    assert curve.cost.tolist() == test.costs[exits].tolist()
