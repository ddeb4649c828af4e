"""The files of a saved model: tensors (safetensors), and the settings it is built with (JSON).

    folder/config.json                     which model, its settings, and the digest of its weights
    folder/weights-<digest>.safetensors    its tensors by name

Neither holds code, nor the name of anything to import, and nothing is ever unpickled. The weights
are written first and under a name of their own, then the config takes the place of an earlier one:
whoever reads, or whatever fails in between, finds the old model whole or the new one.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ogive.errors import DataError, unknown

FORMAT = "ogive model"
VERSION = 1  # one that adds a setting says what the files before it mean by not having it
CONFIG = "config.json"
_KEYS = ("format", "version", "model", "settings", "weights")
_SHOWN = 4  # names of tensors in a message


def write_model(place: Path, kind: str, settings: Mapping[str, Any], weights: bytes) -> None:
    """Write a model's two files, and remove the weights that they replace.

    Args:
        place: the folder, made if it is missing.
        kind, settings: what the config says of the model.
        weights: the content of a safetensors file.

    Raises:
        DataError: the folder cannot be written; the model that was there is still whole.
    """
    digest = hashlib.sha256(weights).hexdigest()
    config = {
        "format": FORMAT,
        "version": VERSION,
        "model": kind,
        "settings": settings,
        "weights": {"sha256": digest, "bytes": len(weights)},
    }
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        place.mkdir(parents=True, exist_ok=True)
        before = set(place.glob(_weights_name("*")))
        _write_whole(place / _weights_name(digest), weights)
        _write_whole(place / CONFIG, text.encode())
        for old in before - {place / _weights_name(digest)}:
            old.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(
            f"the model could not be saved in {place}: {why} ({len(weights):,} bytes needed)"
        ) from error


def _weights_name(digest: str) -> str:
    return f"weights-{digest[:16]}.safetensors"


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside the path, flush to disk, rename: readers see the old file or the new one."""
    part = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist: {path.parent} holds no {what}; model.save(folder) writes one"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def read_config(place: Path) -> dict[str, Any]:
    """A folder's config, checked to be one of this version with its keys and no others."""
    path = place / CONFIG
    try:
        config = json.loads(_read(path, "model"))
    except (
        ValueError,
        RecursionError,
    ) as error:  # a number of too many digits is no JSONDecodeError
        raise DataError(f"{path} is no JSON, or was cut short: {error}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        came = config.get("format") if isinstance(config, dict) else config
        raise DataError(f"{path} is no config of Ogive: its format is {came!r}, not {FORMAT!r}")
    version = config.get("version")
    if type(version) is not int or version < 1:
        raise DataError(f"{path} has the version {version!r}, where a number from 1 fits")
    if version > VERSION:
        raise DataError(
            f"{path} was written by a newer Ogive (format version {version}, and this one reads "
            f"up to {VERSION}): upgrade ogive to load it"
        )
    for name in (*_KEYS, *config):
        if name not in config:
            raise DataError(f"{path} lacks the key {name!r}; it has {', '.join(config)}")
        if name not in _KEYS:
            raise DataError(f"{path}: {unknown('key', name, _KEYS)}")
    if not isinstance(config["model"], str):
        raise DataError(f"{path}: model names a kind, and is {config['model']!r}")
    if not isinstance(config["settings"], dict):
        raise DataError(f"{path}: settings is a mapping, not {config['settings']!r}")
    return config


def read_weights(place: Path, told: Any) -> dict[str, Tensor]:
    """The tensors that the config names, checked against its digest."""
    told = told if isinstance(told, dict) else {}
    digest, size = told.get("sha256"), told.get("bytes")
    if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        fits = "64 hexadecimal digits fit"
        raise DataError(f"{place / CONFIG}: weights.sha256 is {digest!r}, where {fits}")
    path = place / _weights_name(digest)
    raw = _read(path, "weights that its config.json names")
    if len(raw) != size:
        raise DataError(f"{path} is damaged: {len(raw):,} bytes, and {size!r} were written")
    if hashlib.sha256(raw).hexdigest() != digest:
        raise DataError(f"{path} is damaged: what it holds does not have the digest in {CONFIG}")
    try:
        return safetensors.torch.load(raw)
    except SafetensorError as error:
        raise DataError(f"{path} is no safetensors file: {error}") from None


def must_match(wanted: dict[str, Tensor], came: dict[str, Tensor], place: Path) -> None:
    """Raise one error for all tensors that are missing, unexpected, or of another shape or kind."""
    wrong = []
    if missing := [name for name in wanted if name not in came]:
        wrong.append(f"missing: {_some(missing)}")
    if extra := [name for name in came if name not in wanted]:
        wrong.append(f"unexpected: {_some(extra)}")
    both = [(name, wanted[name], came[name]) for name in wanted if name in came]
    if shapes := [
        f"{name} {tuple(tensor.shape)} where the settings give {tuple(own.shape)}"
        for name, own, tensor in both
        if own.shape != tensor.shape
    ]:
        wrong.append(f"of another shape: {_some(shapes)}")
    if numbers := [
        f"{name} {tensor.dtype} where {own.dtype} fits"
        for name, own, tensor in both
        if own.is_floating_point() != tensor.is_floating_point()
    ]:
        wrong.append(f"of another kind of number: {_some(numbers)}")
    if wrong:
        raise DataError(f"the weights in {place} do not fit its {CONFIG}: {'; '.join(wrong)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
