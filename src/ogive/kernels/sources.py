"""The sources of the compiled kernels, told apart by what is in them.

CMake runs this file as a script and compiles the fingerprint into the module; at import it is
taken again of the sources that lie beside the Python, so that a module that was compiled from
others (a checkout that was updated, and not built again) is known.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "csrc"


def fingerprint(folder: Path = FOLDER) -> str | None:
    """A number of the names and bytes of all sources, in hexadecimal; None without sources."""
    files = [*folder.glob("*.cpp"), *folder.glob("*.h")]
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        held = file.read_bytes()
        whole.update(f"{file.name} {len(held)}\n".encode())
        whole.update(held)
    return whole.hexdigest() if files else None


if __name__ == "__main__":
    folder, made = map(Path, sys.argv[1:])
    name = "const char* const ogive_sources"
    made.write_text(f'extern {name};\n{name} = "{fingerprint(folder)}";\n')
