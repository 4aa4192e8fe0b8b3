"""Reference reproduction of "Learned Fine-Tuner for Incongruous Few-Shot Learning".

To use learned fine-tuners on custom problems, see :func:`meta_train`, :func:`compare`, :func:`load`
and :mod:`lft.attacks`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lft import _moved

if TYPE_CHECKING:
    from lft import attacks as attacks
    from lft.library import compare as compare
    from lft.library import meta_train as meta_train
    from lft.pretrained import load as load

__version__ = "0.1.0"

_moved.install()

__all__ = ["__version__", "attacks", "compare", "load", "meta_train"]

_PLACES = {"compare": "lft.library", "load": "lft.pretrained", "meta_train": "lft.library"}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import names that need torch on first use, to keep the command line fast."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name == "attacks":
        return importlib.import_module("lft.attacks")
    raise AttributeError(f"module 'lft' has no attribute {name!r}")
