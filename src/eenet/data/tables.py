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
        if (folder / "state.json").is_file():
            return _load(datasets.load_from_disk, str(folder), files=[str(folder)])
        if (folder / "dataset_dict.json").is_file():
            table = _load(datasets.load_from_disk, str(folder), files=[str(folder)])
            if split not in table:
                raise FileNotFoundError(f"{folder} holds the splits {list(table)}, not {split!r}")
            return table[split]
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
    suffix = kinds.pop()
    options: dict[str, Any] = {"sep": "\t"} if suffix == ".tsv" else {}
    files = [str(path) for path in paths]
    options |= {"data_files": files, "split": "train"}
    return _load(datasets.load_dataset, _READERS[suffix], files=files, **options)


def _load(read: Any, *args: Any, files: list[str], **options: Any) -> Any:
    try:
        return read(*args, **options)
    except Exception as error:  # of datasets, pandas, pyarrow or fsspec, each with its own
        cause = error.__cause__ or error
        raise ValueError(
            f"{', '.join(files)} cannot be read: {cause} ({type(cause).__name__}). Tables must be "
            "complete, not empty, and text in UTF-8."
        ) from error


def is_one_table(source: str | list[str]) -> bool:
    """Whether a source of `read_table` has no splits: files, or a table of `save_to_disk`."""
    paths = [Path(path) for path in ([source] if isinstance(source, str) else source)]
    return paths[0].is_file() or (paths[0] / "state.json").is_file()
