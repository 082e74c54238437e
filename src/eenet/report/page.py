"""The page: one HTML file with everything in it."""

import base64
import hashlib
import html
import io
import json
import math
import re
from importlib.resources import files
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from torch import Tensor

from eenet.report.figures import Data, at_budget, exit_colours
from eenet.report.plot import COLOURS

_ALT = {
    "curves": "Quality against cost of every policy, with the random floor and the oracle",
    "shares": "Share of the samples that leave at each exit, by policy and budget",
    "exit-quality": "Quality of those who leave at each exit, by policy and budget",
    "reliability": "Share of right answers against confidence, one panel for each exit",
    "weights": "Weight of each input of the learned policies at each exit",
    "control": "Average cost over the test stream, with and without online control",
    "promises": "Cost over budget of plain and of guaranteed thresholds, by budget",
}
_LIVE = (
    *("grid", "policies", "exit_quality", "measure", "class_order", "classes", "examples"),
    *("example_exits", "example_quality", "answers", "labels"),
)
"""What the script reads."""
# Fixed colours of the figures, and the page's own that follow light and dark.
_THEME = {
    "#333333": "ink",
    "#000000": "ink",
    "#b0b0b0": "grid",
    "#d8d8d8": "band",
    "#8c8c8c": "grey",
}
_THEME |= {colour.lower(): f"c{i}" for i, colour in enumerate(COLOURS[:6])}


def page(data: Data, drawn: dict[str, Figure]) -> str:
    """The page as HTML text; whatever comes from the data is escaped.

    Args:
        data: From `report_data`, with the examples and names that `write_report` adds.
        drawn: Figures by name.
    """
    folder = files("eenet.report")
    template = folder.joinpath("page.html").read_text("utf-8")
    script = folder.joinpath("page.js").read_text("utf-8")
    svgs = {f"svg:{name}": inline_svg(drawn[name], name) for name in _ALT if name in drawn}
    colours = exit_colours(len(data["exit_costs"]))
    ink = ["#fff" if _luminance(colour) < 0.45 else "#111" for colour in colours]
    css = "".join(
        f"--e{k}: {c}; --on{k}: {i};" for k, (c, i) in enumerate(zip(colours, ink, strict=True))
    )
    live = {name: data[name] for name in _LIVE}
    live["axes"] = _axes(drawn["curves"])
    live["tiny"] = bool(data["examples"]) and "image/png" in data["examples"][0].get("image", "")
    stop = min(range(len(data["grid"])), key=lambda i: abs(data["grid"][i] - data["budget"]))
    options = "".join(f"<option>{html.escape(label)}</option>" for label in data["policies"])
    digest = hashlib.sha256(script.encode()).digest()
    filled = {
        **{name: html.escape(text) for name, text in _sentences(data).items()},
        **svgs,
        "script": script,
        "script_hash": base64.b64encode(digest).decode(),
        "exit_colours": css,
        "options": options,
        "stop": str(stop),
        "last_stop": str(len(data["grid"]) - 1),
        "budget": f"{data['budget']:.2f}",
        "examples_say": _examples_say(data),
        "table": _table(data),
        # No text of the data can end the script element or open another.
        "data": json.dumps(plain(live), allow_nan=False).replace("<", "\\u003c"),
    }

    def keep(match: re.Match[str]) -> str:
        return match[0] if match[1] in drawn else ""

    template = re.sub(
        r'<section data-needs="([\w-]+)">.*?</section>\n', keep, template, flags=re.DOTALL
    )
    return re.sub(r"\{\{([\w:-]+)\}\}", lambda match: filled[match[1]], template)


def plain(value: Any) -> Any:
    """Tensors and numbers as JSON takes them, of five significant digits; None for no number."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else float(f"{value:.5g}")
    return value


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element in the colours and fonts of the page, its ids its own."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--sans)", text)
    text = re.sub(
        r"#[0-9a-f]{6}\b", lambda c: f"var(--{_THEME[c[0]]})" if c[0] in _THEME else c[0], text
    )
    text = re.sub(r'<text(?![^>]*fill:)([^>]*)style="', r'<text\1style="fill: var(--ink); ', text)
    head = f'<svg role="img" aria-label="{html.escape(_ALT[name])}" viewBox='
    text = re.sub(r"<svg.*?viewBox=", head, text, count=1, flags=re.DOTALL)
    return f'<div id="figure-{name}" tabindex="0">{text}</div>'


def _axes(figure: Figure) -> dict[str, Any]:
    """Where the axes lie in the figure's SVG, in points from the top left, and their limits."""
    axes = figure.axes[0]
    width, height = (72 * inches for inches in figure.get_size_inches())
    place = axes.get_position()
    box = [place.x0 * width, (1 - place.y0) * height, place.x1 * width, (1 - place.y1) * height]
    return {"box": box, "x": list(axes.get_xlim()), "y": list(axes.get_ylim())}


