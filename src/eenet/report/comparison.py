"""Table and figure of `eenet compare`."""

from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from eenet.report.plot import COLOURS, INK, MARKERS, mark_exits, style

_GREY = "#8C8C8C"


def comparison_table(found: dict[str, Any]) -> Table:
    """One line for each policy, the largest area first.

    Args:
        found: What `eenet.compare.compare` returns.
    """
    rows: dict[str, list[Any]] = {}
    for row in found["rows"]:
        rows.setdefault(row["policy"], []).append(row)
    budgets = [row["budget"] for row in rows[found["reference"]]]
    shown = sorted({round(i * (len(budgets) - 1) / 3) for i in range(4)})
    table = Table(
        title=f"{found['samples']} test samples, {found['networks']} network(s); quality in % at "
        "equal cost",
        caption=f"Full network: {found['full_quality']:.2%}. Way: from random (0) to "
        f"{found['best_heuristic']} (1). Lead: {found['reference']} less this policy over the "
        f"{len(budgets)} budgets, in points; + and - count the budgets where the simultaneous "
        "95 % interval lies above and below zero.",
    )
    table.add_column("policy")
    for name in ("area", *(f"at {budgets[i]:.2f}" for i in shown)):
        table.add_column(name, justify="right")
    for name in ("full - 0.2 at", "way", "lead", "+", "-"):
        table.add_column(name, justify="right")
    for policy in sorted(found["policies"], key=lambda row: -row["area"]):
        own = rows[policy["policy"]]
        leads = [100 * row["lead"] for row in own]
        table.add_row(
            policy["policy"],
            f"{100 * policy['area']:.2f} ± {100 * policy['area_sd']:.2f}",
            *(f"{100 * own[i]['quality']:.2f}" for i in shown),
            _or_dash(policy["cost_of_full"], 3),
            _or_dash(policy["share_closed"], 2),
            f"{min(leads):+.2f} .. {max(leads):+.2f}",
            str(policy["ahead"]),
            str(policy["behind"]),
        )
    return table


def plot_comparison(found: dict[str, Any]) -> Figure:
    """Curves of all policies within their bounds, and the reference's lead with its intervals.

    Args:
        found: What `eenet.compare.compare` returns.
    """
    figure = Figure(figsize=(8.4, 8.2), dpi=150, layout="constrained")
    axes, lower = figure.subplots(2, sharex=True, height_ratios=(5, 3))
    cost, *bounds = ([*values] for values in found["bounds"].values())
    oracle, mixture, low, high = ([100 * q for q in bound] for bound in bounds)
    axes.fill_between(cost, low, high, color="#D8D8D8", label="optimal stopping fitted on test")
    axes.plot(cost, oracle, color=_GREY, linewidth=1.2, label="oracle")
    axes.plot(cost, mixture, ":", color=_GREY, linewidth=1.2, label="fixed mixture")
    mark_exits(axes, found["exit_costs"], found["exit_quality"])
    order = [row["policy"] for row in sorted(found["policies"], key=lambda row: -row["area"])]
    names = list(dict.fromkeys([found["reference"], *order]))
    faint = {*found["heuristics"], "random"} - {found["reference"], found["best_heuristic"]}
    others = iter(["other heuristics"])
    drawn = 0
    for name in names:
        own = [row for row in found["rows"] if row["policy"] == name]
        x = [row["budget"] for row in own]
        look: dict[str, Any] = {"color": _GREY, "linewidth": 0.8, "linestyle": "--"}
        if name == "random":
            look |= {"linestyle": "-.", "label": name}
        elif name in faint:
            look["label"] = next(others, None)
        else:
            look = {
                "color": COLOURS[drawn % len(COLOURS)],
                "marker": MARKERS[drawn % len(MARKERS)],
                "markersize": 4,
                "linewidth": 2.4 if drawn == 0 else 1.3,
                "zorder": 3 if drawn else 4,
                "label": name,
            }
            drawn += 1
        axes.plot(x, [100 * row["quality"] for row in own], **look)
        if name == found["reference"] or name == "random":
            continue
        lower.plot(x, [100 * row["lead"] for row in own], **look)
        if name not in faint:
            ends = ([100 * row[end] for row in own] for end in ("lead_low", "lead_high"))
            lower.fill_between(x, *ends, color=look["color"], alpha=0.15, linewidth=0)
    shown = [100 * row["quality"] for row in found["rows"]]
    top, bottom = max(*shown, *high), min(shown)
    axes.set_ylim(bottom - 0.03 * (top - bottom), top + 0.08 * (top - bottom))
    axes.set_ylabel("quality (%)")
    axes.legend(frameon=False, loc="lower right", ncols=2, fontsize=9)
    lower.axhline(0, color=INK, linewidth=0.8)
    lower.set_ylabel(f"lead of {found['reference']} (points)")
    lower.set_xlabel("average cost per sample (fraction of the full network)")
    for each in (axes, lower):
        style(each)
    return figure


def _or_dash(number: float | None, digits: int) -> str:
    return "-" if number is None else f"{number:.{digits}f}"
