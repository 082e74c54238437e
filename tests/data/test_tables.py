"""Tables are read as they stand, or refused with file and line."""

import json
import os

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from eenet.data.tables import get_column, read_table, read_texts


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def rows_of(path, columns=("text", "label")):
    table = read_table(path, "train")
    return list(zip(*(get_column(table, "column", name, path) for name in columns), strict=True))


ROWS = [("007", "1.0"), ("1e5", "NA"), ("NA", "null"), ("null", "None"), (" a, b ", "2020-01-01")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
def test_every_character_stays(write, start, end, suffix, separator):
    rows = [[f'"{x}"' if separator in x else x for x in row] for row in [("text", "label"), *ROWS]]
    content = start + end.join(separator.join(row) for row in rows)
    assert rows_of(write(f"a{suffix}", content)) == ROWS
    assert rows_of(write(f"a{suffix}", content + 2 * end)) == ROWS


QUOTES = [
    '" great film',
    '"good, he said',
    'a 5" screen',
    'she said "no"',
    '"all of it"',
    'and then"',
    '""',
    '"',
]


@pytest.mark.parametrize("count", range(1, len(QUOTES) + 1))
def test_quotes_in_a_tsv_belong_to_the_text(write, count):
    rows = [(text, str(row % 2)) for row, text in enumerate(QUOTES[:count])]
    path = write("a.tsv", "text\tlabel\n" + "".join("\t".join(row) + "\n" for row in rows))
    assert rows_of(path) == rows


def test_a_line_of_a_tsv_is_a_row_even_if_lone_quotes_enclose_it(write):
    path = write("a.tsv", 'text\tlabel\n"he said\t0\nthat is all"\t1\nfine\t0\n')
    assert rows_of(path) == [('"he said', "0"), ('that is all"', "1"), ("fine", "0")]
    path = write("a.tsv", 'text\n"great film\nbad film\n" dull movie\nawful\n')
    assert rows_of(path, ["text"]) == [
        ('"great film',),
        ("bad film",),
        ('" dull movie',),
        ("awful",),
    ]
    with pytest.raises(ValueError, match=r"a\.tsv cannot be read: quotes can be read as text or"):
        read_table(write("a.tsv", 'text\n"great film\nbad film"\nawful\n'), "train")


@pytest.mark.parametrize("quoting", range(4), ids=["minimal", "all", "nonnumeric", "none"])
def test_a_tsv_that_a_program_quoted_is_read_back(tmp_path, quoting):
    texts = ['she said "no"', "two\nlines", '"', "plain", ""] if quoting < 3 else ["a", '"b"', "c"]
    frame = pd.DataFrame({"text": texts, "label": range(len(texts))})
    frame.to_csv(tmp_path / "a.tsv", sep="\t", index=False, quoting=quoting)
    assert rows_of(str(tmp_path / "a.tsv")) == [(x, str(n)) for n, x in enumerate(texts)]


def test_quotes_around_commas_are_those_of_a_spreadsheet(write):
    path = write("a.tsv", 'text\tlabel\n"well, good"\t1\nbad\t0\n')
    assert rows_of(path) == [("well, good", "1"), ("bad", "0")]


def test_a_field_of_a_csv_may_hold_anything(write):
    long = "a" * 200_000
    path = write("a.csv", f'text,label\n"two\nlines, and a "" quote",1\n{long},0\n"\r\n",2\n')
    assert rows_of(path) == [('two\nlines, and a " quote', "1"), (long, "0"), ("\r\n", "2")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,b,1\n", "line 2 has 3 fields, the header has 2; a field"),
        ("a.csv", "text,label\na,1,\nb,0,\n", "line 2 has 3 fields"),
        ("a.csv", "text,label\ngood,1\na\n", "line 3 has 1 fields"),
        ("a.csv", 'text,label\n"a" b,1\n', "expected after '\"'"),
        ("a.csv", 'text,label\n"a,1\nb,0\n', "unexpected end of data"),
        ("a.csv", "text,text\na,1\n", "two columns have the same name"),
        ("a.tsv", "text\tlabel\na\tb\t1\n", "line 2 has 3 fields"),
        ("a.tsv", "text\tlabel\n\n\nab\n", "line 4 has 1 fields"),
        ("a.csv", "text,label\n", "it holds no row"),
        ("a.csv", b"text,label\ncaf\xe9,1\n", "can't decode byte 0xe9"),
        ("a.json", '{"text": ["a"], "label": [0]}', r"not one object of \['text', 'label'\]"),
        ("a.json", '{"data": [{"text": "a"}]}', r"not one object of \['data'\]"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2: Expecting value"),
        ("a.json", "[1, 2]", "rows must be objects"),
        ("a.json", "[]", "it holds no row"),
    ],
)
def test_what_is_no_table_is_refused(write, name, content, message):
    with pytest.raises(ValueError, match=rf"{name} cannot be read: .*{message}"):
        read_table(write(name, content), "train")


def test_the_columns_that_there_are_are_named(write):
    table = read_table(write("a.csv", "text;label\na;1\n"), "train")
    with pytest.raises(ValueError, match=r"x='text': a has the columns .*separated by commas"):
        get_column(table, "x", "text", "a")
    table = read_table(write("a.csv", ",text,,\n0,a,,\n"), "train")
    assert table.column_names == ["Unnamed: 0", "text", "Unnamed: 2", "Unnamed: 3"]


@pytest.mark.parametrize("lines", [False, True])
def test_json_keeps_its_values(write, lines):
    rows = [
        {"text": "2020-01-01T00:00:00", "label": 1, "more": {"a": [1]}},
        {"text": "123", "label": None, "more": {"a": "x"}},
        {"label": 2.0, "text": "line\u2028separator"},
    ]
    text = "\n\n".join(map(json.dumps, rows)) if lines else json.dumps(rows, indent=1)
    path = write("a.jsonl" if lines else "a.json", text)
    assert rows_of(path) == [(row["text"], row["label"]) for row in rows]
    path = write("a.jsonl", '{"label": 1}\n{"label": "x"}\n{"label": true}\n{"label": 1.0}')
    assert rows_of(path, ["label"]) == [("1",), ("x",), ("true",), ("1.0",)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"], pa.string_view()),
    ],
    ids=lambda column: str(column.type),
)
def test_every_kind_of_string_in_parquet(tmp_path, column):
    (tmp_path / "label=1").mkdir()  # no column of a partition
    path = tmp_path / "label=1" / "a.parquet"
    parquet.write_table(pa.table({"text": column}), path)
    table = read_table(str(path), "train")
    assert (table.column_names, table["text"][:]) == (["text"], ["a", "b"])


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_file_that_was_replaced_is_read_anew(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for text in ("first", "second"):
        frame = pd.DataFrame({"text": [text], "label": [1]})
        if suffix == "parquet":
            frame.to_parquet(path)
        elif "json" in suffix:
            frame.to_json(path, orient="records", lines=suffix == "jsonl")
        else:
            frame.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
        os.utime(path, (1_700_000_000, 1_700_000_000))
        assert read_texts(read_table(str(path), "train"), "text", "") == [text]


def test_several_files_are_one_table(write, tmp_path):
    write("train-0.csv", "text,label\na,0\n")
    write("train-1.csv", "label,text\n1,b\n1,\n")
    table = read_table(str(tmp_path), "train")
    assert table["label"][:] == ["0", "1", "1"]
    with pytest.raises(ValueError, match=r"row 1 of 'text' in \S*train-1\.csv holds no text"):
        read_texts(table, "text", "train")
    write("train_backup.csv", "text,label\na,0\n")
    with pytest.raises(ValueError, match=r"train-0\.csv and \S*train_backup\.csv hold the same"):
        read_table(str(tmp_path), "train")
    write("train_backup.tsv", "text\tlabel\na\t0\n")
    with pytest.raises(ValueError, match=r"must all end in .*train_backup\.tsv"):
        read_table(str(tmp_path), "train")


def test_files_that_number_classes_differently_are_refused(tmp_path):
    paths = []
    for number, names in enumerate((["bad", "good"], ["good", "bad"])):
        features = datasets.Features({"label": datasets.ClassLabel(names=names)})
        paths.append(str(tmp_path / f"{number}.parquet"))
        datasets.Dataset.from_dict({"label": [0, 1]}, features).to_parquet(paths[-1])
    with pytest.raises(ValueError, match=r"0\.parquet.*1\.parquet.* differ in their classes"):
        read_table(paths, "train")
    for labels in ([1, 2], [1.0, None]):
        path = str(tmp_path / f"{type(labels[0]).__name__}.parquet")
        pd.DataFrame({"label": labels}).to_parquet(path)
        paths.append(path)
    assert read_table(paths[2:], "train")["label"][:] == [1, 2, 1, None]
    pd.DataFrame({"label": ["a"]}).to_parquet(paths[0])
    with pytest.raises(ValueError, match="do not fit together"):
        read_table([paths[0], paths[2]], "train")
