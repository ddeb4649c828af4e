"""What is in a pickle, read without running it: numbers, text, lists, and calls as names.

Unpickling imports and calls whatever the file names. Here nothing is imported and nothing called:
the file's instructions build lists, dicts and tuples, and where they name a function the result is
a `Made`, which holds the name and the arguments. `array` and `rows` then read those that stand for
arrays of NumPy and matrices of SciPy; anything else stays a name in an error's text.
"""

from __future__ import annotations

import codecs
import io
import math
import pickletools
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ogive.errors import DataError

_OPCODES = {op.code: op for op in pickletools.opcodes}
_TEXT = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"}
_TEXT |= {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MARK = object()
_DTYPE = re.compile(r"[iuf][1248]|b1")
_LARGEST = 2**30
"""Numbers of an array: 4 GB of float32."""


@dataclass(frozen=True)
class Named:
    """A class or function that the pickle names, as `module.name`."""

    name: str


@dataclass(eq=False)
class Made:
    """What the pickle would make by a call.

    Attributes:
        name: of the class or function, `module.name`.
        arguments: of the call.
        state: what it would be given afterwards, or None.
        items: what would be set by key.
    """

    name: str
    arguments: tuple
    state: Any = None
    items: dict = field(default_factory=dict)


def read(raw: bytes, where: object) -> Any:
    """The pickle's content.

    Args:
        raw: the file.
        where: its name, for messages.

    Raises:
        DataError: it is cut off, or has instructions that plain data do not need.
    """
    try:
        return _Reader(raw).run()
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
        raise DataError(f"{where} cannot be read as a pickle of plain data: {error!r}") from None


class _Reader:
    """A stack machine over the pickle's instructions."""

    def __init__(self, raw: bytes) -> None:
        self.stream = io.BytesIO(raw)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            code = self.stream.read(1).decode("latin1")
            if code not in _OPCODES:
                raise ValueError(f"no instruction at byte {self.stream.tell() - 1}")
            name = _OPCODES[code].name
            argument = self._argument(name, _OPCODES[code])
            if name == "STOP":
                return self.stack.pop()
            self._step(name, argument)

    def _argument(self, name: str, op: Any) -> Any:
        if name == "STRING":  # pickletools refuses bytes beyond ASCII, which arrays are full of
            line = self.stream.readline().strip()
            if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
                raise ValueError(f"a string without its quotes: {line[:20]!r}")
            return codecs.escape_decode(line[1:-1])[0].decode("latin1")  # type: ignore[attr-defined]
        return None if op.arg is None else op.arg.reader(self.stream)

    def _step(self, name: str, argument: Any) -> None:
        push = self.stack.append
        if name in ("PROTO", "FRAME"):
            return
        if name in _TEXT | _BYTES | _NUMBERS:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name == "MARK":
            push(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self.memo[int(argument)])
        elif name in ("EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_DICT"):
            push({"L": [], "T": (), "D": {}}[name[6]])
        elif name in ("LIST", "TUPLE", "DICT"):
            items = self._to_mark()
            push({"L": list, "T": tuple, "D": _pairs}[name[0]](items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            push(tuple(self._pop(int(name[-1]))))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._to_mark()
            _as(list, self.stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._to_mark()
            holder = self.stack[-1]
            held = holder.items if isinstance(holder, Made) else _as(dict, holder)
            held.update(_pairs(items))
        elif name == "GLOBAL":
            push(Named(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            module, what = self._pop(2)
            push(Named(f"{module}.{what}"))
        elif name in ("REDUCE", "NEWOBJ"):
            what, arguments = self._pop(2)
            push(Made(_as(Named, what).name, _as(tuple, arguments)))
        elif name == "BUILD":
            (state,) = self._pop(1)
            _as(Made, self.stack[-1]).state = state
        else:
            raise ValueError(f"plain data have no instruction {name}")

    def _pop(self, many: int) -> list[Any]:
        if len(self.stack) < many or any(item is _MARK for item in self.stack[-many:]):
            raise ValueError("an instruction lacks its operands")
        taken = self.stack[-many:]
        del self.stack[-many:]
        return taken

    def _to_mark(self) -> list[Any]:
        at = max(i for i, item in enumerate(self.stack) if item is _MARK)
        taken = self.stack[at + 1 :]
        del self.stack[at:]
        return taken


def _pairs(items: list[Any]) -> dict:
    return dict(zip(items[::2], items[1::2], strict=True))


def _as(kind: Any, came: Any) -> Any:
    if not isinstance(came, kind):
        raise TypeError(f"{type(came).__name__} where {kind.__name__} fits")
    return came


# --- arrays ---------------------------------------------------------------------------------------


def array(came: Any, where: object) -> np.ndarray:
    """The array of numbers that a `Made` stands for, or a matrix of SciPy's, filled up.

    Raises:
        DataError: it stands for something else, or its numbers do not fit together.
    """
    try:
        if isinstance(came, Made) and _class_of(came).endswith(".csr_matrix"):
            return _filled(came, where)
        return _array(came)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise DataError(f"{where} holds no array of numbers: {error}") from None


def _class_of(made: Made) -> str:
    """The class of what is made, also where a helper makes it."""
    first = made.arguments[0] if made.arguments else None
    by_helper = made.name in ("copy_reg._reconstructor", "copyreg._reconstructor")
    return first.name if by_helper and isinstance(first, Named) else made.name


def _array(came: Any) -> np.ndarray:
    if not isinstance(came, Made) or not came.name.endswith("multiarray._reconstruct"):
        raise TypeError(came.name if isinstance(came, Made) else type(came).__name__)
    _, shape, dtype, fortran, data = came.state
    kind = _dtype(dtype)
    shape = tuple(int(n) for n in shape)
    if any(n < 0 for n in shape) or math.prod(shape) > _LARGEST:
        raise ValueError(f"an array of shape {shape}")
    flat = np.frombuffer(_bytes(data), kind)
    return flat.reshape(shape, order="F" if fortran else "C")


def _dtype(came: Any) -> np.dtype:
    _as(Made, came)
    code, order = came.arguments[0], came.state[1]
    if came.name != "numpy.dtype" or not _DTYPE.fullmatch(code) or order not in "<>|=":
        raise ValueError(f"numbers of the kind {code!r}")
    return np.dtype(order + code)


def _bytes(came: Any) -> bytes:
    if isinstance(came, Made) and came.name == "_codecs.encode":
        came = came.arguments[0]
    elif isinstance(came, Made) and came.name in ("__builtin__.bytes", "builtins.bytes"):
        if came.arguments:
            raise ValueError(f"bytes made of {came.arguments!r:.50}")
        came = b""  # as protocols without bytes write none
    return came.encode("latin1") if isinstance(came, str) else _as(bytes, came)


def _filled(made: Made, where: object) -> np.ndarray:
    state = _as(dict, made.state)
    shape = state.get("_shape", state.get("shape"))
    rows, columns = (int(n) for n in _as(tuple, shape))
    data, indices, starts = (_array(state[name]) for name in ("data", "indices", "indptr"))
    if min(rows, columns) < 0 or rows * columns > _LARGEST:
        raise ValueError(f"a matrix of shape {(rows, columns)}")
    counts = np.diff(starts)
    fits = len(starts) == rows + 1 and starts[0] == 0 and starts[-1] == len(data) == len(indices)
    if not fits or (counts < 0).any():
        raise ValueError("rows of a sparse matrix that do not fit together")
    if len(indices) and not 0 <= indices.min() <= indices.max() < columns:
        raise ValueError("columns of a sparse matrix that it does not have")
    filled = np.zeros((rows, columns), np.float32)
    np.add.at(filled, (np.repeat(np.arange(rows), counts), indices), data)
    return filled
