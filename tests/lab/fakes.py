"""Stand-ins for planning and training that need no torch, so that faults can be tried by the dozen.

The trainer writes a line when it starts and one when it has ended, each in one append, so that a
test can count what was really executed. What it does is written in the configuration.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

from ogive.errors import StudyError, TrialDiverged
from ogive.lab import process
from ogive.lab.identity import code_fingerprint
from ogive.lab.plan import load_plugins
from ogive.lab.store import Row, Store
from ogive.lab.study import Study

TRAINER = "lab.fakes:train"
PLANNER = "lab.fakes:plan"
BONUS = 0.0


def study(folder: Path, **changes) -> Study:
    """A study of three variants; `trial` seconds each, log of what was executed in `folder`."""
    settings = {
        "name": "fake",
        "question": "Does it survive?",
        "variants": {"a": "query=gelu", "b": "key=gelu", "c": "value=gelu"},
        "tasks": ("fake",),
        "learning_rates": (0.1, 0.2),
        "seeds": 4,
        "train": {"log": str(folder / "log"), "trial": 0.0},
    }
    return Study(**{**settings, **changes})


def plan(spec: dict) -> dict:
    """A plan without a model."""
    time.sleep(5.0 if spec["question"] == "slow to plan" else 0.0)
    arms = {"baseline": spec["baseline"], **spec["variants"]}
    planned = {
        label: {
            "sites": arm["sites"],
            "model": {**spec["model"], **arm["model"]},
            "train": {**spec["train"], **arm["train"]},
            "receipt": None,
        }
        for label, arm in arms.items()
    }
    return {
        "code": code_fingerprint(spec["plugins"]),
        "ladder": {
            "rates": spec["learning_rates"],
            "seeds": spec["tuning_seeds"],
            "extra": spec["extra_rungs"],
        },
        "tasks": {"fake": {"name": "fake", "version": "1", "options": {}}},
        "arms": {"fake": planned},
    }


def plan_of_other_sources(spec: dict) -> dict:
    """A plan made before somebody edited a file."""
    return {**plan(spec), "code": "0" * 16}


def plan_with_plugins(spec: dict) -> dict:
    """A plan that wants its plugins."""
    load_plugins(spec["plugins"])
    assert BONUS
    return plan(spec)


def refuse(spec: dict) -> dict:
    """A planner that raises one of our own errors."""
    raise StudyError("'nothing' is no sites text")


def divide(spec: dict) -> dict:
    """A planner with a bug."""
    return {"plan": 1 / 0}


def die(spec: dict) -> dict:
    """A planner that is killed."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def train_and_tell(config: dict) -> dict:
    """Also say how many threads numerical libraries were told to use."""
    return {**train(config), "threads": os.environ["OMP_NUM_THREADS"]}


def train(config: dict) -> dict:
    """Take a while, do what the settings say, and score by a hash of the configuration."""
    settings = config["train"]
    note(settings["log"], "begin", config)
    time.sleep(settings.get("trial", 0.0))
    if config["sites"] == settings.get("sites") and _times(settings) <= settings.get(
        "how_often", 99
    ):
        misbehave(settings["does"], config)
    note(settings["log"], "end", config)
    score = _score(config) + BONUS
    return {
        "score": float("nan") if settings.get("does") == "nan" and _hit(config) else score,
        "metric": "units",
        "higher_is_better": False,
        "bulk": "x" * settings.get("bulk", 0),
        "curve": [[1, score, None], [2, float("nan"), score]],
        "parameters": 10,
        "step_ms": 1.0,
        "seconds": settings.get("trial", 0.0),
    }


def misbehave(does: str, config: dict) -> None:
    """The ways in which a trial goes wrong."""
    if does == "raise":
        raise ValueError("the trial's own mistake")
    if does == "diverge":
        raise TrialDiverged("loss became nan at step 7")
    if does == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if does == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "exit":
        print("last words of a worker", flush=True)
        os._exit(7)
    if does == "hang":
        time.sleep(600)


def note(log: str, what: str, config: dict) -> None:
    """Append one line, whole or not at all."""
    line = f"{what} {written(config)}\n"
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def written(config: dict) -> str:
    """A trial as the log has it."""
    return f"{config['sites'] or 'baseline'} {config['train']['lr']} {config['seed']}"


def ended(pid: int) -> bool:
    """Whether a process is gone, or dead and not yet collected."""
    return process.started(pid) == ""


def executed(folder: Path, what: str = "end") -> list[str]:
    """The trials that began or ended, in order."""
    path = folder / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition(" ")[2] for line in lines if line.startswith(what)]


def rows(store_path: Path, role: str | None = None) -> list[Row]:
    """The study's rows."""
    with Store.open_readonly(store_path) as store:
        return store.rows("fake", role)


def _hit(config: dict) -> bool:
    return config["sites"] == config["train"].get("sites")


def _times(settings: dict) -> int:
    """How often the misbehaving trials have begun."""
    return sum(settings["sites"] in line for line in Path(settings["log"]).read_text().splitlines())


def _score(config: dict) -> float:
    """The same for the same configuration; best at the larger learning rate for `key=gelu` only."""
    content = f"{config['sites']} {config['seed']}".encode()
    noise = int.from_bytes(hashlib.sha256(content).digest()[:4], "big") / 2**32
    slope = -1.0 if config["sites"] == "key=gelu" else 1.0
    return noise / 10 + slope * config["train"]["lr"]
