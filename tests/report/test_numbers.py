"""The numbers of the report against loops over samples."""

import pytest
import torch
from tests.conftest import make_outputs
from torchmetrics.classification import MulticlassCalibrationError

from eenet.metrics import least_budget, random_curve
from eenet.policies import BudgetControl, EENetPlus, Margin
from eenet.policies.base import score_exits
from eenet.report.examples import choose
from eenet.report.guarantees import DELTA, budgets_by_loss
from eenet.report.numbers import BINS, Run, report_data
from eenet.report.write import load
from eenet.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(run_dir):
    return load(RunFolder(run_dir))


@pytest.fixture(scope="module")
def found(run):
    return report_data([run])


@pytest.mark.parametrize("label", ["eenet", "eenet+", "margin"])
def test_each_sample_is_counted_where_it_leaves(run, found, label):
    policy, test = found["policies"][label], run.test
    i = policy["budget"].index(0.5)
    rule = run.policies[label].at(5.0)
    scores = score_exits(rule.scorer, test.evidence())
    early = sorted(scores[:-1].flatten().tolist())
    left, good, cost, classes = [0] * 3, [0] * 3, 0.0, torch.zeros(5, 3)
    right, wrong = torch.zeros(2, BINS), torch.zeros(2, BINS)
    for n, label_n in enumerate(test.labels.tolist()):
        for k in range(3):
            hit = int(test.logits[k, n].argmax()) == label_n
            if k < 2:
                rank = sum(s < float(scores[k, n]) for s in early) / len(early)
                (right if hit else wrong)[k, min(int(rank * BINS), BINS - 1)] += 1
            if k == 2 or scores[k, n] >= rule.thresholds[k]:
                left[k] += 1
                good[k] += hit
                classes[label_n, k] += 1
                cost += float(test.costs[k]) / 10
                break
    assert policy["shares"][i].tolist() == pytest.approx([x / 300 for x in left])
    quality = [g / x for g, x in zip(good, left, strict=True)]
    assert policy["exit_quality"][i].tolist() == pytest.approx(quality)
    curve = found["curves"][label]
    assert float(curve["quality"][i]) == pytest.approx(sum(good) / 300)
    assert float(curve["cost"][i]) == pytest.approx(cost / 300)
    torch.testing.assert_close(policy["right"][i].float(), right)
    torch.testing.assert_close(policy["wrong"][i].float(), wrong)
    share = classes / classes.sum(1, keepdim=True)
    torch.testing.assert_close(policy["classes"][i].float(), share[found["class_order"]])
    assert float(curve["low"][i]) < sum(good) / 300 < float(curve["high"][i])


def test_budgets_by_loss_are_estimated_on_test_and_guaranteed_on_calibration(run):
    policy, cal = run.policies["eenet+"], make_outputs(samples=3000, seed=2)
    rows = budgets_by_loss(policy, run.test, cal)
    limits = [limit for limit, _, _ in rows]
    assert limits == sorted(limits)
    assert 0.05 in limits
    for limit, estimate, kept in rows:
        assert estimate == least_budget(policy, run.test, limit)
        assert kept is None or kept == least_budget(policy, cal, limit, DELTA)
    assert rows[-1][2] is not None
    assert all(kept is None for _, _, kept in budgets_by_loss(policy, run.test, None))


def test_who_leaves_by_the_histogram_leaves_by_the_shares(found):
    """The bars right of the threshold are those who leave, up to the bar that it cuts."""
    for policy in found["policies"].values():
        for i, shares in enumerate(policy["shares"]):
            bars = policy["right"][i] + policy["wrong"][i]
            for k, cut in enumerate(policy["thresholds"][i].tolist()):
                first = int(cut * BINS)
                most, least = bars[k, first:].sum(), bars[k, first + 1 :].sum()
                assert least <= 300 * shares[k] + 1e-6 <= most + 1e-3


def test_calibration_error_is_that_of_torchmetrics(run, found):
    for k, own in enumerate(found["reliability"]):
        metric = MulticlassCalibrationError(5, n_bins=10, norm="l1")
        expected = float(metric(run.test.logits[k].softmax(-1), run.test.labels))
        assert own["ece"] == pytest.approx(expected, abs=1e-5)
        assert float(own["count"].sum()) == 300


def test_the_floor_is_what_random_exits_reach():
    costs, quality = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([[0.0, 1.0], [1, 0], [1, 1]])
    cost, reached = random_curve(costs, quality)
    middle = len(cost) // 2  # equal shares
    assert (float(cost[middle]), float(reached[middle])) == pytest.approx((7 / 3, 2 / 3))
    assert (float(cost[0]), float(cost[-1])) == pytest.approx((1, 4))
    assert (float(reached[0]), float(reached[-1])) == pytest.approx((0.5, 1))


