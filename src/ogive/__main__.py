"""`python -m ogive` is the `ogive` command."""

from __future__ import annotations

from ogive.cli.main import main

if __name__ == "__main__":  # a spawned worker imports this file, and must not start over
    main()
