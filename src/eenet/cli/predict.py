"""`eenet predict RUN_DIR`: a finished run answers files."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
from jsonargparse import auto_cli
from PIL import Image
from pyarrow import csv, parquet
from rich.console import Console
from rich.progress import track
from torchvision.datasets.folder import IMG_EXTENSIONS

from eenet.data.tables import read_table, texts_of
from eenet.files import atomic
from eenet.inference import AdaptivePredictor
from eenet.outputs import load_outputs
from eenet.run_folder import RunFolder


def predict_files(
    run_dir: str,
    input: str = "-",
    output: str = "predictions.csv",
    budget: float = 0.5,
    policy: str | None = None,
    batch_size: int = 64,
    text_column: str | None = None,
    skip_unreadable: bool = False,
    control: float | None = None,
    device: str | None = None,
) -> None:
    """Answers every image or text of the input, each at the exit where the policy lets it leave.

    The output has a row for each, in order: the image's path or the text's row (from 0), the
    predicted class, its name where the run knows it, its probability, the exit taken (from 1) and
    the cost.

    Args:
        run_dir: Run folder of an `eenet pipeline` that has ended.
        input: Folder of images, or an image; csv, tsv, parquet or json file of texts; - for lines
            of stdin, which are texts or the paths of images.
        output: File to write, .csv or .parquet.
        budget: Average cost per sample, in the unit of the run's budgets.
        policy: Label of one of the run's policies; by default the first.
        batch_size: Samples per batch.
        text_column: Column of the texts; by default as in the run.
        skip_unreadable: Leave out images that cannot be read, instead of stopping there.
        control: Step size of the online control of the budget; without one there is none.
        device: Where to run; by default a GPU if there is one.

    Raises:
        FileNotFoundError: If there is no such run or input, or a folder holds no image.
        ValueError: If the output has another ending, an image cannot be read, a table has no such
            column, or there is no text in it.
    """
    if Path(output).suffix not in (".csv", ".parquet"):
        raise ValueError(f"output={output!r} must end in .csv or .parquet")
    predictor = AdaptivePredictor.from_run(run_dir, budget, policy, control=control, device=device)
    run = RunFolder(run_dir)
    data = run.data()
    is_text = hasattr(data, "text_column")
    if input == "-":
        found = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    elif not Path(input).exists():
        raise FileNotFoundError(f"input={input!r} does not exist")
    elif is_text:
        column = text_column or data.text_column
        found = texts_of(read_table(input, "train"), column, f"input={input!r}")
    else:
        found = _images(input)
    if not found:
        raise ValueError("input=-: stdin is empty; give one text, or the path of an image, a line")
    names: list[Any] = []

    def batches() -> Iterator[Any]:
        for start in range(0, len(found), batch_size):
            part = found[start : start + batch_size]
            samples = enumerate(part, start) if is_text else _read(part, skip_unreadable)
            if samples := list(samples):
                names.extend(name for name, _ in samples)
                yield data.encode([raw for _, raw in samples])

    columns: dict[str, list[Any]] = {"prediction": [], "confidence": [], "exit": [], "cost": []}
    begun = time.perf_counter()
    answers = predictor.predict_stream(batches(), batch_size)
    total = -(-len(found) // batch_size)
    for answer in track(answers, "Predicting", total, console=Console(stderr=True)):
        if answer.predictions.dim() > 1:
            raise ValueError(f"{run_dir} is a segmentation run: maps do not fit into a table")
        rows = (answer.predictions, answer.probabilities.amax(1), answer.exits + 1, answer.costs)
        for column, values in zip(columns.values(), rows, strict=True):
            column += values.tolist()
    seconds = time.perf_counter() - begun
    outputs = run.stage1.outputs_file("test")
    known = load_outputs(outputs).metadata if outputs.is_file() else {}
    classes = getattr(data, "class_names", None) or json.loads(known.get("class_names", "null"))
    named = {"class": [classes[c] for c in columns["prediction"]]} if classes else {}
    table = pyarrow.table({"input": names, **named, **columns})
    with atomic(output) as temporary:
        write = csv.write_csv if Path(output).suffix == ".csv" else parquet.write_table
        write(table, temporary)
    report = predictor.report()
    shares = " / ".join(f"{100 * share:.1f}" for share in report.exit_shares)
    print(
        f"{output}: {len(names)} answers in {seconds:.1f} s, reading included "
        f"({1e3 * seconds / max(len(names), 1):.2f} ms each); mean cost {report.mean_cost:.4g} at "
        f"a budget of {budget:g}; exits taken {shares} %"
    )


def predict_command(args: Sequence[str]) -> None:
    """Runs the command line after `eenet predict`."""
    prog = "eenet predict"
    auto_cli(predict_files, args=list(args), as_positional=True, prog=prog, exit_on_error=False)


def _images(source: str) -> list[str]:
    path = Path(source)
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    found = [str(file) for file in files if file.suffix.lower() in IMG_EXTENSIONS]
    if not found:
        raise FileNotFoundError(f"input={source!r} holds no image ({', '.join(IMG_EXTENSIONS)})")
    return found


def _read(paths: list[str], skip_unreadable: bool) -> list[tuple[Any, Any]]:
    images = []
    for path in paths:
        try:
            with Image.open(path) as image:
                images.append((path, image.copy()))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            if not skip_unreadable:
                raise ValueError(
                    f"{path} cannot be read ({error}); --skip_unreadable true leaves such files out"
                ) from error
            print(f"eenet: skipped {path}: {error}", file=sys.stderr)
    return images