def _luminance(colour: str) -> float:
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _sentences(data: Data) -> dict[str, str]:
    """What the page says in words, as plain text."""
    reference, measure = data["reference"], data["measure"]
    policy = data["policies"][reference]
    i = at_budget(policy, data["budget"])
    cost, quality = float(policy["cost"][i]), float(policy["quality"][i])
    full, masks = float(data["exit_quality"][-1]), measure.startswith("mean IoU")
    control, promises = data["control"] or {}, data["promises"] or {}
    unit = data["provenance"].get("cost_unit", "given")
    unit = {"macs": "multiply-accumulate operations", "ms": "milliseconds"}.get(unit, "given units")
    many, batch = data["runs"] > 1, control.get("batch", 1)
    left_out = len(data["classes"]) - len(
        data["class_order"] if data["class_order"] is not None else []
    )
    return {
        "name": data["name"],
        "lede": f"With a budget of {_percent(data['budget'], 0)} of the full network's cost, "
        f"{reference} spends {_percent(cost, 0)} and reaches {_percent(quality)} {measure}; the "
        f"full network reaches {_percent(full)}.",
        "about": f"{data['samples']} test samples, policies fitted on {data['fitted_on']} others. "
        f"Costs are fractions of the full network's {unit}."
        + (f" Curves are means of {data['runs']} runs; all else is the first one." if many else ""),
        "intervals": "95 % intervals over the runs (Student's t)"
        if many
        else "95 % bootstrap intervals over the test samples, simultaneous over the budgets",
        "right": "right" if not masks else "quality reached (mean IoU)",
        "wrong": "wrong" if not masks else "quality missed",
        "classes_say": "Share of each class's labelled pixels in images that leave at each exit."
        if masks
        else "Share of each class's samples that leave at each exit.",
        "classes_note": f"{left_out} classes are left out." if left_out else "",
        "reliability_say": "A sample is an image: its mean confidence, and the share of its pixels "
        "that are right."
        if masks
        else "",
        "weights_say": "EENet: weight of each input of the exit score, times the input's standard "
        "deviation; blue raises the score, orange lowers it. EENet+: by how much a group of inputs "
        "moves the predicted gain of going on, per unit of doubt. Shown: "
        + "; ".join(f"{label}, {own['note']}" for label, own in data["importance"].items())
        + ".",
        "control_batch": "sample" if batch == 1 else f"{batch} samples",
        "control_say": f"{control.get('policy')} at budget {control.get('budget', 0):.2f}, the "
        f"test samples in their order, step size {control.get('step')}.",
        "delta": _percent(promises.get("delta", 0), 0),
        "promises_say": f"{promises.get('policy')}, calibrated on {promises.get('samples')} samples"
        + (
            " of the run's own calibration split, reported on the test samples."
            if promises.get("own")
            else " drawn from the test split, as the run has no calibration split, and reported on "
            "the others."
        )
        + " Budgets missing here cannot be promised from so few samples.",
        "provenance": ", ".join(f"{k} {v}" for k, v in data["provenance"].items() if len(v) < 60),
    }


def _examples_say(data: Data) -> str:
    if data["missing"] is not None:
        return (
            '<p class="note">The test data are not at hand any more, so there are no examples: '
            f"{html.escape(data['missing'])}</p>"
        )
    return "<p>A few test samples, under the exit where the chosen setting lets them leave.</p>"


def _table(data: Data) -> str:
    exits = range(len(data["exit_costs"]))
    heads = ["policy", "budget", "cost used", data["measure"], "95 % interval"]
    heads += [f"exit {k + 1}" for k in exits]
    cells = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
    bodies = [f"<thead><tr>{cells}</tr></thead>"]
    for label, policy in data["policies"].items():
        curve, rows = data["curves"][label], []
        for budget in data["budgets"]:
            i = at_budget(policy, budget)
            low, high = 100 * curve["low"][i], 100 * curve["high"][i]
            numbers = [f"{budget:.2f}", f"{curve['cost'][i]:.3f}"]
            numbers += [_percent(curve["quality"][i]), f"{low:.1f} to {high:.1f}"]
            numbers += [_percent(share) for share in policy["shares"][i].tolist()]
            rows.append("".join(f"<td>{number}</td>" for number in numbers))
        head = f'<th scope="rowgroup" rowspan="{len(rows)}">{html.escape(label)}</th>'
        body = "</tr><tr>".join(rows)
        bodies.append(f"<tbody><tr>{head}{body}</tr></tbody>")
    return "".join(bodies)
