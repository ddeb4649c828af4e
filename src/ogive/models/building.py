"""Building a model from the settings in a file: whatever is wrong with them is told by name."""

import contextlib
import inspect
import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ogive.errors import ArgumentError, DataError, OgiveError, UnknownName, unknown
from ogive.parts.sites import Sites

# A constructor may make parameters that it replaces, but not many times what is left in the end.
_SPARE = 16
_FEW_TENSORS, _FEW_NUMBERS = 1024, 2**20


def build(
    model: type[nn.Module],
    kind: str,
    settings: dict[str, Any],
    tensors: Mapping[str, Tensor],
    config: Path,
) -> nn.Module:
    """A model of these settings, without memory for its parameters.

    Args:
        model: the class.
        kind: what messages call it.
        settings: all that its constructor takes, as JSON values.
        tensors: what its weights hold: a model that is many times larger is not built.
        config: the file that holds the settings, for messages.

    Raises:
        DataError: a setting that is missing, unknown or does not fit, or a model far larger than
            the weights.
    """
    takes = dict(list(inspect.signature(model.__init__).parameters.items())[1:])
    for name in settings:
        if name not in takes:
            raise DataError(f"{config}: {unknown(f'setting of a {kind}', name, takes)}")
    if missing := [repr(name) for name in takes if name not in settings]:
        raise DataError(
            f"{config} lacks settings of a {kind}: {', '.join(missing)}. What a model was built "
            "with is written down whole, defaults included"
        )
    for name, value in settings.items():
        if wrong := _wrong(value, takes[name].annotation):
            raise DataError(f"{config}: the setting {name} of a {kind} takes {wrong}")
    try:
        with torch.device("meta"), _no_larger_than(tensors):
            return model(**settings)
    except Exception as error:
        raise DataError(
            f"{config}: these settings build no {kind}: {_told(error, settings)}"
        ) from error


@contextlib.contextmanager
def _no_larger_than(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Raise where parameters are far more than these, before time and memory go into them."""
    most = _SPARE * len(tensors) + _FEW_TENSORS
    largest = _SPARE * sum(tensor.numel() for tensor in tensors.values()) + _FEW_NUMBERS
    here, made, numbers = threading.get_ident(), 0, 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made, numbers
        if parameter is None or threading.get_ident() != here:
            return
        made, numbers = made + 1, numbers + parameter.numel()
        if made > most or numbers > largest:
            raise _TooLarge(
                f"they make many times the {len(tensors)} tensors that its weights hold"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


class _TooLarge(ArgumentError):
    """Settings of a model that is larger than its weights."""


def _told(error: Exception, settings: Mapping[str, Any]) -> str:
    """The error with the setting that it is about, where it does not say so itself."""
    text = str(error) if isinstance(error, OgiveError) else str(error).partition("\n")[0]
    for name, value in settings.items():
        if isinstance(value, str) and repr(value) in text and name not in text:
            text = f"{name}={value!r}: {text}"
    if isinstance(error, UnknownName):
        return f"{text}. A part of your own must be defined before the model that uses it is loaded"
    if isinstance(error, OgiveError) and not isinstance(error, _TooLarge):
        return text
    size, name = max(((_size(value), name) for name, value in settings.items()), default=(0, ""))
    return f"{text} (the largest of them is {name}={settings[name]!r})" if size else text


def _size(value: Any) -> int:
    """The largest whole number in a setting; 0 where there is none."""
    if isinstance(value, list):
        return max(map(_size, value), default=0)
    return value if type(value) is int else 0


# --- kinds of JSON values -------------------------------------------------------------------------

_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    list: "a list",
    tuple: "a list",
    Sites: "text",
    dict: "a mapping",
}


def _wrong(value: Any, hint: Any) -> str:
    """What an argument of this type takes and what came, or nothing where they fit.

    Only values that JSON holds are told apart; a type that is none of these says nothing.
    """
    if not _finite(value):
        return f"finite numbers, not {value!r}"
    parts = get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)
    kinds = [_KINDS.get(get_origin(part) or part) for part in parts]
    came = _KINDS[type(value)]
    if None in kinds or came in kinds or (type(value) is int and "a number" in kinds):
        return ""
    return f"{' or '.join(dict.fromkeys(map(str, kinds)))}, not {value!r}"


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
