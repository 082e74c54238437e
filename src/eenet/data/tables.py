"""Tables in any of the forms in which users keep them."""

from pathlib import Path
from typing import Any

_READERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json"}


def read_table(source: str | list[str], split: str, config_name: str | None = None) -> Any:
    """Reads one split as a `datasets.Dataset`.

    Args:
        source: Hub id, file or files, folder of `save_to_disk`, or folder of files whose names
            begin with the split's.
        split: Name of the split, where the source has several.
        config_name: Configuration of the hub's data set.

    Raises:
        FileNotFoundError: If a file does not exist, or a folder holds no such split.
        ValueError: If files are of an unknown kind, empty, or damaged.
    """
    import datasets

    paths = [Path(path) for path in ([source] if isinstance(source, str) else source)]
    if len(paths) == 1 and paths[0].is_dir():
        folder = paths[0]
        if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
            saved = _load(datasets.load_from_disk, str(folder))
            if isinstance(saved, datasets.Dataset):
                return saved
            if split not in saved:
                raise FileNotFoundError(f"{folder} holds the splits {list(saved)}, not {split!r}")
            return saved[split]
        paths = sorted(path for path in folder.glob(f"{split}*") if path.suffix in _READERS)
        if not paths:
            raise FileNotFoundError(
                f"{folder} holds neither what save_to_disk writes nor files named {split}* that "
                f"end in {sorted(_READERS)}"
            )
    elif len(paths) == 1 and paths[0].suffix not in _READERS and not paths[0].exists():
        return datasets.load_dataset(source, config_name, split=split)
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no such file: {missing}")
    kinds = {path.suffix for path in paths}
    if len(kinds) != 1 or not kinds <= set(_READERS):
        raise ValueError(f"files must all end in one of {sorted(_READERS)}, got {sorted(kinds)}")
    suffix, files = kinds.pop(), [str(path) for path in paths]
    more = {"sep": "\t"} if suffix == ".tsv" else {}
    return _load(datasets.load_dataset, _READERS[suffix], data_files=files, split="train", **more)


def column_of(table: Any, field: str, name: str, where: str) -> list[Any]:
    """A column; a ValueError names the setting `field` and the columns that there are."""
    if name not in table.column_names:
        raise ValueError(f"{field}={name!r}: {where} has the columns {table.column_names}")
    return list(table[name])


def texts_of(table: Any, name: str, where: str) -> list[str]:
    """The column of the setting `text_column`; a ValueError names rows that hold no text."""
    texts = column_of(table, "text_column", name, where)
    empty = [row for row, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if empty or not texts:
        found = [f"; row {row} of {name!r} holds no text but {texts[row]!r}" for row in empty[:1]]
        raise ValueError(
            f"{where}: no text in {name!r} in the rows {empty[:5]}{''.join(found)}; "
            "remove such rows"
        )
    return texts


def _load(read: Any, source: str, **options: Any) -> Any:
    try:
        return read(source, **options)
    except Exception as error:  # of datasets, pandas, pyarrow or fsspec, each with its own
        cause = error.__cause__ or error
        raise ValueError(
            f"{', '.join(options.get('data_files', [source]))} cannot be read: {cause} "
            f"({type(cause).__name__}). Tables must be complete, not empty, and text in UTF-8."
        ) from error


def is_one_table(source: str | list[str]) -> bool:
    """Whether a source of `read_table` has no splits: files, or a table of `save_to_disk`."""
    paths = [Path(path) for path in ([source] if isinstance(source, str) else source)]
    return paths[0].is_file() or (paths[0] / "state.json").is_file()
