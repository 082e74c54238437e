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

from eenet.report.data import nearest
from eenet.report.figures import Data, at_budget
from eenet.report.plot import COLOURS, exit_colours

_ALT = {
    "curves": "Quality against cost of every policy, with the random floor and the oracle",
    "shares": "Share of the samples that leave at each exit, by policy and budget",
    "exit-quality": "Quality of those who leave at each exit, by policy and budget",
    "reliability": "Share of right answers against confidence, one panel for each exit",
    "weights": "Weight of each input of the learned policies at each exit",
    "control": "Average cost over the test stream, with and without online control",
    "promises": "Cost over budget of plain and of guaranteed thresholds, by budget",
}
_LIVE = """grid budgets curves policies exit_quality measure class_order classes examples
example_exits example_quality answers labels"""
"""What the script reads."""
# Fixed colours of the figures, and the page's own that follow light and dark.
_THEME = {"#333333": "ink", "#000000": "ink", "#b0b0b0": "grid"}
_THEME |= {"#d8d8d8": "band", "#8c8c8c": "grey"}
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
    live = {name: data.get(name) for name in _LIVE.split()}
    live["axes"] = _axes(drawn["curves"])
    live["tiny"] = bool(data["examples"]) and "image/png" in data["examples"][0].get("image", "")
    stop = nearest(data["grid"], data["budget"])
    options = "".join(f"<option>{html.escape(label)}</option>" for label in data["policies"])
    digest = hashlib.sha256(script.encode()).digest()
    filled = {
        **{name: html.escape(str(fact)) for name, fact in _facts(data).items()},
        **svgs,
        "script": script,
        "script_hash": base64.b64encode(digest).decode(),
        "exit_colours": css,
        "options": options,
        "stop": str(stop),
        "last_stop": str(len(data["grid"]) - 1),
        # No text of the data can end the script element or open another.
        "data": json.dumps(plain(live), allow_nan=False).replace("<", "\\u003c"),
    }
    there = {*drawn, *_conditions(data)}
    for tag in ("section", "span"):  # keeps those whose need is met
        pattern = rf'<{tag} data-needs="([^"]+)">.*?</{tag}>'
        template = re.sub(
            pattern, lambda x: x[0] if x[1] in there else "", template, flags=re.DOTALL
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
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def _facts(data: Data) -> dict[str, Any]:
    """What the sentences of the page are filled with."""
    curve = data["curves"][data["reference"]]
    i = at_budget(curve, data["budget"])
    shown = [] if data["class_order"] is None else data["class_order"]
    unit = data["provenance"].get("cost_unit", "given")
    notes = [f"{label}, {own['note']}" for label, own in data["importance"].items()]
    own = {"cost": _percent(curve["cost"][i], 0), "quality": _percent(curve["quality"][i])}
    facts = {name: data[name] for name in ("name", "reference", "measure", "samples", "runs")}
    return {
        **facts,
        **{f"own_{name}": value for name, value in own.items()},
        **{f"control_{name}": value for name, value in (data["control"] or {}).items()},
        **{f"promises_{name}": value for name, value in (data["promises"] or {}).items()},
        "fitted_on": data["fitted_on"],
        "budget": f"{data['budget']:.2f}",
        "full": _percent(data["exit_quality"][-1]),
        "unit": {"macs": "multiply-accumulate operations", "ms": "milliseconds"}.get(unit, unit),
        "left_out": len(data["classes"]) - len(shown),
        "weights_of": "; ".join(notes),
        "missing": data["missing"] or "",
        "provenance": ", ".join(f"{k} {v}" for k, v in data["provenance"].items() if len(v) < 60),
    }


def _conditions(data: Data) -> set[str]:
    """Names of what the page may say beyond the figures that there are."""
    scenes, own = data["measure"].startswith("mean IoU"), (data["promises"] or {}).get("own")
    left_out = data["class_order"] is not None and len(data["classes"]) > len(data["class_order"])
    found = {
        "scenes" if scenes else "samples",
        "one run" if data["runs"] == 1 else "several runs",
        "examples" if data["missing"] is None else "missing",
        "own" if own else "borrowed",
    }
    return found | ({"left out"} if left_out else set())
