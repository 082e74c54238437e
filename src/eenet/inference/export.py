"""Export: stages and decisions as graphs, and the loop that runs them without torch."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from eenet.extras import require
from eenet.files import write_text
from eenet.inference.decision import Decision, decisions
from eenet.inference.predictor import AdaptivePredictor
from eenet.models import MultiExitNetwork, narrow
from eenet.models.base import batch_size

_Arrays = list[NDArray[Any]]


class _Flat(nn.Module):
    """A step of a stage or a decision, its nested arguments and results as flat tensors."""

    def __init__(self, owner: nn.Module, step: Callable[..., Any], arguments: Any) -> None:
        super().__init__()
        self.owner, self.step = owner, step  # the former so that its tensors are found
        self.tensors, self.form = pytree.tree_flatten(arguments)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        result = self.step(*pytree.tree_unflatten(tensors, self.form))
        return tuple(x for x in pytree.tree_leaves(result) if x is not None)


@torch.no_grad()
def export(
    predictor: AdaptivePredictor, x: Any, folder: str | Path, dynamic: Sequence[int] = (0,)
) -> None:
    """Writes each stage and decision as `torch.export` program and as ONNX graph.

    The folder gets `stage_K.pt2`, `stage_K.onnx` (the input's tensors, or the state's, to logits
    and state tensors), `exit_K.pt2`, `exit_K.onnx` (logits, threshold and the scorer's tensors to
    a mask of what stays and the scorer's tensors), K from 1, and `runtime.json` with the
    thresholds of the predictor's budget, infinite ones as the largest float32. The batch size is
    free. `OnnxPredictor` is the loop around them.

    `single.pt2` and `single.onnx` are the whole in one graph for one sample, decisions at this
    budget inside: the tensors of the input to "logits" `[1, C, ...]` and "exit" `[1]`, from 0.
    Stages behind the exit taken do not run.

    Args:
        predictor: What to export, at its present budget.
        x: Example input of two samples or more, as the network takes it.
        folder: Where to write; as it was if anything cannot be exported.
        dynamic: Dimensions whose sizes vary: 0, the batch, and for text 1, the tokens.

    Raises:
        ModuleNotFoundError: If the extra "export" is not installed.
        ValueError: If there are fewer than two samples, or torch cannot export a step.
    """
    require("onnxscript", "export")
    folder, state = Path(folder), predictor.to_device(x)
    if batch_size(state) < 2:  # torch would take a size of one for a constant
        raise ValueError(f"x: give two samples or more to export by, not {batch_size(state)}")
    net, rule, memory = predictor.net, predictor.rule, list[Any]()
    inputs = list(state) if isinstance(state, dict) else []
    chain, finite = decisions(rule.scorer, net.num_exits), rule.thresholds.float().nan_to_num()[:-1]
    one = narrow(state, torch.zeros(1, dtype=torch.long, device=predictor.device))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        for k, decide in enumerate([*chain, None]):
            step = partial(net.step, k) if k else partial(_first_step, net)
            _write(_Flat(net, step, (state,)), Path(temporary, f"stage_{k + 1}"), dynamic)
            logits, state = step(state)
            if decide is not None:
                arguments = (logits, rule.thresholds[k], *memory)
                flat = _Flat(decide, decide.forward, arguments)
                _write(flat, Path(temporary, f"exit_{k + 1}"), (0,))
                _, after = decide(*arguments)
                memory = [] if after is None else [after]
        step = partial(_answer_one, net, chain, finite)
        whole = _Flat(nn.ModuleList([net, *chain]), step, (one,))
        names = {"input_names": inputs or ["x"], "output_names": ["logits", "exit"]}
        _write(whole, Path(temporary, "single"), [d for d in dynamic if d], **names)
        about = {"inputs": inputs, "thresholds": finite.tolist(), "costs": predictor.costs.tolist()}
        folder.mkdir(exist_ok=True)
        for file in Path(temporary).iterdir():
            file.replace(folder / file.name)
    write_text(folder / "runtime.json", json.dumps(about, indent=1, allow_nan=False))


def _first_step(net: MultiExitNetwork, x: Any) -> tuple[Tensor, Any]:
    return net.step(0, net.begin(x))


def _answer_one(
    net: MultiExitNetwork, chain: Sequence[Decision], thresholds: Tensor, x: Any
) -> tuple[Tensor, Tensor]:
    """Logits and exit of one sample; every later stage stands inside the condition before it."""

    def go_on(k: int, state: Any, memory: list[Any]) -> tuple[Tensor, Tensor]:
        logits, state = net.step(k, state)
        if k == len(chain):
            return logits, torch.full((1,), k)
        stays, after = chain[k](logits, thresholds[k], *memory)
        later, form = pytree.tree_flatten((state, [] if after is None else [after]))

        def leave(logits: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
            return logits.clone(), torch.full((1,), k)  # a branch must not hand on its argument

        def stay(_: Tensor, *later: Tensor) -> tuple[Tensor, Tensor]:
            return go_on(k + 1, *pytree.tree_unflatten(later, form))

        answer: tuple[Tensor, Tensor] = torch.cond(stays[0], stay, leave, (logits, *later))
        return answer

    return go_on(0, net.begin(x), [])


def _write(module: _Flat, path: Path, dynamic: Sequence[int], **names: Any) -> None:
    arguments = tuple(x.detach().clone() for x in module.tensors)
    shapes = tuple({d: Dim.DYNAMIC for d in dynamic if d < x.dim()} for x in arguments)
    try:
        program = torch.export.export(
            module.eval(), arguments, dynamic_shapes=(shapes,), strict=False
        )
        torch.export.save(program, f"{path}.pt2")
        torch.onnx.export(
            program, f=f"{path}.onnx", dynamo=True, external_data=False, verbose=False, **names
        )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path.name} cannot be exported by torch: {reason}") from error


class OnnxPredictor:
    """The reference loop on onnxruntime: the answers of `AdaptivePredictor` without torch.

    Args:
        folder: What `export` wrote.
        **session: Options of `onnxruntime.InferenceSession`, for example `providers`.

    Raises:
        ModuleNotFoundError: If onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, **session: Any) -> None:
        runtime = require("onnxruntime", "export")
        about = json.loads((Path(folder) / "runtime.json").read_text(encoding="utf-8"))
        self.inputs: list[str] = about["inputs"]
        self.thresholds = [np.array(t, dtype=np.float32) for t in about["thresholds"]]
        exits = len(about["costs"])

        def graphs(name: str, count: int) -> list[Any]:
            paths = (str(Path(folder) / f"{name}_{k + 1}.onnx") for k in range(count))
            return [runtime.InferenceSession(path, **session) for path in paths]

        self.stages, self.decisions = graphs("stage", exits), graphs("exit", exits - 1)

    def predict(self, x: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Logits `[B, C, ...]` and exits `[B]` (from 0) of a batch.

        Args:
            x: An array, or a dict of arrays as the network takes.
        """
        state: _Arrays = [np.asarray(x[name]) for name in self.inputs] or [np.asarray(x)]
        rows, memory = np.arange(len(state[0])), _Arrays()
        exits = np.zeros(len(rows), dtype=np.int64)
        answers: Any = None
        for k, stage in enumerate(self.stages):
            logits, *state = _call(stage, state)
            answers = np.zeros((len(rows), *logits.shape[1:]), np.float32) if k == 0 else answers
            stays = np.zeros(len(rows), dtype=bool)
            if k < len(self.decisions):
                stays, *memory = _call(self.decisions[k], [logits, self.thresholds[k], *memory])
            answers[rows[~stays]], exits[rows[~stays]] = logits[~stays], k
            rows, state, memory = rows[stays], [s[stays] for s in state], [m[stays] for m in memory]
            if not len(rows):
                break
        return answers, exits


def _call(session: Any, arrays: _Arrays) -> _Arrays:
    """Runs a graph, which may have dropped inputs that it does not need."""
    names = [node.name for node in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))  # type: ignore[no-any-return]
