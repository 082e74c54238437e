"""Policies on whatever one can be given: an error that names what is wrong, or a right answer."""

import contextlib
import dataclasses
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.policies.contract import ALL, FIXED, fitted, leave_step_by_step

from eenet import policies as s
from eenet.outputs import ExitOutputs
from eenet.policies.nested import NestedFamily
from eenet.policies.thresholds import at_exits

pytestmark = pytest.mark.filterwarnings("ignore:.*many scores tie")


@st.composite
def outputs(draw):
    """Valid outputs at the edges: few samples, exits and classes, ties, extremes."""
    exits, samples = draw(st.integers(1, 4)), draw(st.integers(1, 24))
    classes = draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(exits, samples, classes, generator=generator)
    kind = draw(st.sampled_from(["plain", "rounded", "constant", "copies", "one class"]))
    if kind == "rounded":
        logits = logits.round()
    elif kind == "constant":
        logits = torch.zeros_like(logits)
    elif kind == "copies":
        logits = logits[:, :1].repeat(1, samples, 1)
    elif kind == "one class":
        logits[..., 0] += 10
    logits *= draw(st.sampled_from([1.0, 1e-30, 1e-3, 30.0, 1e4]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16]))
    logits = logits.clamp(-6e4, 6e4).to(dtype)
    labels = torch.randint(draw(st.integers(1, classes)), (samples,), generator=generator)
    steps = [draw(st.sampled_from([0.0, 1e-9, 1.0, 1.5, 1e9])) for _ in range(exits - 1)]
    costs = torch.tensor([1.0, *steps], dtype=torch.float64).cumsum(0)
    costs *= draw(st.sampled_from([1.0, 1e-30, 1e-3, 3e9, 1e25]))
    if draw(st.booleans()):
        costs = costs.to(torch.float32)
    if draw(st.integers(0, 3)) == 0:
        costs = costs[:, None] * (0.5 + torch.rand(samples, generator=generator)).to(costs)
    quality = None
    if draw(st.integers(0, 3)) == 0:
        quality = torch.rand(exits, samples, generator=generator).round(decimals=1)
    return ExitOutputs(costs=costs, logits=logits, labels=labels, quality=quality)


@pytest.mark.parametrize("make", ALL)
@given(outputs(), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))
def test_a_policy_keeps_its_contract_on_every_valid_input(make, outputs, place):
    low, high = outputs.mean_costs[[0, -1]].tolist()
    budget = low + place * (high - low)
    policy = make()
    if outputs.num_samples < policy.least_samples and policy.any_budget:
        with pytest.raises(ValueError, match="there are only"):
            policy.fit(outputs)
        return
    fraction = budget / high
    rule = fitted(policy, outputs, [fraction]).at_fraction(fraction)
    exits = rule.decide(outputs.evidence())
    assert exits.dtype == torch.int64
    assert 0 <= int(exits.min()) <= int(exits.max()) < outputs.num_exits
    again = fitted(make(), outputs, [fraction]).at_fraction(fraction)
    assert torch.equal(again.thresholds, rule.thresholds)
    assert torch.equal(again.decide(outputs.evidence()), exits)

    walked, near = leave_step_by_step(rule, outputs)
    clear = near > (1e-5 if make in (*FIXED, s.EENetPlus) else -1)  # sums of another order
    assert torch.equal(walked[clear], exits[clear]) or make is s.Random

    if make is s.EENetPlus:  # its decisions on its own samples are not those of its folds
        assert rule.cost <= budget * (1 + 1e-6)
        return
    spent = float(at_exits(outputs.costs, exits).double().mean())
    assert rule.cost == pytest.approx(spent, rel=1e-5)
    scores = policy.calibration_scores if policy.any_budget else policy.calibration_scores[0]
    tie = max(int(row.unique(return_counts=True)[1].max()) for row in scores)
    span = float((outputs.costs[-1] - outputs.costs[0]).max())
    assert budget - (0.5 + tie) * span / outputs.num_samples - 1e-5 * high <= spent
    assert spent <= budget * (1 + 1e-6)


