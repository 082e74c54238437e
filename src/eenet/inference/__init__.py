"""The adaptive runtime: samples leave a network early, and the computation with them."""

from eenet.inference.predictor import AdaptivePredictor, Report
from eenet.inference.runtime import Answers

__all__ = ["AdaptivePredictor", "Answers", "Report"]
