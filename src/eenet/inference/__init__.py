"""The adaptive runtime: samples leave a network early, and the computation with them."""

from eenet.inference.predictor import AdaptivePredictor
from eenet.inference.runtime import Answers, Report

__all__ = ["AdaptivePredictor", "Answers", "Report"]