FAULTS = {
    "logits": [
        lambda x: x.clone().index_fill_(1, torch.tensor(0), math.nan),
        lambda x: x.clone().index_fill_(2, torch.tensor(1), math.inf),
        lambda x: x.clone().index_fill_(2, torch.tensor(1), -math.inf),
        lambda x: x.double() + 1e300,  # infinite in float32
        lambda x: x.float() + 3e38 * torch.tensor([1.0, -1.0, 1.0, -1.0])[: x.shape[2]],
        lambda x: x[..., :1],
        lambda x: x[:, :0],
        lambda x: x[0],
        lambda x: x.bool(),
        lambda x: x.to(torch.complex64),
        lambda x: None,
    ],
    "labels": [
        lambda x: x - 1 - x.max(),
        lambda x: x + 4,
        lambda x: x.float(),
        lambda x: x.int(),
        lambda x: x.repeat(2),
        lambda x: x[:, None],
    ],
    "costs": [
        lambda x: -x,
        lambda x: x * 0,
        lambda x: x * math.nan,
        lambda x: torch.cat([x[:-1], x[-1:] * math.inf]),
        lambda x: torch.cat([x, x[:1]]),
        lambda x: x[None, None],
        lambda x: x.long(),
        lambda x: x[:0],
    ],
    "quality": [
        lambda x: torch.full((4, 30), 0.5),
        lambda x: torch.tensor(1.0),
        lambda x: torch.tensor([[math.nan]]),
    ],
    "confusion": [lambda x: torch.zeros(2, 31, 2, 2)],
}


@given(outputs(), st.sampled_from([(name, f) for name, fs in FAULTS.items() for f in fs]))
def test_a_fault_in_the_outputs_is_named(outputs, fault):
    field, change = fault
    changed = change(getattr(outputs, field))
    assume(changed is None or changed.numel() != 1 or field == "quality")
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(outputs, **{field: changed})


@pytest.mark.parametrize("make", ALL)
@given(outputs(), st.sampled_from([0.0, -1.0, math.nan, math.inf, -math.inf, 0.99, 1.01]))
def test_a_budget_beyond_the_ends_is_refused(make, outputs, factor):
    low, high = outputs.mean_costs[[0, -1]].tolist()
    assume(make is not s.EENetPlus or outputs.num_samples >= 5)
    policy = fitted(make(), outputs, [low / high, 1.0])
    with pytest.raises(ValueError, match=r"budget=\S+ cannot be met"):
        policy.at(factor * (low if factor < 1 else high))


@given(
    st.lists(st.sampled_from([math.nan, math.inf, -1.0, 0.0, 0.5, 1.0, 7.0]), max_size=5),
    st.sampled_from([math.nan, -1.0, 0.0, 0.5, 1.0, 2.0]),
)
def test_the_online_control_never_loses_its_working_point(spent, budget):
    costs, spent = torch.tensor([0.5, 1.0]), torch.tensor(spent)
    if not 0.5 <= budget <= 1:
        with pytest.raises(ValueError, match="budget="):
            s.BudgetControl(budget, costs)
        return
    control = s.BudgetControl(budget, costs)
    if not spent.isfinite().all():
        with pytest.raises(ValueError, match="spent"):
            control.update(spent)
        assert control.u == (budget - 0.5) / 0.5
    else:
        assert math.isfinite(control.update(spent))


@given(
    outputs(),
    st.sampled_from([0.0, 0.5, 1.0, 1.5, math.nan]),
    st.sampled_from([0.0, 0.05, 0.5, 1.0, math.nan]),
    st.booleans(),
)
def test_a_guarantee_holds_on_its_samples_or_is_refused(outputs, place, delta, empty):
    low, high = outputs.mean_costs[[0, -1]].tolist()
    policy = s.Margin().fit(outputs)
    rules = [] if empty else [policy.at(low + u * (high - low)) for u in (0.0, 0.5, 1.0)]
    for promise, bound in ((s.within_budget, low + place * (high - low)), (s.within_loss, place)):
        if empty or not 0 < delta < 1:
            with pytest.raises(ValueError, match=r"delta=|rules"):
                promise(rules, outputs, bound, delta)
            continue
        with contextlib.suppress(ValueError):  # what cannot be promised is refused
            found = promise(rules, outputs, bound, delta)
            assert math.isfinite(found.margin)
            assert found.rule is rules[found.position]


def test_the_first_exits_own_cost_is_a_budget_though_its_mean_was_rounded():
    for seed in range(20):  # float32 means lie below the exact ones for about every other
        generator = torch.Generator().manual_seed(seed)
        costs = torch.rand(1, 33, generator=generator) + torch.tensor([[1.0], [5.0]])
        family = NestedFamily(torch.randn(2, 33, generator=generator), costs)
        assert family.threshold(float(costs[0].mean())) == -math.inf
