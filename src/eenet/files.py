"""Files that are either complete or absent."""

import argparse
import base64
import fcntl
import hashlib
import json
import os
import pickle
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its place when the block succeeds.

    Whoever reads `path`, whenever, finds the old file or the new one, never half of it. The folder
    is made if need be; on an exception the temporary file is removed and `path` is untouched. Its
    permissions follow the umask, also where a library writes files that only their owner can read.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
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


def is_intact(path: str | Path) -> bool:
    """Whether a file of `torch.save` is there and complete, by the checksums of its parts."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def lock(file: IO[str]) -> bool:
    """Locks an open file until the last process that has it open ends, unless another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def hold(folder: str | Path) -> Iterator[int]:
    """Holds a folder for this process and those that inherit the file descriptor it gives.

    The lock ends with the last of them, however they end. A folder that is new and still empty
    afterwards is removed.

    Raises:
        ValueError: If another process holds the folder.
    """
    path = Path(folder) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not lock(file):
            file.seek(0)
            raise ValueError(
                f"run_dir={folder} is in use by {file.read() or 'another process'}: wait for it, "
                "or choose another"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield file.fileno()
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):
                path.parent.rmdir()


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Reads a file of `torch.save` or safetensors onto the CPU; nothing in it is executed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds more than tensors and plain values.
    """
    import safetensors  # here, so that commands which only write files do not wait for torch
    import torch
    from safetensors.torch import load_file

    try:
        if str(path).endswith(".safetensors"):
            return load_file(path)
        # Namespace: the settings that many training scripts save beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} cannot be loaded safely: not a file of torch.save, or it holds more than "
            "tensors and plain values, which could run code when read. Use weights from a source "
            "that you trust, saved as a state_dict."
        ) from error
    except FileNotFoundError:
        raise
    except (RuntimeError, EOFError, OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is corrupt or truncated ({error}): recreate it") from error
    return found


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of Lightning, or what `save_checkpoint` wrote of one; as `load_tensors`."""
    content = load_tensors(path)
    if not str(path).endswith(".safetensors"):
        return content
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        kept = json.loads((file.metadata() or {}).get("checkpoint", "{}"), object_hook=_decode)
    return {**kept, "state_dict": content}


def save_checkpoint(path: str | Path, state: "dict[str, Tensor]", kept: dict[str, Any]) -> None:
    """Writes a state_dict as safetensors, with plain values and bytes as JSON in its metadata."""
    from safetensors.torch import save_file

    text = json.dumps(kept, default=lambda x: {"base64": base64.b64encode(x).decode()})
    save_file({k: x.clone().contiguous() for k, x in state.items()}, path, {"checkpoint": text})


def _decode(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else value


def load_weights(path: str | Path) -> "dict[str, Tensor]":
    """Reads a network's tensors by name.

    Args:
        path: A safetensors file, or one of `torch.save`: a state_dict, alone or inside a checkpoint
            as "state_dict", "model_state_dict" or "model", or as the only state_dict in it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no state_dict or several, or as `load_tensors`.
    """
    content: Any = load_tensors(path)
    if _is_state(content):
        return dict(content)
    inner = content if isinstance(content, dict) else {}
    states = {key: value for key, value in inner.items() if _is_state(value)}
    usual = [key for key in ("state_dict", "model_state_dict", "model") if key in states]
    if not usual and len(states) != 1:
        kind = f"a dict of {[str(key) for key in inner][:8]}" if inner else type(content).__name__
        raise ValueError(
            f"{path} holds {kind}, not one state_dict: save the network's with "
            "torch.save(net.state_dict(), path)"
        )
    return dict(states[(usual or list(states))[0]])


def _is_state(value: Any) -> bool:
    from torch import Tensor

    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and isinstance(x, Tensor) for key, x in value.items())
    )


def load_part(path: str | Path, prefix: str) -> dict[str, Any]:
    """The state of one module of a Lightning checkpoint, its names without `prefix`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As `load_tensors`.
    """
    state = load_checkpoint(path)["state_dict"]
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
