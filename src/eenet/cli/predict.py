"""`eenet predict RUN_DIR`: a finished run answers files."""

import hashlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from jsonargparse.typing import PositiveInt

from eenet.cli.answers import AnswerFile
from eenet.stage_folder import check_finished, stages_of

Pair = tuple[str | int, Any]
"""An input's path or row number, and its text or file; None where there is neither."""


def predict_files(
    run_dir: str,
    input: str = "-",
    output: str = "predictions.csv",
    budget: float | None = None,
    max_loss: float | None = None,
    max_disagreement: float | None = None,
    max_ms: float | None = None,
    tail: float = 0.05,
    delta: float = 0.1,
    policy: str | None = None,
    batch_size: PositiveInt = 64,
    text_column: str | None = None,
    skip_unreadable: bool = False,
    control: float | None = None,
    alarm: float | None = None,
    device: str | None = None,
    stage2: str | None = None,
) -> int:
    """Answers every image or text of the input, each at the exit where the policy lets it leave.

    The output has a row for each, in order: the image's path or the text's row (from 0), the
    predicted class, its name where the run knows it, its probability, the exit taken (from 1) and
    the cost. Answers are kept in OUTPUT.part as they come; the same command resumes there. What
    cannot be answered costs the others nothing: OUTPUT.unanswered.csv names it with the reason, and
    the exit status is 1.

    Args:
        run_dir: Run folder of an `eenet pipeline` that has ended.
        input: Folder of images, or an image; csv, tsv, parquet or json file of texts; - for lines
            of stdin, which are texts or the paths of images.
        output: File to write, .csv or .parquet.
        budget: Average cost per sample, in the unit of the run's budgets; by default 0.5.
        max_loss: Largest loss of quality against the full network, in place of a budget: 0.01 is
            one point of accuracy. A promise if the run has a calibration split, or an estimate.
        max_disagreement: Largest share of answers that are not the full network's, in place of a
            budget. A promise or an estimate, too; it needs no labels.
        max_ms: Latency in milliseconds that all but a share `tail` of the samples keep when they
            are answered one by one, in place of a budget; by the times in the run's costs.json.
        tail: Largest share of the samples that may take longer.
        delta: Probability of breaking that promise.
        policy: Label of one of the run's policies; by default the first that serves the budget.
        batch_size: Samples per batch.
        text_column: Column of the texts; by default as in the run.
        skip_unreadable: End with status 0 although some inputs could not be answered.
        control: Step size of the online control of the budget; without one there is none.
        alarm: Rate of false alarms of a test whether the inputs are still like the test samples;
            without one there is none. The evidence counts from this command on.
        device: Where to run; by default a GPU if there is one.
        stage2: Folder of policies that were fitted on the run's outputs, such as a trial's of a
            sweep; by default the run's own.

    Returns:
        Number of inputs that could not be answered, 0 with `skip_unreadable`.

    Raises:
        FileNotFoundError: If there is no such run or input, or a folder holds no image.
        ValueError: If the output has another ending, a table has no such column, stdin is empty, or
            OUTPUT.part holds answers of other inputs or settings.
    """
    _check(input, output)
    check_finished(run_dir, stages_of(run_dir)[0])
    from eenet.inference import AdaptivePredictor
    from eenet.run_folder import RunFolder

    run = RunFolder(run_dir, stage2)
    predictor = AdaptivePredictor.from_run(
        run_dir,
        budget,
        policy,
        stage2=stage2,
        max_loss=max_loss,
        max_disagreement=max_disagreement,
        max_ms=max_ms,
        tail=tail,
        delta=delta,
        alarm=alarm,
        control=control,
        device=device,
    )
    data = run.data()
    pairs = _inputs(input, data, text_column)
    names = _class_names(run, data)
    files = [run.stage1.best, run.stage2.best, run.stage2.config_file]
    state = [[str(path), path.stat().st_mtime] for path in files if path.is_file()]
    digest = hashlib.sha256(json.dumps([pairs, state]).encode()).hexdigest()
    asked = {"policy": predictor.policy.label, "budget": predictor.budget, "control": control}
    begun = time.perf_counter()
    with AnswerFile(output, {"inputs": digest, **asked}) as answers:
        if answers.position:
            print(f"{answers.part}: resumes after {answers.position} of {len(pairs)} inputs")
        _answer(predictor, data, pairs, answers, batch_size, names)
        columns = ["input", *(["class"] if names else []), "prediction", "confidence"]
        spent = [(row["exit"], row["cost"]) for row in answers.rows() if "reason" not in row]
        unanswered = answers.finish([*columns, "exit", "cost"])
    _print_summary(output, predictor, spent, time.perf_counter() - begun)
    if unanswered:
        print(
            f"eenet: {len(unanswered)} of {len(pairs)} inputs could not be answered, see "
            f"{answers.unanswered}; the first: {unanswered[0]['input']}: "
            f"{unanswered[0]['reason']}",
            file=sys.stderr,
        )
    return 0 if skip_unreadable else len(unanswered)


def _print_summary(
    output: str, predictor: Any, spent: list[tuple[int, float]], seconds: float
) -> None:
    """What was spent, exits and costs of all answers, and what else the predictor has to say."""
    exits, costs = zip(*spent, strict=True) if spent else ((), ())
    counts = [exits.count(k + 1) for k in range(predictor.net.num_exits)]
    shares = " / ".join(f"{100 * count / max(len(spent), 1):.1f}" for count in counts)
    mean = sum(costs) / max(len(spent), 1)
    print(
        f"{output}: {len(spent)} answers in {seconds:.1f} s, reading included; policy "
        f"{predictor.policy.label}; mean cost {mean:.4g} at a budget of {predictor.budget:g}; "
        f"exits taken {shares} %"
    )
    if predictor.asked is not None:
        print(f"{output}: {predictor.asked}")
    report = predictor.report()
    if report.drift is not None:
        print(f"{output}: " + (report.alarm or f"the alarm is silent (p = {report.drift:.2g})"))


