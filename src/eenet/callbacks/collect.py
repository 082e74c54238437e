"""Exit outputs of a split, collected while `predict` runs."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from eenet import __version__
from eenet.costs import ExitCosts, measure_costs
from eenet.data.outputs import save_outputs
from eenet.files import write_text
from eenet.models import narrow
from eenet.modules.multi_exit import MultiExitModule
from eenet.scheduling import ExitOutputs


class CollectOutputs(Callback):
    """Writes `outputs/SPLIT.safetensors` and `costs.json` into the run folder during `predict`.

    The costs in the file are MACs per sample; its metadata holds the other units too.

    Args:
        latency_batch_size: Batch size at which latency is measured.
    """

    def __init__(self, latency_batch_size: int = 1) -> None:
        self.latency_batch_size = latency_batch_size
        self.costs: ExitCosts | None = None
        self._batches: list[dict[str, Tensor]] = []

    def on_predict_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measures the costs on the first samples seen."""
        if isinstance(pl_module, MultiExitModule) and self.costs is None:
            x, y = batch
            few = torch.arange(min(self.latency_batch_size, len(y)), device=y.device)
            self.costs = measure_costs(pl_module.net, narrow(x, few))

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what `predict_step` returned."""
        if isinstance(pl_module, MultiExitModule):
            self._batches.append(outputs)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the files."""
        if not isinstance(pl_module, MultiExitModule) or self.costs is None:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        split = data.predict_split
        folder = Path(trainer.default_root_dir)
        outputs = ExitOutputs(
            costs=self.costs.vector("macs"),
            logits=torch.cat([b["logits"] for b in self._batches]).transpose(0, 1),
            labels=torch.cat([b["labels"] for b in self._batches]),
            metadata={
                "eenet": __version__,
                "torch": torch.__version__,
                "network": type(pl_module.net).__name__,
                "data": type(data).__name__,
                "split": split,
                "cost_unit": "macs",
                "measured_costs": json.dumps(self.costs.as_dict()),
            },
        )
        self._batches = []
        save_outputs(outputs, folder / "outputs" / f"{split}.safetensors")
        write_text(folder / "costs.json", json.dumps(self.costs.as_dict(), indent=2) + "\n")
