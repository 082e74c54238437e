"""The accuracy-vs-budget table: rows for files, and one to look at in the terminal."""

import csv
import io
import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from eenet.metrics import Curve
from eenet.metrics.segmentation import mean_iou
from eenet.outputs import ExitOutputs
from eenet.policies import Rule

Row = dict[str, Any]


def curve_rows(
    curves: dict[str, Curve],
    rules: dict[str, list[Rule]],
    budgets: list[float],
    full_cost: float,
    full_quality: float,
    measured: dict[str, Any],
) -> list[Row]:
    """One row for each policy and budget.

    Args:
        curves: Curve of each policy on the test outputs.
        rules: Its rule at each budget.
        budgets: The budgets, fractions of `full_cost`.
        full_cost: Cost of the last exit in the unit of the rules and curves.
        full_quality: Its quality on the test outputs.
        measured: Milliseconds ("ms") and joules to each exit `[E]`, where they were measured.

    Returns:
        Rows with the budget, the cost expected on the calibration samples and the one used on
        test, all as fractions of `full_cost`; `z`, by how many standard errors (from both
        samples) the cost used exceeds the one expected; the quality with its standard error; for
        segmentation `miou`, the mean IoU of all pixels; `loss`, how far the quality is below that
        of the last exit; `ms` and `joules`, the means by those measured up to each exit; `ms_p95`
        and `ms_p99`, the milliseconds within which 95% and 99% of the samples are answered; and
        each exit's share.
    """
    rows: list[Row] = []
    for label, curve in curves.items():
        numbers = curve.cost.new_tensor  # float64, wherever the curve is
        own = [(rule.cost, rule.cost_se) for rule in rules[label]]
        expected, expected_se = numbers(own).T
        error = (curve.cost_se.square() + expected_se.square()).sqrt()
        columns = {
            "budget": numbers(budgets),
            "expected_cost": expected / full_cost,
            "cost": curve.cost / full_cost,
            "cost_se": error / full_cost,
            "z": ((curve.cost - expected) / error).where(error > 0, 0.0),
            "quality": curve.quality,
            "quality_se": curve.quality_se,
            "loss": full_quality - curve.quality,
        }
        if curve.confusion is not None:
            columns["miou"] = mean_iou(curve.confusion)
        for unit in ("ms", "joules"):
            if measured.get(unit):
                columns[unit] = curve.shares @ numbers(measured[unit])
        if measured.get("ms"):
            for q in (0.95, 0.99):
                last = (curve.shares.cumsum(1) < q - 1e-9).sum(1)  # by then so many have left
                columns[f"ms_p{100 * q:.0f}"] = numbers(measured["ms"])[last]
        columns |= {f"share_exit_{k + 1}": x for k, x in enumerate(curve.shares.T)}
        rows += rows_of(label, columns)
    return rows


def rows_of(policy: str, columns: dict[str, Tensor]) -> list[Row]:
    """Rows of a policy from columns `[M]`."""
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [{"policy": policy, **dict(zip(columns, row, strict=True))} for row in values]


def exit_rows(outputs: ExitOutputs) -> list[Row]:
    """A row for each exit of labelled outputs.

    Returns:
        Rows with the exit, from 1; "macs", "params", "ms" (median, and quantiles) and "joules" up
        to it, where they were measured; its cost as a fraction of the last one's; and the quality
        if all stop there.
    """
    measured = json.loads(outputs.metadata.get("measured_costs", "{}"))
    units = ("macs", "params", "ms", "ms_p95", "ms_p99", "joules")
    kept = (name for name in units if measured.get(name))
    columns = {"exit": range(1, outputs.num_exits + 1), **{name: measured[name] for name in kept}}
    columns["cost"] = (outputs.mean_costs / outputs.mean_costs[-1]).tolist()
    columns["quality"] = outputs.answer_quality().double().mean(1).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def print_table(table: Table) -> None:
    """Prints a table, in full width where no terminal limits it."""
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def by_policy(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each policy."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["policy"], []).append(row)
    return found


def column(rows: list[Row], name: str) -> list[Any]:
    """One value of each row."""
    return [row[name] for row in rows]


def to_csv(rows: list[Row]) -> str:
    """The rows as CSV text, with the columns of all of them."""
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def overspent(row: Row) -> bool:
    """Whether a row's cost exceeds its budget by more than two standard errors."""
    return bool(row["cost"] - 2 * row["cost_se"] > row["budget"] + 1e-9)


def rich_table(rows: list[Row], full_quality: float, measure: str) -> Table:
    """Budgets down, policies across: the measure in percent, and the cost used in brackets.

    The best of those that kept the budget is bold; those that overspent it are marked.
    """
    policies = by_policy(rows)
    caption = f"Costs are fractions of the full network, whose {measure} is {full_quality:.2%}."
    if any(map(overspent, rows)):
        caption += "\n! cost more than the budget, by over two standard errors."
    table = Table(title=f"Test {measure} in % (cost used), by budget", caption=caption)
    for name in ("budget", *policies):
        table.add_column(name, justify="right")
    for here in zip(*policies.values(), strict=True):
        best = max((row["quality"] for row in here if not overspent(row)), default=None)
        cells = []
        for row in here:
            text = f"{100 * row['quality']:.1f} ({row['cost']:.3f})".replace("(0.", "(.")
            if overspent(row):
                text = f"[yellow]{text}![/yellow]"
            elif row["quality"] == best:
                text = f"[bold]{text}[/bold]"
            cells.append(text)
        table.add_row(f"{here[0]['budget']:.2f}", *cells)
    return table
