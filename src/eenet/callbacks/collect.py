"""Exit outputs of a split, collected while `predict` runs."""

import json
import platform
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from eenet import __version__
from eenet.callbacks.wandb import link_outputs
from eenet.files import write_text
from eenet.models import narrow
from eenet.models.costs import ExitCosts, measure_costs
from eenet.models.energy import measure_energy
from eenet.modules.multi_exit import MultiExitModule
from eenet.outputs.writer import OutputsWriter


class CollectOutputs(Callback):
    """Writes `outputs/SPLIT.safetensors` and `costs.json` into the run folder during `predict`.

    Every batch goes to disk at once. The costs in the file are MACs per sample; its metadata holds
    the other units too, measured at batch size 1.
    """

    def __init__(self) -> None:
        self.costs: ExitCosts | None = None
        self._writer: OutputsWriter | None = None
        self._end = 0

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Writes what `predict_step` returned."""
        if not isinstance(pl_module, MultiExitModule):
            return
        if self._writer is None:
            self._writer = self._begin(trainer, pl_module, outputs, batch)
        self._writer.write(outputs)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Completes the files."""
        if self._writer is None or self.costs is None:
            return
        writer, self._writer = self._writer, None
        writer.flush()
        if writer.position < self._end:
            writer.partial.unlink(missing_ok=True)
            raise ValueError(
                f"predict: only {writer.position} of {self._end} samples were seen, so no outputs "
                "are written; leave out limit_predict_batches and fast_dev_run"
            )
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            writer.finish()
            path = Path(trainer.default_root_dir) / "costs.json"
            write_text(path, json.dumps(self.costs._asdict(), indent=2) + "\n")
            link_outputs(trainer.loggers, [writer.path], used=False)
        trainer.strategy.barrier()

    def _begin(
        self, trainer: L.Trainer, module: MultiExitModule, outputs: Any, batch: Any
    ) -> OutputsWriter:
        """Measures the costs and opens the file; the first process lays it out."""
        if self.costs is None:
            x, y = batch
            one = narrow(x, torch.tensor([0], device=y.device))
            joules = measure_energy(module.net, one)
            self.costs = measure_costs(module.net, one)._replace(joules=joules)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        split = getattr(data, "predict_split", "test")  # there may be no data module
        loader: Any = trainer.predict_dataloaders
        if trainer.world_size > 1 and not hasattr(loader.sampler, "start"):
            raise ValueError(
                f"devices={trainer.world_size}: the samples of {type(data).__name__} can only be "
                "collected in order by one process, unless its loaders take eenet's `BatchSampler`"
            )
        path = Path(trainer.default_root_dir) / "outputs" / f"{split}.safetensors"
        if trainer.is_global_zero:
            metadata = {
                "eenet": __version__,
                "torch": torch.__version__,
                "network": type(module.net).__name__,
                "data": type(data).__name__,
                "split": split,
                "date": time.strftime("%Y-%m-%d"),
                "machine": f"{platform.system()} {platform.machine()}",
                "python": platform.python_version(),
                "cost_unit": "macs",
                "measured_costs": json.dumps(self.costs._asdict()),
                "class_names": json.dumps(getattr(data, "class_names", None)),
            }
            costs = torch.tensor(self.costs.macs, dtype=torch.float64)
            OutputsWriter.lay_out(path, len(loader.dataset), outputs, costs, metadata)
        trainer.strategy.barrier()
        self._end = getattr(loader.sampler, "stop", len(loader.dataset))
        return OutputsWriter(path, getattr(loader.sampler, "start", 0))
