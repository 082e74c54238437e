"""What is read of a table is what was written into it, and labels keep their meaning."""

import csv
import json
import re

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from eenet.data.labels import find_classes, label_key
from eenet.data.tables import read_table

# What tables trip over, and anything else that UTF-8 can hold.
PARTS = st.sampled_from(['"', '""', "'", ",", ";", "|", "\\", " ", "a", "007", "1e5", "NA", "null"])
LINE = st.lists(PARTS | st.characters(codec="utf-8", exclude_characters="\t\r\n"), max_size=6)
TEXT = st.lists(PARTS | st.characters(codec="utf-8") | st.sampled_from("\n\r"), max_size=6)


def rows(first):
    # A carriage return at the end of a row is part of its end.
    return st.lists(st.tuples(first.map("".join), LINE.map("".join)), min_size=1, max_size=6)


def read(path):
    table = read_table(str(path), "train")
    return list(zip(table["first"][:], table["second"][:], strict=True))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table"


QUOTING = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])


@given(rows(TEXT), QUOTING, st.sampled_from(["\n", "\r\n"]))
def test_csv(path, content, quoting, end):
    with path.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator=end)
        writer.writerows([("first", "second"), *content])
    assert read(path.with_suffix(".csv")) == content


@given(rows(LINE))
def test_tsv_of_plain_lines(path, content):
    quoted = re.compile('"([^"]|"")*"')  # what a program that quotes may have written
    content = [row for row in content if any(row) and not any(map(quoted.fullmatch, row))]
    lines = ["\t".join(row) for row in [("first", "second"), *content, ("last", "")]]
    path.with_suffix(".tsv").write_text("\n".join(lines), encoding="utf-8", newline="")
    assert read(path.with_suffix(".tsv")) == [*content, ("last", "")]


@given(rows(TEXT), QUOTING)
def test_tsv_of_pandas(path, content, quoting):
    frame = pd.DataFrame(content, columns=["first", "second"], dtype=str)
    frame.to_csv(path.with_suffix(".tsv"), sep="\t", index=False, quoting=quoting)
    assert read(path.with_suffix(".tsv")) == content


@given(rows(TEXT), st.booleans())
def test_json_and_parquet(path, content, lines):
    objects = [dict(zip(("first", "second"), row, strict=True)) for row in content]
    text = "\n".join(map(json.dumps, objects)) if lines else json.dumps(objects, ensure_ascii=False)
    path.with_suffix(".json").write_text(text, encoding="utf-8", newline="")
    assert read(path.with_suffix(".json")) == content
    columns = [pa.array(column, pa.string()) for column in zip(*content, strict=True)]
    parquet.write_table(pa.table(columns, ["first", "second"]), path.with_suffix(".parquet"))
    assert read(path.with_suffix(".parquet")) == content


NAMES = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda x: x.strip())
NUMBERS = st.integers(-(10**6), 10**6)


@given(st.data(), st.sets(NAMES | NUMBERS, min_size=2, max_size=9))
def test_labels_mean_the_same_in_every_type(data, labels):
    """Class c of training is class c in a file that writes numbers in another way."""
    labels = sorted(labels, key=str)
    keys = {label_key(label) for label in labels}
    try:
        classes = find_classes(labels, str)
    except ValueError:  # a measurement, or a name made of others
        return
    assert len(classes.names) == len(keys)

    def spelled(label):
        if isinstance(label, str):
            return label
        return data.draw(st.sampled_from([label, float(label), str(label), f"{label}.0"]))

    again = [spelled(label) for label in labels]
    numbers = classes.index(again, str).tolist()
    assert [label_key(classes.names[n]) for n in numbers] == [label_key(x) for x in labels]
    stranger = data.draw(NAMES | NUMBERS)
    if label_key(stranger) not in keys:
        with pytest.raises(ValueError, match="none of the classes"):
            classes.index([*again, stranger], str)
