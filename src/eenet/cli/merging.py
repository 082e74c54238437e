"""How the settings of a class are merged: another class, or another list, inherits nothing.

jsonargparse keeps the `init_args` of a class that is replaced wherever the new class has arguments
of the same names, and those of list elements of the same class at the same place. A network named
on the command line would then silently get a recipe's `depth`. There is no setting for it.
"""

from typing import Any

from jsonargparse import _typehints

_hints: Any = _typehints
_adapt = _hints.adapt_typehints


def _drop_init_args(parser: Any, previous: Any, value: Any) -> None:
    """Drops the settings of a class that another one replaces."""
    if previous and previous.get("class_path") and "init_args" in previous:
        before, now = (_hints.import_object(x["class_path"]) for x in (previous, value))
        if before is not now:  # one class may go by several paths
            previous["init_args"] = type(previous["init_args"])()


def _adapt_whole_lists(val: Any, typehint: Any, *args: Any, **kwargs: Any) -> Any:
    """Takes a list as it stands, whatever list stood there before, unless it is appended."""
    if isinstance(val, list) and not kwargs.get("append"):
        kwargs["prev_val"] = None
    return _adapt(val, typehint, *args, **kwargs)


def merge_no_init_args() -> None:
    """Makes jsonargparse merge so, in this process."""
    _hints.discard_init_args_on_class_path_change = _drop_init_args
    _hints.adapt_typehints = _adapt_whole_lists
