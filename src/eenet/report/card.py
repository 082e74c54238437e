"""The model card of a run that is shared; every number comes from the run's files."""

import json
from pathlib import Path
from typing import Any

import yaml

from eenet.plotting.rows import by_policy, exit_rows, overspent
from eenet.report.provenance import how_made, places
from eenet.report.write import load
from eenet.run_folder import RunFolder

_CARD = """\
---
{header}---

# {title}

A {network} with {exits} exits, trained with eenet on {data}. Easy samples leave at an early exit,
so that the mean cost stays within a budget. Fitted policies: {policies}.

```py
from eenet import AdaptivePredictor

predictor = AdaptivePredictor.from_run("{name}", budget=0.5)  # half of the full network's cost
answers = predictor.predict(predictor.encode(samples))
```

```bash
eenet predict {name} --input INPUTS --output answers.csv --budget 0.5
eenet report {name}
```

## Exits

Test {measure} and cost if all samples stop there.

{exit_table}{curve}
## How it was made

{made}
"""


def card(run: RunFolder, name: str, license: str | None = None) -> str:
    """The text of README.md, with the hub's header.

    Args:
        run: A finished run.
        name: Under which it is loaded.
        license: The hub's identifier of a license, if there is one.
    """
    loaded, stored = load(run), run.stage2.path / "curve.json"
    test = loaded.test
    known, stands = test.metadata, places(run, test.num_exits)
    header = {
        "library_name": "eenet",
        **({"license": license} if license else {}),
        "tags": ["early-exit", "multi-exit", "adaptive-inference"],
    }
    columns: dict[str, Any] = {"macs": ("M MACs", 1e-6), "params": ("M parameters", 1e-6)}
    columns |= {"ms": ("ms", 1), "joules": ("J", 1), "quality": (f"{test.measure}, %", 100)}
    rows = exit_rows(test)
    used = [key for key in columns if key in rows[0]]
    exits = [
        [row["exit"], *stands[k : k + 1], *(f"{row[x] * columns[x][1]:.2f}" for x in used)]
        for k, row in enumerate(rows)
    ]
    curve = ""
    if stored.is_file():
        table = by_policy(json.loads(stored.read_text("utf-8"))["rows"])
        cells = [
            [f"{here[0]['budget']:.3g}", *map(_cell, here)]
            for here in zip(*table.values(), strict=True)
        ]
        note = f"Test {test.measure} in %, and in brackets the mean cost used, by budget; both are "
        note += "fractions of the full network's cost. `!` cost more than the budget, by over two "
        note += "standard errors.\n"
        picture = "\n![Curve of quality against cost](stage2/curve.png)\n"
        picture = picture if (run.stage2.path / "curve.png").is_file() else ""
        curve = f"\n## Budgets\n\n{note}\n{_table(['budget', *table], cells)}{picture}"
    made = how_made([run], loaded)
    return _CARD.format(
        header=yaml.safe_dump(header, sort_keys=False),
        title=Path(name).name.removeprefix("hf:"),
        name=name,
        network=known.get("network", "network"),
        data=known.get("data", "data of its own"),
        exits=test.num_exits,
        policies=", ".join(loaded.policies),
        measure=test.measure,
        exit_table=_table(
            ["exit", *(["after"] if stands else []), *(columns[x][0] for x in used)], exits
        ),
        curve=curve,
        made="\n".join(f"- {fact}: {value}" for fact, value in made.items() if fact != "command"),
    )


def _cell(row: dict[str, Any]) -> str:
    return f"{100 * row['quality']:.1f} ({row['cost']:.3f}){'!' if overspent(row) else ''}"


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
