"""Thousands of images through a paid generation API: nothing lost, nothing paid for twice.

As a library: `plan`, `run`, `open_run` and `view`, each imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

from batcher.version import __version__

if TYPE_CHECKING:
    from batcher.library import OpenRun, View, open_run, plan, run, view

__all__ = ["OpenRun", "View", "__version__", "open_run", "plan", "run", "view"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of the names above
    if name in __all__:
        from batcher import library

        return getattr(library, name)
    raise AttributeError(f"module 'batcher' has no attribute {name!r}")
