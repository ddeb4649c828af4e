"""Who owns a trial, and whether that owner still lives.

A process is named by machine, boot, process-id space, process id and start time, so that a process
id that was given out again is not mistaken for its predecessor. On the same machine death is known,
not guessed. Where it cannot be known (another machine, another container) `alive` says None, and
the store waits until the owner's heartbeat has stood still (`ogive.lab.store`).
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from pathlib import Path

PROC = Path("/proc")


def identity(supervisor: int | None = None) -> str:
    """This process as canonical text, for a trial's `owner`.

    Args:
        supervisor: process id of the run that started this worker; itself where there is none.
            A worker that dies with its supervisor was interrupted; one that dies alone crashed.
    """
    boss = os.getpid() if supervisor is None else supervisor
    who = {**_here(), "pid": os.getpid(), "start": started(os.getpid())}
    who |= {"boss": boss, "boss_start": started(boss)}
    return json.dumps(who, sort_keys=True)


def alive(owner: str | None) -> bool | None:
    """Whether the process that `identity` named still runs; None where that cannot be known."""
    return _lives(owner, "pid", "start")


def supervisor_alive(owner: str | None) -> bool | None:
    """Whether the run that started the named worker still runs; None where unknown."""
    return _lives(owner, "boss", "boss_start")


def _lives(owner: str | None, pid: str, start: str) -> bool | None:
    if owner is None:
        return False
    who, here = json.loads(owner), _here()
    if who["machine"] != here["machine"]:
        return None
    if who["boot"] != here["boot"]:
        return False
    if who["space"] != here["space"] or who[start] is None:
        return None
    return started(who[pid]) == who[start]


def started(pid: int) -> str | None:
    """When a process of this machine started, in whatever unit the system keeps.

    Read from /proc; where there is none (macOS, BSD) asked of `ps`. Returns "" for a process that
    does not exist or is dead but not yet collected, None where the system cannot be asked.
    """
    if (PROC / "self" / "stat").exists():
        try:
            text = (PROC / str(pid) / "stat").read_text(errors="replace")
        except OSError:
            return ""
        fields = text.rpartition(")")[2].split()  # a process may name itself "a) b ("
        return "" if fields[0] in "ZX" else fields[19]
    try:
        ask = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        answer = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    state, _, start = answer.strip().partition(" ")
    return "" if state.startswith("Z") else " ".join(start.split())


@functools.cache
def _here() -> dict[str, str]:
    """What is common to all processes that can see each other."""
    machine = _read("/etc/machine-id")
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return {
        "machine": f"{platform.node()}/{machine}",
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "space": space,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
