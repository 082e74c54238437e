"""Exit outputs: all that passes from a network to what comes after it."""

from eenet.outputs.cost_matrix import cost_matrix_quality
from eenet.outputs.evidence import Evidence
from eenet.outputs.exit_outputs import ExitOutputs
from eenet.outputs.storage import load_outputs, recost, save_outputs, with_cost_matrix

__all__ = [
    "Evidence",
    "ExitOutputs",
    "cost_matrix_quality",
    "load_outputs",
    "recost",
    "save_outputs",
    "with_cost_matrix",
]
