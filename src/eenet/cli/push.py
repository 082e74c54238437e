"""`eenet push`: a finished run as a folder, or a repository of the hub, to hand on."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import auto_cli

from eenet.files import sha256
from eenet.stage_folder import HUB, SHARED, StageFolder, check_finished, stages_of


def push(run_dir: str, to: str, private: bool = False, license: str | None = None) -> None:
    """Shares a finished run: weights and exit outputs as safetensors, configs, curve, model card.

    What is written is a run folder, which `predict`, `report`, `compare` and `from_run` take. Logs,
    optimizer states and W&B's files are left out, and of absolute paths only the last part is kept.

    Args:
        run_dir: Run folder of an `eenet pipeline` that has ended.
        to: A new folder, or hf:USER/NAME for a repository of the Hugging Face hub, which is made
            if need be; log in with `hf auth login` before.
        private: Make a new repository private.
        license: Identifier of the license for the model card, such as apache-2.0.

    Raises:
        FileExistsError: If the folder is not empty, or the repository holds something else.
        FileNotFoundError: If the run has not ended.
    """
    check_finished(run_dir, *stages_of(run_dir))
    hub = to.startswith(HUB)
    target = Path(to)
    if not hub and target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"to={to!r} exists and is not empty: remove it, or choose another")
    parent = None if hub else target.resolve().parent
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".push-", dir=parent) as temporary:
        folder = Path(temporary) / target.resolve().name
        _write(run_dir, folder, to if hub else folder.name, license)
        if hub:
            _upload(folder, to.removeprefix(HUB), private)
        else:
            os.replace(folder, target)
    print(f"Shared: {to}; `eenet predict {to}` serves it")


def push_command(args: Sequence[str]) -> None:
    """Runs the command line after `eenet push`."""
    auto_cli(push, args=list(args), as_positional=True, prog="eenet push", exit_on_error=False)


def _upload(folder: Path, repo: str, private: bool) -> None:
    """Puts the folder into a repository, in one commit."""
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        files = {*hub.list_repo_files(repo)} - {".gitattributes", "README.md", "LICENSE"}
        if files and "stage1/config.yaml" not in files:
            raise FileExistsError(
                f"to='{HUB}{repo}' holds files but no run of eenet: choose another repository"
            )
        old = ["stage1/**", "stage2/**"]
        hub.upload_folder(repo_id=repo, folder_path=folder, delete_patterns=old)
    except FileExistsError:
        raise
    except (OSError, ValueError) as error:  # all of the hub's errors are one of these
        raise ConnectionError(
            f"to='{HUB}{repo}': the Hugging Face hub does not take it ({error}): check the name "
            "USER/NAME, your login (`hf auth login`) and HF_HUB_OFFLINE"
        ) from error


def _write(run_dir: str, folder: Path, name: str, license: str | None) -> None:
    from eenet.files import load_checkpoint, save_checkpoint
    from eenet.report.card import card
    from eenet.run_folder import RunFolder

    run = RunFolder(run_dir)
    for path in {path for pattern in SHARED for path in run.path.glob(pattern)}:
        copy = folder / path.relative_to(run.path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            copy.write_text(json.dumps(public(json.loads(path.read_text("utf-8"))), indent=1))
        elif path.suffix == ".yaml":
            config = public(yaml.safe_load(path.read_text("utf-8")))
            for stage in (config.get("stage1", config), config.get("stage2", config)):
                stage.get("trainer", {})["logger"] = False  # W&B's ids, projects and users
            if path == run.config_file:  # to repeat it, elsewhere than in this folder
                config |= {"run_dir": f"runs/{Path(name).name}", "launcher": ""}
            copy.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        else:
            shutil.copyfile(path, copy)
    data = run.stage1.config["data"]["class_path"].rpartition(".")[2]
    for stage in (run.stage1, run.stage2):
        content = load_checkpoint(stage.best)
        kept = {key: content[key] for key in (data, "restore_args") if key in content}
        kept |= {"restore_args": public(kept.get("restore_args", {}))}
        best = folder / stage.path.name / "checkpoints/best.safetensors"
        best.parent.mkdir(exist_ok=True)
        save_checkpoint(best, content["state_dict"], kept)
        shared = StageFolder(folder / stage.path.name)
        if record := shared.read_json(shared.record):
            names = (name.replace("best.ckpt", best.name) for name in record["files"])
            files = {name: sha256(shared.path / name) for name in names}
            kept_record = {"identity": record["identity"], "sources": {}, "files": files}
            shared.record.write_text(json.dumps(kept_record, indent=1))
    (folder / "README.md").write_text(card(RunFolder(folder), name, license), "utf-8")


_PATH = re.compile(r"(?!\w+://)(\w\w+:)?(\w:)?[/\\~].*|file:.*", re.DOTALL)


def public(value: Any) -> Any:
    """Plain values in which the last part stands for each absolute path."""
    if isinstance(value, dict):
        return {key: public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    if isinstance(value, str) and (match := _PATH.fullmatch(value)):
        return (match[1] or "") + re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value
