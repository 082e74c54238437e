"""Adaptive inference on PyTorch Lightning: multi-exit networks, exit schedulers, budgets.

The names below are imported when they are first used, so that `import eenet` costs nothing.
"""

from lazy_loader import attach_stub

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
