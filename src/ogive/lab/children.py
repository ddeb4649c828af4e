"""Child processes of a run: started fresh (never forked), one thread each, gone with their parent.

A child reads one JSON line after the other from its standard input: what to call. What the call
returns comes back as a line of a temporary file. When the input ends, however the parent ended, the
child leaves at once. What it prints goes to another file, whose last line explains a death.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any

_BOOT = (
    "import json, sys; line = json.loads(sys.stdin.readline()); sys.path[:] = line['path']; "
    "from ogive.lab.children import obey; obey(line['answers'])"
)
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class Child:
    """A child process, waiting to be asked."""

    def __init__(self) -> None:
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by collect
        self.answers: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=self.output,
            stderr=self.output,
            pass_fds=(self.answers.fileno(),),
            process_group=0,  # Ctrl-C reaches the parent only, which then ends its children
            env={**os.environ, **_ONE_THREAD},
        )
        self._write({"path": sys.path, "answers": self.answers.fileno()})

    def ask(self, function: str, *arguments: Any) -> None:
        """Have `module:function` called with JSON-able arguments, after whatever it does now."""
        self._write({"call": function, "arguments": arguments})

    def answer(self) -> Any:
        """What the last call that has returned gave; None before the first."""
        size = os.fstat(self.answers.fileno()).st_size
        lines = os.pread(self.answers.fileno(), size, 0).split(b"\n")[:-1]
        return json.loads(lines[-1]) if lines else None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self.process.poll()

    def kill(self) -> None:
        """End it now; harmless when repeated."""
        self.process.kill()

    def collect(self) -> None:
        """Wait for its end and let go of its files."""
        self.process.wait()
        for file in (self.process.stdin, self.output, self.answers):
            if file is not None:
                with contextlib.suppress(BrokenPipeError):
                    file.close()

    def epitaph(self) -> str:
        """How it died, in words."""
        code = self.process.wait()
        if code < 0:
            known = {each.value: each.name for each in signal.Signals}
            name = known.get(-code, f"signal {-code}")
            hint = " (killed from outside; out of memory?)" if name == "SIGKILL" else ""
            return f"its worker process was ended by {name}{hint}"
        words = self._last_words()
        return f"its worker process left with code {code}" + (f": {words}" if words else "")

    def _write(self, line: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already: whoever polls it will see
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()

    def _last_words(self) -> str:
        size = os.fstat(self.output.fileno()).st_size
        text = os.pread(self.output.fileno(), 4000, max(0, size - 4000))
        lines = text.decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else ""


def obey(answers: int) -> None:
    """In the child: call what each line says, and write down what it returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_until_parent_ends, args=(inbox,), daemon=True).start()
    while True:
        line = inbox.get()
        module, _, function = line["call"].partition(":")
        result = getattr(importlib.import_module(module), function)(*line["arguments"])
        os.write(answers, json.dumps(result).encode() + b"\n")


def _read_until_parent_ends(inbox: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    os._exit(0)  # at once, whatever the trial computes
