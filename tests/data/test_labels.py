"""One meaning of a label in every file: matched by value, whatever its type."""

from decimal import Decimal

import pandas as pd
import pytest

from eenet.data.labels import Classes, find_classes, label_key, require_labels
from eenet.data.tables import get_column, read_table


def place(row):
    return f"test.csv: row {row} of 'label'"


def names_of(train, test, **options):
    """The class names that the labels of another file are read as."""
    classes = find_classes(train, place, **options)
    return [classes.names[number] for number in classes.index(test, place)]


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        ((1, 1.0, "1", "1.0", "+1", " 1 ", Decimal("1.00")), "1"),
        ((-1, -1.0, "-1", "-1.0"), "-1"),
        ((0, -0.0, "0.0", "-0"), "0"),
        ((True, "True", "true", "TRUE"), "True"),
        ((False, "false"), "False"),
        ((10**20, 1e20, "1" + "0" * 20), "1" + "0" * 20),
        (("007",), "007"),
        (("1e5",), "1e5"),
        (("None",), "None"),
        (("nan",), "nan"),
        (("inf",), "inf"),
        (("²",), "²"),
    ],
)
def test_what_is_the_same_label(labels, key):
    assert {label_key(label) for label in labels} == {key}


FORMS = {
    "numbers": [[1, 2, 10], [1.0, 2.0, 10.0], ["1", "2", "10"], ["1.0", "2.0", "10.0"]],
    "signs": [[-1, 1], [-1.0, 1.0], ["-1", "1"], ["-1", "+1"]],
    "truth": [[False, True], ["False", "True"], ["false", "true"], ["FALSE", "TRUE"]],
    "names": [["NA", "None", "nan", "null"]],
    "mixed": [[1, 2, "unknown"], ["1", "2", "unknown"]],
}


@pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS)
def test_every_form_of_a_label_is_the_class_of_training(forms):
    for train in forms:
        classes = find_classes(list(reversed(train)), place)
        assert [label_key(name) for name in classes.names] == [label_key(x) for x in forms[0]]
        for test in forms:
            assert classes.index(test, place).tolist() == list(range(len(test)))
            # A file that lacks a class does not shift the others.
            assert classes.index(test[1:], place).tolist() == list(range(1, len(test)))


def test_names_are_as_the_file_spells_them():
    assert find_classes(["true", "false"], place).names == ["false", "true"]
    assert find_classes([True, False], place).names == ["False", "True"]
    assert find_classes(["1.0", "2.0"], place).names == ["1.0", "2.0"]
    assert find_classes(["1.0", "1", 2.0], place).names == ["1", "2"]
    assert find_classes(["1.0", 1, "1.0", "2"], place).names == ["1", "2"]


@pytest.mark.parametrize(
    ("train", "test", "wrong"),
    [
        ([1, 2, 3, 4, 5], [1, 0], "0"),
        (["2", "4", "6"], [2, 1], "1"),
        (["bad", "good"], ["bad", 0], "0"),
        (["bad", "good"], ["bad", "Good"], "'Good'"),
        ([False, True], [True, 0], "0"),
        ([0, 1], [0, True], "True"),
        (["01", "02"], ["01", 2], "2"),
        ([0, 1], [0, 2.5], "2.5"),
    ],
)
def test_a_label_that_training_has_not_is_named(train, test, wrong):
    with pytest.raises(ValueError, match=rf"test.csv: row 1 of 'label' is {wrong}, .*\(in 1 rows"):
        names_of(train, test)


def test_given_names_set_the_order_and_may_be_of_any_type():
    assert Classes(["good", "bad"], True).index(["bad", "good"], place).tolist() == [1, 0]
    assert Classes([10, 2], True).index(["2", 10.0], place).tolist() == [1, 0]
    assert Classes([True, False], True).index(["false", True], place).tolist() == [1, 0]
    # The numbers that stand for names, as on the hub, but no mixture of both.
    classes = Classes(["negative", "positive"], True)
    assert classes.index([1, 0, "1.0"], place).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="row 1 of 'label' is 1"):
        classes.index(["negative", 1], place)
    # With names that are numbers, they would be ambiguous.
    for names in ([1, 2, 3], [True, False]):
        with pytest.raises(ValueError, match="row 0 of 'label' is 0"):
            Classes(names, True).index([0, 1], place)
    for names in (["a", "a"], [1, "1.0"], ["one"], []):
        with pytest.raises(ValueError, match="two classes or more, all different"):
            Classes(names, True)


def test_a_number_of_classes_may_be_said():
    assert names_of([0, 2], [1, 2], num_classes=3) == ["1", "2"]
    assert names_of([1, 2, 3], [3, 1], num_classes=3) == ["3", "1"]
    assert names_of(["0.0", "1.0"], [1, 0], num_classes=2) == ["1", "0"]
    with pytest.raises(ValueError, match=r"num_classes=3, .* 2 classes: \[a, b\]; .*label_names"):
        find_classes(["a", "b"], place, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.5, 2.0], "row 0 of 'label' is 0.5: .*regression is not supported"),
        (["1", "2.25", "1e-3"], "row 1 of 'label' is '2.25': .*regression"),
        (list(range(40)), r"40 different labels in 40 rows \(\[0, 1, .*regression"),
        ([f"text {n}" for n in range(99)], "99 different labels in 99 rows"),
        (["a", "b", "c", "a|b"], "row 3 of 'label' is 'a|b', several labels in one"),
        (["one"] * 3, r"two classes or more, all different, not \['one'\]"),
    ],
)
def test_what_are_no_classes_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        find_classes(labels, place)


@pytest.mark.parametrize("names", [["a", "b", "a|b"], [0.5, 1.5], ["3.9", "3.10"]])
def test_what_looks_like_no_class_may_be_named(names):
    assert Classes(names, True).index(names[::-1], place).tolist()[-1] == 0


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), "", "  "])
def test_a_missing_label_is_named(missing):
    with pytest.raises(ValueError, match=r"test.csv: row 1 of 'label' holds no label"):
        require_labels([0, missing, 1, missing], place)


@pytest.mark.parametrize("several", [[1, 2], {"a": 1}, b"a"])
def test_several_labels_in_a_row_are_refused(several):
    with pytest.raises(ValueError, match=r"row 0 of 'label' is .*one label"):
        require_labels([several], place)


WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "json": lambda frame, path: frame.to_json(path, orient="records"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


def test_labels_mean_the_same_in_every_kind_of_file(tmp_path):
    for name, forms in FORMS.items():
        files = {}
        for number, form in enumerate(forms):
            labels = form if name != "mixed" else list(map(str, form))
            for suffix, write in WRITERS.items():
                path = tmp_path / f"{name}{number}.{suffix}"
                write(pd.DataFrame({"label": labels}), path)
                files[path] = get_column(read_table(str(path), "train"), "x", "label", "")
        for train in files.values():
            classes = find_classes(train, place)
            for path, test in files.items():
                index = classes.index(test, place).tolist()
                assert index == list(range(len(forms[0]))), path
