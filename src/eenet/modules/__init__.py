"""The two LightningModules: multi-exit training and policy fitting."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
