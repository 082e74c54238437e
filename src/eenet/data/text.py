"""Text classification from a hub, parquet or csv files, or a folder of `save_to_disk`."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from eenet.data.labels import Classes, find_classes, require_labels
from eenet.data.sentences import Sentences, require_known, tokenize
from eenet.data.splits import DataSource, Split
from eenet.data.tables import get_column, is_one_table, place_of, read_table, read_texts
from eenet.extras import require


class TextClassificationSource(DataSource):
    """Sentences with a class each, tokenized once (cached on disk), in memory as one flat tensor.

    Batches are `({"input_ids", "attention_mask"}, labels)`: int64 `[B, T]`, `[B, T]` and `[B]`,
    padded to the longest sentence of the batch. Training batches hold sentences of similar
    length, in random order; all others keep the order of the data.

    `train` and `test` are each a hub id, files (parquet, csv, tsv, json; one path or several), a
    folder of `save_to_disk`, or a folder of files named after the splits. With `test_size`, test
    is held out of `train`.

    Args:
        tokenizer: The tokenizer: a name on the Hugging Face hub or a local folder.
        train: The data to divide into training, validation and calibration splits.
        test: The test data; None for another split of `train`, or with `test_size`.
        num_classes: Number of classes C; by default as many as `train` has.
        config_name: Configuration of the hub's data set ("sst2" of GLUE).
        train_split: Name of the training split in `train`, where that has splits.
        test_split: Name of the test split.
        text_column: Column of the texts.
        label_column: Column of the labels.
        label_names: All C labels (names, numbers or truth values) in the order of the classes, or
            names for the labels 0 ... C - 1. Without them the classes are the labels of `train`:
            numbers in their order, then names. Other files' labels are matched by value: 1, 1.0 and
            "1" are one class in every kind of file, and one that `train` has not is an error.
        max_length: Tokens at which a sentence is cut, special ones included.
        **settings: Those of `DataSource`.

    Raises:
        ModuleNotFoundError: At set-up, if transformers is not installed.
        FileNotFoundError: At set-up, if a path does not exist or holds no such split.
        ValueError: If `label_names` are not `num_classes` names. At set-up, if the tokenizer cannot
            be loaded or knows hardly any of the words of `train`, a column is missing, a text or
            label is empty, a label is not a class, labels are measurements (regression) or several
            in a row, or there is nothing to test on.
    """

    def __init__(
        self,
        tokenizer: str,
        train: list[str] | str,
        num_classes: int | None = None,
        test: list[str] | str | None = None,
        config_name: str | None = None,
        train_split: str = "train",
        test_split: str = "test",
        text_column: str = "text",
        label_column: str = "label",
        label_names: list[str | bool | int | float] | None = None,
        max_length: int = 128,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if label_names is not None and num_classes not in (None, len(label_names)):
            raise ValueError(f"label_names={label_names} must have num_classes={num_classes} names")
        self._classes = None if label_names is None else Classes(label_names, True)
        self.tokenizer, self.max_length = tokenizer, max_length
        self.train, self.test, self.config_name = train, test, config_name
        self.split_names = {"train": train_split, "test": test_split}
        self.num_classes = num_classes or len(label_names or ())  # 0 until they are found
        self.text_column, self.label_column = text_column, label_column
        self.class_names = self._classes.names if self._classes else None

    def read(self) -> dict[Split, Dataset[Any]]:
        """Reads, tokenizes and divides the texts."""
        splits = self.divide(self._load("train"))
        held_out = "test" in splits
        if held_out != (self.test is None and is_one_table(self.train)):
            raise ValueError(
                f"train={self.train!r}, test={self.test!r}: give `test`, or hold rows of one table "
                "out by `test_size` (their number or fraction), not both"
            )
        return splits if held_out else {**splits, "test": self._load("test")}

    def rows(self, split: Split) -> Any:
        """The rows of a split as they were read, a `datasets.Dataset`, in the split's order."""
        if split == "test" and "test" not in self.sizes:
            return self._table("test")
        table = self._table("train")
        return table.select(self.parts(len(table))[split].tolist())

    def encode(self, raw: Sequence[str]) -> dict[str, Tensor]:
        """Texts as the network takes them: `input_ids` and `attention_mask`, `[B, T]` int64."""
        if isinstance(raw, str):
            raise ValueError(f"a list of texts is wanted, not one text: {raw[:80]!r}")
        for number, text in enumerate(raw):
            try:
                text.encode()
            except (AttributeError, UnicodeEncodeError) as error:
                raise ValueError(
                    f"text {number} of the batch is {repr(text)[:80]}, which is not text in UTF-8"
                ) from error
        cut = {"truncation": True, "max_length": self.max_length}
        encoded = self._tokenizer(list(raw) or [""], **cut, padding=True, return_tensors="pt")
        return {name: encoded[name][: len(raw)] for name in ("input_ids", "attention_mask")}

    @property
    def num_tokens(self) -> int:
        """One more than the tokenizer's largest token."""
        return 1 + int(max(self._tokenizer.get_vocab().values()))

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint: the classes, and the tokenizer's files by their names."""
        with TemporaryDirectory() as folder:
            self._tokenizer.save_pretrained(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return {**super().state_dict(), "tokenizer": files}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up classes and tokenizer: what `tokenizer` names is not needed any more."""
        super().load_state_dict(state_dict)
        with TemporaryDirectory() as folder:
            for name, content in state_dict["tokenizer"].items():
                Path(folder, name).write_bytes(content)
            self._tokenizer = _load_tokenizer(folder)

    @cached_property
    def _tokenizer(self) -> Any:
        return _load_tokenizer(self.tokenizer)

    def _source(self, which: str) -> list[str] | str:
        return self.train if which == "train" or self.test is None else self.test

    def _table(self, which: str) -> Any:
        return read_table(self._source(which), self.split_names[which], self.config_name)

    def _load(self, which: str) -> Sentences:
        where, table = f"{which}={self._source(which)!r}", self._table(which)
        labels = self._labels(table, where)
        texts = read_texts(table, self.text_column, where)
        sentences = tokenize(texts, labels, self._tokenizer, self.max_length, where)
        if which == "train":
            require_known(sentences.tokens, len(texts), self._tokenizer, where)
        return sentences

    def _labels(self, table: Any, where: str) -> Tensor:
        """The rows' classes; those of the training table, read first, hold for all."""
        labels = get_column(table, "label_column", self.label_column, where)
        place = lambda row: f"{where}: {place_of(table, row, self.label_column)}"  # noqa: E731
        # Names that the data themselves give to the numbers of their column, where -1 is none.
        declared = getattr(table.features[self.label_column], "names", None)
        require_labels([None if declared and x == -1 else x for x in labels], place)
        if self._classes is None:
            wanted = self.num_classes or None
            found = Classes(declared, True, wanted) if declared else None
            self._classes = found or find_classes(labels, place, wanted)
            self.class_names = self._classes.names
            self.num_classes = len(self.class_names)
        if declared and self._classes.knows(declared):
            labels = [declared[label] for label in labels]
        return self._classes.index(labels, place)


def _load_tokenizer(source: str) -> Any:
    auto = require("transformers", "text").AutoTokenizer
    try:
        return auto.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"tokenizer={source!r} cannot be loaded: {error}") from error
