"""The `ogive` command: one verb per file; parse, call, print, and no logic."""
