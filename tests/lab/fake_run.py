"""A run of the fake study in a process of its own: `fake_run.py FOLDER '{"options": …}'`."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab import fakes
from ogive.errors import OgiveError
from ogive.lab import run_study

if __name__ == "__main__":
    folder, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
    study = fakes.study(folder)
    train = {**study.train, **asked.pop("train", {})}
    study = study.replace(train=train, **asked.pop("study", {}))
    names = {"trainer": fakes.TRAINER, "planner": fakes.PLANNER}
    try:
        outcome = run_study(study, store_path=folder / "s.sqlite", **names, **asked)
    except KeyboardInterrupt:
        sys.exit(130)
    except OgiveError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps({"executed": outcome.executed, "failed": outcome.failed}))
