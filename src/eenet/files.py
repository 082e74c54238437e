"""Files that are either complete or absent."""

import hashlib
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its place when the block succeeds.

    Whoever reads `path`, whenever, finds the old file or the new one, never half of it. The folder
    is made if need be; on an exception the temporary file is removed and `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Reads a file of `torch.save` onto the CPU, without executing anything in it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds more than tensors and plain values.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it is no file of torch.save, or holds more than tensors and plain "
            "values, which could run code when read. Use weights from a source that you trust, "
            "saved as a state_dict."
        ) from error
    except FileNotFoundError:
        raise
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}): write it anew") from error
    return found


def load_part(path: str | Path, prefix: str) -> dict[str, Any]:
    """The state of one module of a Lightning checkpoint, its names without `prefix`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As `load_tensors`.
    """
    state = load_tensors(path)["state_dict"]
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
