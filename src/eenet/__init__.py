"""Adaptive inference on PyTorch Lightning: multi-exit networks, exit schedulers, budgets."""

__version__ = "0.1.0"
