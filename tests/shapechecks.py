"""beartype on the shapes in signatures, and on nothing else.

Shapes are what tests check at run time. Other types are pyright's, and Ogive's own errors for bad
input must reach the tests that ask for them, not be caught before by a type check.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its shape annotations checked at every call; named to the import hook."""
    shaped = {name: t for name, t in function.__annotations__.items() if _has_shape(t)}
    function.__annotations__ = shaped
    return beartype(function) if shaped else function


def _has_shape(annotation: object) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(_has_shape(inner) for inner in get_args(annotation))
