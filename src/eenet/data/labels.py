"""What the labels of tables mean: the classes of the training table, in every file the same."""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_WHOLE = re.compile(r"\s*([+-]?)(0|[1-9][0-9]*)(\.0*)?\s*")
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_MANY = 20
"""Up to so many classes may have hardly a row each."""


@lru_cache(maxsize=10_000, typed=True)
def label_key(label: Any) -> str:
    """The same text for labels that mean the same, whatever type a file gives them.

    Whole numbers count by their value (`1`, `1.0`, `"1"`, `"+1.0"`; but `"01"` is a name), truth
    values by theirs (`True`, `"true"`, `"TRUE"`). All else is the text as it stands.
    """
    text = str(label)
    if isinstance(label, float) and label.is_integer():
        text = str(int(label))
    if text in ("true", "TRUE", "false", "FALSE"):
        return text.capitalize()
    whole = _WHOLE.fullmatch(text)
    return text if whole is None else str(int(whole[1] + whole[2]))


class Classes:
    """Classes in order, and which of them a label is.

    Args:
        names: Their names, or labels of them.
        given: Whether a user or the data say that the names stand for the numbers 0 ... C - 1; a
            file may then hold those numbers, unless a name is a number or truth value itself.
        num_classes: How many there must be.

    Raises:
        ValueError: If there are fewer than two, not as many as there must be, or two are the same.
    """

    def __init__(self, names: Sequence[Any], given: bool, num_classes: int | None = None) -> None:
        self.names = [str(name) for name in names]
        self._index = {label_key(name): number for number, name in enumerate(names)}
        if len(self._index) < max(2, len(names)):
            raise ValueError(f"there must be two classes or more, all different, not {self.names}")
        if num_classes not in (None, len(names)):
            raise ValueError(
                f"num_classes={num_classes}, but there are {len(names)} classes: "
                f"{_some(self.names)}; correct it, or name all classes in label_names"
            )
        values = any(_is_number(key) or key in ("True", "False") for key in self._index)
        self._numbers = {str(number): number for number in range(len(names))}
        self.by_number = (given and not values) or self._index == self._numbers

    def knows(self, labels: Sequence[Any]) -> bool:
        """Whether all labels are names of classes."""
        return all(label_key(label) in self._index for label in labels)

    def index(self, labels: Sequence[Any], place: Callable[[int], str]) -> Tensor:
        """The numbers of the classes `[N]` (int64) of N labels.

        Args:
            labels: Names of classes; or all of them numbers from 0, where `by_number`.
            place: What to call a row in an error.

        Raises:
            ValueError: If a label is not a class.
        """
        keys = [label_key(label) for label in labels]
        numbers = self.by_number and all(key in self._numbers for key in set(keys))
        index = self._numbers if numbers else self._index
        wrong = [row for row, key in enumerate(keys) if key not in index]
        if wrong:
            others = sorted({repr(labels[row]) for row in wrong})
            raise ValueError(
                f"{place(wrong[0])} is {labels[wrong[0]]!r}, which is none of the classes "
                f"{_some(self.names)} (in {len(wrong)} rows: {_some(others)}); correct "
                "such rows, or name all classes in label_names, each in quotes"
            )
        return torch.tensor([index[key] for key in keys], dtype=torch.int64)


def find_classes(
    labels: Sequence[Any], place: Callable[[int], str], num_classes: int | None = None
) -> Classes:
    """The classes of a training table from its labels: numbers in their order, then names.

    Args:
        labels: The labels of all rows.
        place: What to call a row in an error.
        num_classes: How many there must be. Labels among 0 ... C - 1 need not hold all of them.

    Raises:
        ValueError: If the labels are measurements, single texts or several labels in one, or not
            as many classes as said.
    """
    names: dict[str, str] = {}  # as the file spells them, where it does so in one way
    for label in labels:
        key = label_key(label)
        spelling = label if isinstance(label, str) else key
        names[key] = key if names.get(key, spelling) != spelling else spelling
    keys = sorted(names, key=lambda x: (not _is_number(x), int(x) if _is_number(x) else 0, x))
    numbers = {str(number) for number in range(num_classes or 0)}
    if set(keys) <= numbers:
        return Classes(range(num_classes or 0), False)
    _refuse_what_are_no_classes(keys, labels, place)
    if num_classes is None and 2 * len(keys) > max(len(labels), 2 * _MANY):
        raise ValueError(
            f"{len(keys)} different labels in {len(labels)} rows ({_some(keys)}) are hardly "
            "classes; numbers cannot be predicted (regression). If they are, set num_classes"
        )
    return Classes([names[key] for key in keys], False, num_classes)


def require_labels(labels: Sequence[Any], place: Callable[[int], str]) -> None:
    """Refuses rows without a label, or with something that cannot be one (`ValueError`)."""
    missing = [row for row, label in enumerate(labels) if _is_missing(label)]
    if missing:
        raise ValueError(
            f"{place(missing[0])} holds no label but {labels[missing[0]]!r} (such rows: "
            f"{_some(missing)}); fill in or remove them"
        )
    for row, label in enumerate(labels):
        if isinstance(label, list | tuple | dict | bytes):
            raise ValueError(
                f"{place(row)} is {label!r}: a row must have one label, a name or a number "
                "(several labels at once are not supported)"
            )


def _refuse_what_are_no_classes(
    keys: Sequence[str], labels: Sequence[Any], place: Callable[[int], str]
) -> None:
    if all(map(_NUMBER.fullmatch, keys)) and any(float(x) % 1 for x in keys):
        row = next(row for row, x in enumerate(labels) if float(x) % 1)
        raise ValueError(
            f"{place(row)} is {labels[row]!r}: such numbers are not classes, and regression is not "
            "supported. If they are, name all of them in label_names"
        )
    for key in keys:
        several = [part.strip() for part in re.split(r"[|;,]", key)]
        if len(several) > 1 and set(several) <= set(keys):
            row = next(row for row, x in enumerate(labels) if label_key(x) == key)
            raise ValueError(
                f"{place(row)} is {key!r}, several labels in one, which is not supported. If it is "
                "a class of its own, name all classes in label_names"
            )


def _is_missing(label: Any) -> bool:
    return (
        label is None
        or (isinstance(label, float) and not math.isfinite(label))
        or (isinstance(label, str) and not label.strip())
    )


def _is_number(key: str) -> bool:
    """Whether a key is a whole number."""
    return key == label_key(key) and _WHOLE.fullmatch(key) is not None


def _some(values: Sequence[Any]) -> str:
    return f"[{', '.join(map(str, values[:10]))}{', ...' if len(values) > 10 else ''}]"
