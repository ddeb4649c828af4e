"""The text task: predict each next byte of real text, 90 % to learn from and 10 % to be scored on.

The default corpus is the documentation that ships with the Python interpreter; any UTF-8 file
will do instead. Documentation repeats itself (the topic "while" stands again inside "compound"),
and a copy of a held-out paragraph among the training text would score memory, so a paragraph
that occurs again is dropped before the split. On Python 3.11's documentation that brings the
share of held-out runs of 64 bytes that also stand in the training text from 8.5 % to 0.3 %.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ogive.errors import ArgumentError, DataError
from ogive.lab.keys import stream
from ogive.lab.tasks.task import Batch, Task, whole

HELD_OUT_SHARE = 10
"""One byte in this many is held out: a contiguous tail, so that windows never straddle the cut."""
FEWEST_WINDOWS = 16
_AT_ONCE = 64


class Text(Task):
    """Byte-level language modelling: the mean of −log p(next byte), in nats.

    Bytes need no tokenizer that could differ between variants or machines. Windows of the
    training text are drawn at random for each (seed, step); the held-out windows are fixed, do
    not overlap, and cover the tail (evenly thinned where there are more than `windows`).
    """

    name = "text"
    metric = "nats per byte"
    unit = "nats per byte"
    higher_is_better = False
    summary = "predict the next byte of real text"
    source = "pydoc_data.topics, the interpreter's own documentation (PSF-2.0), or any UTF-8 file"
    vocabulary = 256
    default_model: ClassVar = {"width": 64, "depth": 2, "heads": 4, "hidden": 256}
    default_train: ClassVar = {"steps": 600, "batch": 8, "lr": 1e-2, "warmup": 40}
    quick_train: ClassVar = {"steps": 200, "evaluations": 1}
    learning_rates = (5e-3, 1e-2, 2e-2)

    def __init__(self, *, file: str | None = None, length: int = 64, windows: int = 1024) -> None:
        self.length = whole("text option length", length, 2, 65536)
        self.windows = whole("text option windows", windows, 1, 10**6)
        if not isinstance(file, str | None):
            raise ArgumentError(f"text option file takes a path, not {file!r}")
        self.file = None if file is None else str(Path(file).expanduser().absolute())
        where = "the interpreter's documentation" if file is None else self.file
        text = interpreter_documentation() if self.file is None else read_text(Path(self.file))
        data = without_repeats(text).encode()
        fewest = HELD_OUT_SHARE * (FEWEST_WINDOWS * self.length + 1)
        if len(data) < fewest:
            raise DataError(
                f"{where} is too short: {len(data)} bytes once repeated paragraphs are dropped; "
                f"windows of {self.length} bytes need at least {fewest}"
            )
        cut = len(data) - len(data) // HELD_OUT_SHARE
        both = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.training, self.tail = both[:cut], both[cut:]

    def batch(self, seed: int, step: int, size: int) -> Batch:
        starts = len(self.training) - self.length
        at = torch.randint(starts, (size,), generator=stream("text", seed, step))
        return _next_byte(self.training.unfold(0, self.length + 1, 1)[at])

    def held_out(self) -> Iterator[Batch]:
        for windows in self._scored.split(_AT_ONCE):
            yield _next_byte(windows)

    @cached_property
    def _scored(self) -> Tensor:
        windows = self.tail.unfold(0, self.length + 1, self.length)
        kept = min(self.windows, len(windows))
        return windows[torch.arange(kept) * len(windows) // kept]

    def measure(self, logits: Tensor, targets: Tensor) -> tuple[float, int]:
        # Summed in float64, so that the score does not depend on how windows are batched.
        nats = F.cross_entropy(logits, targets, reduction="none")
        return float(nats.sum(dtype=torch.float64)), len(targets)

    def _shown(self) -> Iterator[Tensor | None]:
        yield self.training
        yield from super()._shown()


def interpreter_documentation() -> str:
    """The topics of `pydoc`, in the order of their names; differs between Python versions."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            "this Python interpreter ships without its documentation (pydoc_data.topics): "
            "name a UTF-8 text file instead (option file, on the command line --text FILE)"
        ) from None
    return "\n\n".join(topics[name] for name in sorted(topics))


def read_text(path: Path) -> str:
    """A file's text, its line ends as one newline each.

    Raises:
        DataError: missing, not a file, unreadable, empty, or not UTF-8 text. A NUL byte counts
            as binary: UTF-8 allows it, but no text has one, and UTF-16 and most binaries do.
    """
    fits = "a UTF-8 text file fits"
    try:
        if not path.exists():
            raise DataError(f"text file {path} does not exist; {fits}")
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "neither a file nor a folder"
            raise DataError(f"{path} is {kind}; {fits}")
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {fits}") from None
    if not raw.strip():
        raise DataError(f"text file {path} is empty ({len(raw)} bytes, no text); {fits}")
    if 0 in raw:
        raise DataError(f"{path} is binary (a NUL byte at offset {raw.index(0)}); {fits}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        came = f"byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise DataError(f"{path} is not UTF-8 ({came}); {fits}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def without_repeats(text: str) -> str:
    """The text with each paragraph at its first place only (spacing does not count)."""
    first: dict[str, str] = {}
    for paragraph in re.split(r"\n[ \t]*\n", text):
        words = " ".join(paragraph.split())
        if words:
            first.setdefault(words, paragraph.strip("\n"))
    return "\n\n".join(first.values())


def _next_byte(windows: Tensor) -> Batch:
    tokens = windows.long()
    return Batch(tokens[:, :-1], tokens[:, 1:])
