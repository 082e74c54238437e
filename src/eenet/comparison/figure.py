"""Table and figure of `eenet compare`."""

from typing import Any

import matplotlib
from matplotlib.figure import Figure
from rich.table import Table

from eenet.plotting import style as plot
from eenet.plotting.tables import by_policy, column


def comparison_table(found: dict[str, Any]) -> Table:
    """One line for each policy of a comparison, the largest area first."""
    rows = by_policy(found["rows"])
    budgets = column(rows[found["reference"]], "budget")
    shown = sorted({round(i * (len(budgets) - 1) / 3) for i in range(4)})
    table = Table(
        title=f"{found['samples']} test samples, networks: {found['networks']}; quality in %",
        caption=f"Full network: {found['full_quality']:.2%}. Way: from random (0) to "
        f"{found['best_heuristic']} (1). Lead: {found['reference']} less this policy over the "
        f"{len(budgets)} budgets, in points; + and - count the budgets where the simultaneous "
        "95 % interval lies above and below zero.",
    )
    table.add_column("policy")
    at = [f"at {budgets[i]:.2f}" for i in shown]
    for name in ("area", *at, "full - 0.2 at", "way", "lead", "+", "-"):
        table.add_column(name, justify="right")
    for policy in found["policies"]:
        own = rows[policy["policy"]]
        leads = column(own, "lead")
        cost, way = policy["cost_of_full"], policy["share_closed"]
        table.add_row(
            policy["policy"],
            f"{100 * policy['area']:.2f} ± {100 * policy['area_sd']:.2f}",
            *(f"{100 * own[i]['quality']:.2f}" for i in shown),
            "never" if cost is None else f"{cost:.3f}",
            "" if way is None else f"{way:.2f}",
            f"{100 * min(leads):+.2f} to {100 * max(leads):+.2f}",
            str(policy["ahead"]),
            str(policy["behind"]),
        )
    return table


@matplotlib.rc_context(plot.STYLE)
def plot_comparison(found: dict[str, Any]) -> Figure:
    """Curves of all policies within their bounds, and the reference's lead with its intervals."""
    figure, (axes, lower) = plot.panels_of(["", ""], 1, 4.1, sharex=True, height_ratios=(5, 3))
    bounds, reference = found["bounds"], found["reference"]
    cost, *ends = (bounds[name] for name in ("cost", "stopping_low", "stopping_high"))
    axes.fill_between(cost, *ends, color=plot.BAND, label="optimal stopping fitted on test")
    axes.plot(cost, bounds["oracle"], color=plot.GREY, linewidth=1.2, label="oracle")
    axes.plot(cost, bounds["mixture"], label="fixed mixture", **plot.DOTTED)
    rows = by_policy(found["rows"])
    grey = {*found["heuristics"], "random"} - {reference, found["best_heuristic"]}
    clear = [name for name in rows if name not in grey]
    others = [name for name in rows if name in grey - {"random"}]
    named = dict.fromkeys(others[:1], "other heuristics") | {"random": "random"}
    for name, own in rows.items():
        budgets, quality, lead = (column(own, x) for x in ("budget", "quality", "lead"))
        if name in grey:
            how: dict[str, Any] = {"color": plot.GREY, "linewidth": 0.8, "label": named.get(name)}
            how["linestyle"] = "-." if name == "random" else "--"
            axes.plot(budgets, quality, **how)
            if name != "random":  # far below all others
                lower.plot(budgets, lead, **how)
        else:
            index = clear.index(name)
            band = column(own, "lead_low"), column(own, "lead_high")
            size = {"markersize": 4, "linewidth": 1.3 if index else 2.4}
            plot.draw_curve(axes, index, name, budgets, quality, **size)
            plot.draw_curve(lower, index, name, budgets, lead, band, **size)
    plot.finish_curves(axes, found["exit_costs"], found["exit_quality"], "quality", ncols=2)
    shown = column(found["rows"], "quality")
    top, bottom = max(*shown, *ends[1]), min(shown)
    axes.set_ylim(bottom - 0.03 * (top - bottom), top + 0.08 * (top - bottom))
    lower.set_xlabel(axes.get_xlabel())
    axes.set_xlabel("")
    lower.yaxis.set_major_formatter(lambda x, _: plot.percent(x)[:-1])
    lower.set_ylabel(f"lead of {reference} (points)")
    return figure
