import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.conftest import make_outputs

from eenet.cli import main
from eenet.cli.compare import choose_policies, take_policies
from eenet.comparison.compare import compare, default_policies
from eenet.comparison.fitting import Source, fit_and_decide
from eenet.modules import fit_policies
from eenet.outputs import save_outputs
from eenet.policies import EENet, EENetPlus, Margin, MaxProbability, Random, Temperature
from eenet.policies.thresholds import at_exits

DEFAULT = [policy.label for policy in default_policies()]
ABLATIONS = ["eenet no weights", "eenet no vote", "eenet no past", "eenet geometric"]


@pytest.fixture
def runs(tmp_path):
    """Two networks that share their samples; the second is less sure of itself."""
    for run in range(2):
        for split, seed in (("val", 0), ("test", 1)):
            outputs = make_outputs(samples=600, seed=seed)
            outputs.logits.mul_(1 - 0.3 * run)
            save_outputs(outputs, tmp_path / f"run{run}/stage1/outputs/{split}.safetensors")
    return tmp_path


def source(runs, run=0, test=True, cost_matrix=None):
    val, test = (
        str(runs / f"run{run}/stage1/outputs/{x}.safetensors") if x else None
        for x in ("val", "test" if test else None)
    )
    return Source(val, test, cost_matrix)


def test_everything_is_written(runs, capsys):
    output = runs / "compared"
    words = [str(runs / "run0"), str(runs / "run1"), "--output", str(output), "--jobs", "1"]
    words += ["--seeds", "2", "--budgets", "5", "--policies", "[eenet+, margin, Entropy]"]
    main(["compare", *words])
    printed = capsys.readouterr().out
    assert "margin" in printed
    assert all(name in printed for name in ("closed", "full acc.", "eenet+ minus", "better /"))
    found = json.loads((output / "compare.json").read_text())
    assert (found["networks"], found["samples"]) == (2, 600)
    with (output / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["policy"] for row in rows[::5]] == ["eenet+", "margin", "entropy", "random"]
    assert all(float(row["lead_high"]) == 0 for row in rows[:5])  # the reference itself
    bounds = {name: np.array(values) for name, values in found["bounds"].items()}
    assert (bounds["oracle"] >= bounds["stopping_high"] - 1e-9).all()
    assert (bounds["oracle"] >= bounds["mixture"] - 1e-9).all()
    for name in ("png", "svg", "pdf"):
        assert (output / f"compare.{name}").stat().st_size > 10_000


def test_policies_are_compared_at_equal_cost(runs):
    """Margin by hand: its points on test, and straight lines between them."""
    found = compare([source(runs)], budgets=[0.3, 0.5, 0.8], policies=[Margin()], seeds=1)
    rows = [row for row in found.rows if row["policy"] == "margin"]
    fit, test = source(runs).load()
    policy, points = Margin().fit(fit), []
    for budget in (1.0, 3.0, 5.0, 8.0, 10.0):
        exits = policy.at(budget).decide(test.evidence())
        pair = at_exits(test.costs, exits), at_exits(test.answer_quality(), exits)
        points.append([float(x.double().mean()) for x in pair])
    cost, quality = np.array(points).T
    assert [row["quality"] for row in rows] == pytest.approx(np.interp([3, 5, 8], cost, quality))
    assert [10 * row["used"] for row in rows] == pytest.approx(cost[1:4].tolist())
    ours = [row["quality"] for row in found.rows if row["policy"] == "eenet+"]
    assert [row["lead"] for row in rows] == pytest.approx(
        [a - b["quality"] for a, b in zip(ours, rows, strict=True)]
    )
    summary = {row.policy: row for row in found.policies}
    assert summary["margin"].share_closed == pytest.approx(1)
    assert summary["random"].share_closed == pytest.approx(0)


def test_every_policy_is_fitted(runs):
    policies = default_policies()
    exits = fit_and_decide(source(runs), [0.5], policies, seed=3)
    assert exits.shape == (len(policies), 3, 600)
    assert exits[:, 0].max() == 0
    assert (exits[:, 2].max(1) == 2).all()
    assert not any(policy.calibration_scores.numel() for policy in policies)  # copies are fitted


def test_settings_count_and_labels_are_told_apart(runs):
    policies = [EENetPlus(seed=7), EENetPlus(folds=2), Random(seed=1), Margin()]
    found = compare(
        [source(runs)], budgets=[0.5, 0.8], policies=policies, seeds=2, reference="margin"
    )
    names = ["margin", "eenet+", "eenet+ (2)", "random"]
    assert [row["policy"] for row in found.rows[::2]] == names
    assert found.heuristics == ["margin"]
    sd = {row["policy"]: row["quality_sd"] for row in found.rows}
    assert sd["random"] > 0 == sd["margin"]  # another seed, another draw
    alone = fit_and_decide(source(runs), [0.5], [Random(seed=2)], seed=0)
    assert (alone == fit_and_decide(source(runs), [0.5], [Random(seed=0)], seed=2)).all()
    with pytest.raises(ValueError, match="reference='coin': choose from margin"):
        compare([source(runs)], policies=[Margin()], reference="coin")


