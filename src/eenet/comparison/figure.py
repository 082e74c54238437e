"""Table and figure of `eenet compare`."""

from typing import Any

import matplotlib
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from eenet.comparison.summary import TOLERANCE, Comparison
from eenet.plotting import style as plot
from eenet.plotting.rows import by_policy, column


def comparison_table(comparison: Comparison, wide: bool = True) -> Table:
    """One line for each policy of a comparison, the largest area first.

    Args:
        comparison: The comparison.
        wide: With the quality at four of the budgets.
    """
    rows, reference = by_policy(comparison.rows), comparison.reference
    budgets = column(rows[reference], "budget")
    places = sorted({round(i * (len(budgets) - 1) / 3) for i in range(4 * wide)})
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{comparison.samples} test samples, networks: {comparison.networks}; quality in %",
        caption=f"Full network: {comparison.full_quality:.2%}. Gap closed: from random (0) to "
        f"{comparison.best_heuristic} (1). {reference} minus this: least and largest over the "
        f"{len(budgets)} budgets; better / worse: at how many of them {reference} is, by a "
        "simultaneous 95% interval above or below zero.",
    )
    table.add_column("policy", no_wrap=True)
    full = f"cost for\nfull acc.\n- {100 * TOLERANCE:g}"
    at = [f"at {budgets[i]:.2f}" for i in places]
    lead, count = f"{reference} minus\nthis, points", "budgets\nbetter /\nworse"
    for name in ("area", *at, full, "gap\nclosed", lead, count):
        table.add_column(name, justify="right")
    for policy in comparison.policies:
        points = rows[policy.policy]
        leads = [100 * lead for lead in column(points, "lead")]
        cost, gap = policy.cost_of_full, policy.share_closed
        against = f"{min(leads):+.2f} to {max(leads):+.2f}", f"{policy.ahead} / {policy.behind}"
        table.add_row(
            policy.policy,
            f"{100 * policy.area:.2f} ± {100 * policy.area_sd:.2f}",
            *(f"{100 * points[i]['quality']:.2f}" for i in places),
            "never" if cost is None else f"{cost:.3f}",
            "" if gap is None else f"{gap:.2f}",
            *(("-", "-") if policy.policy == reference else against),
        )
    return table


@matplotlib.rc_context(plot.STYLE)
def plot_comparison(comparison: Comparison) -> Figure:
    """Curves of all policies within their bounds, and the reference's lead with its intervals."""
    figure, (axes, lower) = plot.panels_of(["", ""], 1, 4.4, sharex=True, height_ratios=(5, 3))
    bounds, reference = comparison.bounds, comparison.reference
    cost, *ends = (bounds[name] for name in ("cost", "stopping_low", "stopping_high"))
    axes.fill_between(cost, *ends, color=plot.BAND, label="optimal stopping fitted on test")
    axes.plot(cost, bounds["oracle"], color=plot.GREY, linewidth=1.2, label="oracle")
    axes.plot(cost, bounds["mixture"], label="fixed mixture", **plot.DOTTED)
    rows = by_policy(comparison.rows)
    grey = {*comparison.heuristics, "random"} - {reference, comparison.best_heuristic}
    clear = [name for name in rows if name not in grey]
    others = [name for name in rows if name in grey - {"random"}]
    named = dict.fromkeys(others[:1], "other heuristics") | {"random": "random"}
    for name, points in rows.items():
        budgets, quality, lead = (column(points, x) for x in ("budget", "quality", "lead"))
        if name in grey:
            how: dict[str, Any] = {"color": plot.GREY, "linewidth": 0.8, "label": named.get(name)}
            how["linestyle"] = "-." if name == "random" else "--"
            axes.plot(budgets, quality, **how)
            if name != "random":  # far below all others
                lower.plot(budgets, lead, **how)
        else:
            index = clear.index(name)
            band = column(points, "lead_low"), column(points, "lead_high")
            size = {"markersize": 4, "linewidth": 1.3 if index else 2.4}
            plot.draw_curve(axes, index, name, budgets, quality, **size)
            plot.draw_curve(lower, index, name, budgets, lead, band, **size)
    plot.finish_curves(axes, comparison.exit_costs, comparison.exit_quality, "quality")
    shpoints = column(comparison.rows, "quality")
    top, bottom = max(*shpoints, *ends[1]), min(shpoints)
    axes.set_ylim(bottom - 0.03 * (top - bottom), top + 0.08 * (top - bottom))
    lower.set_xlabel(axes.get_xlabel())
    axes.set_xlabel("")
    lower.yaxis.set_major_formatter(lambda x, _: plot.percent(x)[:-1])
    lower.set_ylabel(f"lead of {reference} (points)")
    return figure
