"""Functions that compiled programs stop before and go on behind.

`torch.compiler.disable` does the same, but imports the compiler along with the model: two seconds
of every start.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from torch._compile import _disable_dynamo

_P = ParamSpec("_P")
_R = TypeVar("_R")


def uncompiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the function as one that is never compiled."""
    return cast("Callable[_P, _R]", _disable_dynamo(function))
