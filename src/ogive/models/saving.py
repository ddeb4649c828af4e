"""Saving: what a model remembers, so that a folder can hold it; see `files` for what is in one."""

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from safetensors import torch as safetensors
from torch import Tensor, nn

from ogive.errors import ArgumentError, ArgumentTypeError, DataError, unknown
from ogive.models.building import build
from ogive.models.files import CONFIG, must_match, read_config, read_weights, write_model
from ogive.parts.form import Form
from ogive.parts.part import Part
from ogive.parts.presets import sites_from
from ogive.parts.sites import Sites


class Saved(nn.Module):
    """A model that a folder can hold: it remembers the settings that it was built with.

    A member names its `kind`. Arguments of its constructor are numbers, text, flags, None, parts,
    `Sites`, or tuples and lists of these; a setting whose name ends in `sites` is kept in the
    canonical written form, so that a preset means later what it meant when it was saved.
    """

    kind: ClassVar[str] = ""
    settings: dict[str, Any]
    """The constructor's arguments as JSON values, defaults included."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(vars(cls)["__init__"])

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model into a folder, which is made if it is missing.

        Args:
            folder: may hold a model already, which this one replaces whole.

        Returns:
            The folder.

        Raises:
            ArgumentError: the model has a setting that is no plain value, two names for one
                tensor, or tensors without data.
            DataError: the folder cannot be written.
        """
        place = _place(folder)
        weights = safetensors.save(_tensors(self))
        write_model(place, self.kind, _must_be_plain(self.settings), weights)
        return place

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """The model that a folder holds, on the CPU, in evaluation mode.

        Args:
            folder: where `save` wrote it.

        Raises:
            DataError: the folder holds no model of this kind, one of a newer Ogive, or one that
                is damaged or does not fit together; the message says which and what is wrong.
        """
        place = _place(folder)
        config = read_config(place)
        if config["model"] != cls.kind:
            known = kinds()
            other = known[config["model"]].__name__ if config["model"] in known else None
            hint = f"; {other}.load(folder) reads it" if other else f" (known: {', '.join(known)})"
            raise DataError(
                f"{place / CONFIG} holds a model of the kind {config['model']!r}, not "
                f"{cls.kind!r}{hint}"
            )
        tensors = read_weights(place, config["weights"])
        model = cast(Self, build(cls, cls.kind, config["settings"], tensors, place / CONFIG))
        must_match(model.state_dict(), tensors, place)
        model.load_state_dict(tensors, strict=True, assign=True)
        return model.eval()


def kinds() -> dict[str, type[Saved]]:
    """The kinds of models by name, found by walking the family."""
    found: dict[str, type[Saved]] = {}
    for member in _walk(Saved):
        if vars(member).get("kind") and found.setdefault(member.kind, member) is not member:
            raise ArgumentError(f"two models are of the kind {member.kind!r}")
    return dict(sorted(found.items()))


def load(folder: str | os.PathLike[str]) -> Saved:
    """The model that a folder holds, of whatever kind, in evaluation mode.

    Raises:
        DataError: as `Saved.load`.
    """
    place = _place(folder)
    kind, known = read_config(place)["model"], kinds()
    if kind not in known:
        raise DataError(f"{place / CONFIG}: {unknown('kind of model', str(kind), known)}")
    return known[kind].load(folder)


def _place(folder: str | os.PathLike[str]) -> Path:
    if not isinstance(folder, str | os.PathLike):
        raise ArgumentTypeError(f"folder takes a path, not {folder!r}")
    return Path(folder)


def _walk(root: type[Saved]) -> Iterable[type[Saved]]:
    for child in root.__subclasses__():
        yield child
        yield from _walk(child)


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that keeps its arguments, as plain values, in `settings`."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def remember(self: Saved, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self).__init__ is remember:  # and not the constructor of a class below
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = list(bound.arguments.items())[1:]
            self.settings = {name: _plain(name, value) for name, value in given}

    return remember


def _plain(name: str, value: Any) -> Any:
    if name.endswith("sites") and isinstance(value, str | Sites):
        return str(sites_from(value))
    if isinstance(value, Part | Sites | Form):
        return str(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)  # numpy's too
    return [_plain("", item) for item in value] if isinstance(value, list | tuple) else value


def _must_be_plain(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in settings.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                f"the setting {name}={value!r} cannot be written into {CONFIG} ({error}); numbers "
                "that are finite, text, True, False and None can"
            ) from None
    return settings


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors, each in memory of its own on the CPU."""
    state, owners = model.state_dict(), {}
    for name, tensor in state.items():
        if tensor.is_meta:
            raise ArgumentError(f"the tensor {name} has no data (meta device): nothing to save")
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.numel())
        if tensor.numel() and owners.setdefault(place, name) != name:
            raise ArgumentError(
                f"{owners[place]} and {name} are one tensor, which a loaded model would hold "
                "twice: tie them by a setting of the model (tie_embeddings=True), or clone one"
            )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
