"""The commands."""

from eenet.cli.main import main

__all__ = ["main"]