def predict_command(args: Sequence[str]) -> None:
    """Runs the command line after `eenet predict`; ends with status 1 if an input has no answer."""
    prog = "eenet predict"
    if auto_cli(predict_files, args=list(args), as_positional=True, prog=prog, exit_on_error=False):
        sys.exit(1)


def _check(input: str, output: str) -> None:
    """Refuses what can be refused before anything is loaded."""
    if Path(output).suffix not in (".csv", ".parquet"):
        raise ValueError(f"output={output!r} must end in .csv or .parquet")
    if input != "-" and not Path(input).exists():
        raise FileNotFoundError(f"input={input!r} does not exist")


def _inputs(source: str, data: Any, text_column: str | None) -> list[Pair]:
    """The inputs in order, by path or row number."""
    from eenet.data.decode import EXTENSIONS, image_files, printable
    from eenet.data.tables import get_column, read_table

    is_text = hasattr(data, "text_column")
    if source == "-":
        lines = _lines()
        if not any(line.strip() for line in lines):
            raise ValueError("input=-: stdin is empty; expected one text or image path per line")
        if is_text:
            return [(row, line) for row, line in enumerate(lines)]
        return [(printable(line.replace("\0", "")), line) for line in lines if line.strip()]
    if is_text:
        name = text_column or data.text_column
        values = get_column(read_table(source, "train"), "text_column", name, f"input={source!r}")
        return [(row, x if isinstance(x, str) else None) for row, x in enumerate(values)]
    files = [source] if Path(source).is_file() else image_files(source)
    if not files:
        kinds = ", ".join(sorted(EXTENSIONS))
        raise FileNotFoundError(f"input={source!r} holds no image ({kinds})")
    return [(printable(file), file) for file in files]


def _lines() -> list[str]:
    """Lines of stdin, whatever ends them; bytes that are not UTF-8 are kept as in file names."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    lines = sys.stdin.read().removeprefix("\ufeff").split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _answer(
    predictor: Any,
    data: Any,
    pairs: list[Pair],
    answers: AnswerFile,
    batch_size: int,
    names: list[str] | None,
) -> None:
    """Answers the inputs that are not through yet, and writes them as they come."""
    from rich.console import Console
    from rich.progress import track

    waiting: deque[list[dict[str, Any]]] = deque()
    todo = pairs[answers.position :]
    skipped: list[dict[str, Any]] = []

    def batches() -> Iterator[Any]:
        for start in range(0, len(todo), batch_size):
            rows, encoded = _encode(data, todo[start : start + batch_size])
            skipped.extend(rows)
            if encoded is not None:
                waiting.append(skipped.copy())
                skipped.clear()
                yield encoded

    stream = predictor.predict_stream(batches(), batch_size)
    total = -(-len(todo) // batch_size)
    for answer in track(stream, "Predicting", total, console=Console(stderr=True)):
        if answer.predictions.dim() > 1:
            raise ValueError("run_dir: this is a segmentation run, and maps do not fit a table")
        fields = (answer.predictions, answer.probabilities.amax(1), answer.exits + 1, answer.costs)
        values = zip(*(field.tolist() for field in fields), strict=True)
        rows = waiting.popleft()
        for row in rows:
            if "reason" not in row:
                row |= zip(("prediction", "confidence", "exit", "cost"), next(values), strict=True)
                row |= {"class": names[row["prediction"]]} if names else {}
        answers.add(rows)
    answers.add(skipped)


def _encode(data: Any, pairs: list[Pair]) -> tuple[list[dict[str, Any]], Any]:
    """A row for each input, with the reason where it cannot be read, and the batch of the rest."""
    rows, raw = list[dict[str, Any]](), list[Any]()
    for name, value in pairs:
        rows.append({"input": name})
        try:
            raw.append(_read(data, value))
        except Exception as error:  # whatever a decoder or a file system raises
            rows[-1]["reason"] = str(error) or type(error).__name__
    try:
        return rows, data.encode(raw) if raw else None
    except Exception:
        good = []
        for row, sample in zip([row for row in rows if "reason" not in row], raw, strict=True):
            try:
                data.encode([sample])
                good.append(sample)
            except Exception as error:
                row["reason"] = str(error) or type(error).__name__
        if len(good) == len(raw):
            raise  # it is not about single inputs
        return rows, data.encode(good) if good else None


def _read(data: Any, value: str | None) -> Any:
    """A text, or an image from its file."""
    from eenet.data.decode import decode

    if not hasattr(data, "text_column"):
        return decode(value or "")
    if value is None or not value.strip():
        raise ValueError("there is no text")
    try:
        return os.fsencode(value).decode()  # a line that is not UTF-8 came with surrogates
    except UnicodeDecodeError as error:
        raise ValueError(f"this line is not text in UTF-8: {error}") from None


def _class_names(run: Any, data: Any) -> list[str] | None:
    """Names of the classes, if the data or the exit outputs have them."""
    from eenet.outputs import load_outputs

    outputs = run.stage1.outputs_file("test")
    known = load_outputs(outputs).metadata if outputs.is_file() else {}
    names = getattr(data, "class_names", None) or json.loads(known.get("class_names", "null"))
    return None if names is None else list(names)
