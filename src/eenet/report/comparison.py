"""Table and figure of `eenet compare`."""

from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from eenet.report.plot import COLOURS, GREY, INK, MARKERS, mark_exits, style


def comparison_table(found: dict[str, Any]) -> Table:
    """One line for each policy of what `eenet.compare.compare` found, the largest area first."""
    rows = _by_policy(found)
    budgets = [row["budget"] for row in rows[found["reference"]]]
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
        leads = [100 * row["lead"] for row in own]
        cost, way = policy["cost_of_full"], policy["share_closed"]
        table.add_row(
            policy["policy"],
            f"{100 * policy['area']:.2f} ± {100 * policy['area_sd']:.2f}",
            *(f"{100 * own[i]['quality']:.2f}" for i in shown),
            "never" if cost is None else f"{cost:.3f}",
            "" if way is None else f"{way:.2f}",
            f"{min(leads):+.2f} to {max(leads):+.2f}",
            str(policy["ahead"]),
            str(policy["behind"]),
        )
    return table


def plot_comparison(found: dict[str, Any]) -> Figure:
    """Curves of all policies within their bounds, and the reference's lead with its intervals."""
    figure = Figure(figsize=(8.4, 8.2), dpi=150, layout="constrained")
    axes, lower = figure.subplots(2, sharex=True, height_ratios=(5, 3))
    cost = found["bounds"]["cost"]
    names = ("oracle", "mixture", "stopping_low", "stopping_high")
    oracle, mixture, low, high = ([100 * q for q in found["bounds"][name]] for name in names)
    axes.fill_between(cost, low, high, color="#D8D8D8", label="optimal stopping fitted on test")
    axes.plot(cost, oracle, color=GREY, linewidth=1.2, label="oracle")
    axes.plot(cost, mixture, ":", color=GREY, linewidth=1.2, label="fixed mixture")
    mark_exits(axes, found["exit_costs"], found["exit_quality"])
    reference = found["reference"]
    faint = {*found["heuristics"], "random"} - {reference, found["best_heuristic"]}
    rows = _by_policy(found)
    drawn, others = 0, "other heuristics"
    for name in dict.fromkeys([reference, *rows]):
        own = rows[name]
        look: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": "--"}
        if name == "random":
            look |= {"linestyle": "-.", "label": name}
        elif name in faint:
            look["label"], others = others, ""
        else:
            colour, marker = COLOURS[drawn % len(COLOURS)], MARKERS[drawn % len(MARKERS)]
            look = {"color": colour, "marker": marker, "markersize": 4, "label": name}
            look |= {"linewidth": 1.3 if drawn else 2.4, "zorder": 3 if drawn else 4}
            drawn += 1
        budgets = [row["budget"] for row in own]
        axes.plot(budgets, [100 * row["quality"] for row in own], **look)
        if name not in (reference, "random"):
            lower.plot(budgets, [100 * row["lead"] for row in own], **look)
        if name not in (reference, *faint):
            ends = ([100 * row[end] for row in own] for end in ("lead_low", "lead_high"))
            lower.fill_between(budgets, *ends, color=look["color"], alpha=0.15, linewidth=0)
    shown = [100 * row["quality"] for row in found["rows"]]
    top, bottom = max(*shown, *high), min(shown)
    axes.set_ylim(bottom - 0.03 * (top - bottom), top + 0.08 * (top - bottom))
    axes.set_ylabel("quality (%)")
    axes.legend(frameon=False, loc="lower right", ncols=2, fontsize=9)
    lower.axhline(0, color=INK, linewidth=0.8)
    lower.set_ylabel(f"lead of {reference} (points)")
    lower.set_xlabel("average cost per sample (fraction of the full network)")
    for each in (axes, lower):
        style(each)
    return figure


def _by_policy(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    own = {row["policy"]: [] for row in found["policies"]}  # type: dict[str, list[Any]]
    for row in found["rows"]:
        own[row["policy"]].append(row)
    return own