def test_gradient_descent_keeps_the_best_epoch_and_depends_on_the_seed():
    outputs = make_outputs(samples=600)
    scores = []
    for seed in (0, 0, 1):
        policy = EENet()
        fit_policies([policy], outputs, [0.5], seed, epochs=10)
        scores.append(policy.calibration_scores)
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    untrained = EENet()
    untrained.prepare(outputs, [5.0])
    loss = [
        p.held_out_loss(outputs.evidence(), outputs.answer_quality()) for p in (policy, untrained)
    ]
    assert loss[0] < loss[1]


def test_without_labelled_logits_all_but_temperature_are_compared(tmp_path):
    for split in ("val", "test"):
        outputs = make_outputs(samples=200)
        quality = outputs.answer_quality()
        outputs = replace(outputs, labels=None, quality=quality)
        save_outputs(outputs, tmp_path / f"run0/stage1/outputs/{split}.safetensors")
    found = compare([source(tmp_path)], budgets=2, seeds=1)
    default = {policy.label for policy in default_policies()}
    assert {row.policy for row in found.policies} == default - {"temperature"}
    with pytest.raises(ValueError, match="temperatures are fitted on labelled logits"):
        compare([source(tmp_path)], budgets=2, seeds=1, policies=[Temperature()])


def test_each_half_of_a_file_is_decided_by_what_was_fitted_on_the_other(runs):
    halved, whole = source(runs, test=False), make_outputs(samples=600)
    policy, exits, place = MaxProbability(), torch.zeros(600, dtype=torch.int64), torch.zeros(0)
    for fit, test, where in halved.parts():
        assert torch.equal(test.logits, whole.logits[:, where])
        both = torch.cat([fit.logits, test.logits], 1)[0, :, 0].sort().values
        assert torch.equal(both, whole.logits[0, :, 0].sort().values)
        exits[where] = policy.fit(fit).at_fraction(0.6).decide(test.evidence())
        place = torch.cat([place, where])
    assert torch.equal(place.sort().values, torch.arange(600.0))
    decided = fit_and_decide(halved, [0.4, 0.6], [MaxProbability()], 0)
    assert torch.equal(torch.from_numpy(decided)[0, 2].long(), exits)


def test_a_cost_matrix_changes_what_is_optimized(runs):
    matrix = (1 - torch.eye(5)).tolist()
    plain = source(runs).load()[0].answer_quality()
    assert torch.equal(source(runs, cost_matrix=matrix).load()[0].answer_quality(), plain)
    matrix[0] = [0.0, 5, 5, 5, 5]
    weighed = source(runs, cost_matrix=matrix).load()[0]
    wrong = (weighed.labels == 0) & (plain[0] == 0)
    assert (weighed.answer_quality()[0][wrong] == 0).all()
    assert (weighed.answer_quality()[0][(weighed.labels > 0) & (plain[0] == 0)] == 0.8).all()


def test_bad_input_is_refused(runs, capsys):
    with pytest.raises(SystemExit):
        main(["compare", str(runs / "run0"), "--policies", "[margin, coin]"])
    assert "there is no 'coin'; give a class_path, or one of eenet+," in capsys.readouterr().err
    with pytest.raises(
        ValueError, match=r"budgets=\[0.05, 0.5\] must be two or more that rise between 0.100"
    ):
        compare([source(runs)], budgets=[0.05, 0.5])
    save_outputs(make_outputs(samples=600, seed=2), runs / "run1/stage1/outputs/test.safetensors")
    with pytest.raises(ValueError, match="share their test samples"):
        compare([source(runs), source(runs, 1)])
    with pytest.raises(SystemExit):
        main(["compare", "--val", str(runs / "run0/stage1/outputs/val.safetensors")])
    assert "--test FILE or --split true" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["--policies=eenet.policies.Margin"], ["margin"]),
        (
            ["--policies", "[margin, {class_path: Random, init_args: {seed: 3}}]"],
            ["margin", "random"],
        ),
        (["--policies+", "experiments/ablations.yaml"], [*DEFAULT, *ABLATIONS]),
        (["--policies", "margin", "--policies+=entropy"], ["margin", "entropy"]),
        ([], None),
    ],
    ids=str,
)
def test_policies_are_named_by_class_label_or_file(words, labels):
    rest, named = take_policies([*words, "RUN"])
    assert rest == ["RUN"]
    policies = choose_policies(named)
    assert (policies and [policy.label for policy in policies]) == labels