def test_control_is_followed_sample_by_sample(run, found):
    track, test = found["control"], run.test
    policy, control = run.policies["eenet+"], BudgetControl(5.0, test.costs)
    scores, total, means = score_exits(policy, test.evidence()), 0.0, []
    for n in range(300):
        thresholds = policy.at_point(control.u).thresholds
        k = next(k for k in range(3) if k == 2 or scores[k, n] >= thresholds[k])
        total += float(test.costs[k])
        control.update(test.costs[k : k + 1])
        means.append((total / (n + 1) / 10, control.bound() / 10))
    seen = track["seen"].tolist()
    assert track["controlled"].tolist() == pytest.approx([means[n - 1][0] for n in seen])
    assert track["bound"] == pytest.approx([means[n - 1][1] for n in seen])
    assert all(abs(mean - 0.5) <= bound for mean, bound in means)
    assert seen[-1] == 300


def test_promises_are_kept_on_calibration_samples(run, found):
    halves = found["promises"]
    assert (halves["own"], halves["samples"]) == (False, 150)
    own = report_data([run._replace(cal=make_outputs(samples=2000, seed=5))])["promises"]
    assert (own["own"], own["samples"]) == (True, 2000)
    assert min(own["margin"]) > 0
    assert len(own["budget"]) == 3
    for plain, kept in zip(own["plain"], own["guaranteed"], strict=True):
        assert kept <= plain + 1e-9
    smaller = sum(own["margin"]) / 3
    assert smaller < sum(halves["margin"]) / len(halves["margin"])


def test_runs_give_students_intervals(run, make_run, tmp_path):
    second = load(RunFolder(make_run(tmp_path / "second", seed=1)))
    found = report_data([run, second])
    first, other = (report_data([r])["curves"]["margin"]["quality"] for r in (run, second))
    curve = found["curves"]["margin"]
    torch.testing.assert_close(curve["quality"], (first + other) / 2)
    # Student's 97.5 % quantile with one degree of freedom is 12.706; the deviation is d / sqrt(2).
    reach = 12.706 * (first - other).abs() / 2
    expected = ((first + other) / 2 + reach).clamp_max(1)
    torch.testing.assert_close(curve["high"], expected, rtol=1e-4, atol=1e-4)


def test_pixels_take_the_place_of_samples():
    """Two images of two classes: class 0 is only in the first, which leaves at once."""
    confusion = torch.zeros(2, 2, 2, 2, dtype=torch.int32)
    confusion[:, 0, 0] = torch.tensor([30, 10])
    confusion[:, 1, 1] = torch.tensor([0, 80])
    confusion[:, 0, 1] = torch.tensor([0, 20])
    outputs = make_outputs(exits=2, samples=2, classes=2)
    pooled = torch.tensor([[[0.5, 0.5, 0.1, 0.1, 0.1], [0.5, 0.5, 0.4, 0.4, 0.4]]]).repeat(2, 1, 1)
    changed = {"pooled": pooled, "quality": torch.tensor([[0.6, 1.0], [0.6, 1.0]])}
    outputs = type(outputs)(costs=outputs.costs, confusion=confusion, **changed)
    policy = Margin().fit(outputs)
    found = report_data([Run(outputs, outputs, {"margin": policy}, [0.55])])
    shares = found["policies"]["margin"]["classes"][
        found["policies"]["margin"]["budget"].index(0.55)
    ]
    assert found["class_order"].tolist() == [0, 1]
    torch.testing.assert_close(shares, torch.tensor([[1, 0], [0.2, 0.8]], dtype=torch.float64))
    # Confidence 0.9 where 50 of 60 pixels are right, and 0.6 where all are.
    assert found["reliability"][0]["ece"] == pytest.approx((0.9 - 50 / 60 + 0.4) / 2, abs=1e-6)
    assert found["measure"] == "mean IoU per image"
    assert found["promises"] is None


def test_the_importance_of_an_input_that_alone_decides():
    outputs = make_outputs(samples=500)
    policy = EENetPlus().fit(outputs)
    policy.weight.zero_()
    policy.weight[:, 3] = 2.0  # the margin, for all prices
    run = Run(outputs, outputs, {"eenet+": policy}, [0.5])
    own = report_data([run])["importance"]["eenet+"]["values"]
    margins = 1 - outputs.evidence().one_minus_margin
    assert own.pop("plain confidences") == pytest.approx((2 * margins[:-1].std(1)).tolist(), 1e-4)
    assert all(x == 0 for values in own.values() for x in values)


def test_chosen_samples_show_every_exit():
    exits = torch.randint(3, (9, 1000), generator=torch.Generator().manual_seed(0))
    chosen = choose(exits, 3)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    for m in (2, 4, 6):
        assert exits[m, chosen].bincount(minlength=3).min() >= 4
