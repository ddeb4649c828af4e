"""Draw the demo's forest plot for the README from a store: `python docs/draw_demo.py [STORE]`."""

from __future__ import annotations

import sys
from pathlib import Path

from ogive.lab import Store, compare
from ogive.report import forest

TARGET = Path(__file__).parent / "images" / "demo.svg"


def main(store: str = "ogive-runs/demo.sqlite") -> None:
    with Store.open_readonly(store) as opened:
        spec = opened.spec("demo")
        rows = opened.rows("demo")
    sites = {label: arm["sites"] for label, arm in spec["variants"].items()}
    comparisons = compare(spec, rows)
    TARGET.write_text(forest(comparisons, unit="nats per byte", sites=sites, standalone=True))
    print(TARGET)


if __name__ == "__main__":
    main(*sys.argv[1:])
