"""Rows of a curve by hand; the table marks budgets that were overspent, and never praises those."""

import pytest
import torch
from rich.console import Console

from eenet.metrics import curve_from_sums, exit_sums
from eenet.plotting.rows import curve_rows, rich_table
from eenet.policies import MaxProbability, Rule


def row(policy, budget, cost, quality):
    return {"policy": policy, "budget": budget, "cost": cost, "cost_se": 0.01, "quality": quality}


def printed(rows):
    console = Console(width=100, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(rich_table(rows, 0.98, "accuracy"))
    return capture.get()


def test_overspent_budgets_are_marked_and_never_bold():
    rows = [row("a", 0.5, 0.497, 0.96), row("a", 0.8, 0.82, 0.97)]
    rows += [row("b", 0.5, 0.521, 0.982), row("b", 0.8, 0.85, 0.985)]
    text = printed(rows)
    assert "\x1b[1m96.0 (.497)" in text  # not 98.2, which cost more than 0.5
    assert "\x1b[1m97.0 (.820)" in text  # within two standard errors
    assert "\x1b[33m98.2 (.521)!" in text
    assert "\x1b[33m98.5 (.850)!" in text
    assert "! cost more than the budget" in text
    assert "\x1b[1m98" not in text


def test_where_every_policy_overspent_none_is_bold_and_where_none_did_nothing_is_said():
    text = printed([row("a", 0.5, 0.6, 0.9)])
    assert "\x1b[33m90.0 (.600)!" in text
    assert "\x1b[1m90" not in text
    text = printed([row("a", 0.5, 0.3, 0.9), row("b", 0.5, 0.51, 0.9)])
    assert "!" not in text
    assert text.count("\x1b[1m90.0") == 2


def test_loss_and_latency_of_a_policy_by_hand():
    exits = torch.tensor([[0] * 90 + [1] * 8 + [2] * 2])  # 90%, 8% and 2% of 100 samples
    quality = torch.tensor([[0.5], [0.5], [1.0]]).expand(3, 100)
    curve = curve_from_sums(exit_sums(exits, torch.tensor([1.0, 2.0, 4.0]), quality))
    rule = Rule(MaxProbability(), torch.zeros(3), 1.14, 0.1)
    measured = {"ms": [3.0, 5.0, 9.0]}
    (row,) = curve_rows({"p": curve}, {"p": [rule]}, [0.3], 4.0, 1.0, measured)
    assert row["loss"] == pytest.approx(1 - 0.51)
    assert row["ms"] == pytest.approx(0.9 * 3 + 0.08 * 5 + 0.02 * 9)
    assert (row["ms_p95"], row["ms_p99"]) == (5, 9)
