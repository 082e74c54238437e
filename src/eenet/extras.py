"""Optional dependencies, imported where they are used."""

import importlib
from typing import Any


def require(module: str, extra: str) -> Any:
    """Imports an optional package.

    Args:
        module: Name of the package.
        extra: The extra of eenet that installs it.

    Raises:
        ModuleNotFoundError: If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(
            f"this needs the package {module!r}: pip install 'eenet[{extra}]'", name=module
        ) from error
