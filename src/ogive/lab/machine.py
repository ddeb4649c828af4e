"""What a trial asks of the process that runs it, and what it records about the machine."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

import ogive
from ogive.kernels import compiled

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes with one thread: sums over several differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for the next step; True where it agreed.

    Left alone, glibc returns every activation to the kernel and gets zeroed pages anew at each
    step, which took 16 % of the time of a training step and 35 % of an evaluation where this was
    measured. Other C libraries do not have the call, and nothing changes there.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # 32 MB is the most that older versions accept as the first threshold.
    return bool(libc.mallopt(_MMAP_THRESHOLD, 1 << 25) and libc.mallopt(_TRIM_THRESHOLD, 1 << 30))


def environment() -> dict[str, str | int]:
    """What may have decided a score's last bits and a step's time.

    An allow-list: no environment variables, no user or host name, no paths.
    """
    return {
        "ogive": ogive.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "kernels": "none" if compiled.missing else compiled.instruction_set,
        "threads": torch.get_num_threads(),
    }


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
