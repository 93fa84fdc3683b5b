"""Refusal of large files in a commit.

``python .ci/large_files.py FILE ...`` prints the files that are too large and exits with 1 if there are any.
"""

from __future__ import annotations

import sys
from pathlib import Path

LARGEST = 400_000  # bytes


def large(paths: list[str]) -> list[str]:
    """Return a line for each file that is too large for a commit."""
    sizes = {path: Path(path).stat().st_size for path in paths if Path(path).is_file()}
    return [f"{path}: expected at most {LARGEST} bytes, found {size}" for path, size in sizes.items() if size > LARGEST]


if __name__ == "__main__":
    found = large(sys.argv[1:])
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    sys.exit(bool(found))
