"""Check of a commit's subject.

A commit-msg hook calls ``python .ci/commit_message.py FILE``. A subject names its area, is imperative and has at most
65 characters: ``report: omit the seed line``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LONGEST = 65
AREA = re.compile(r"[a-z][\w./-]*(, [a-z][\w./-]*)*: (\S.*)")
NOT_IMPERATIVE = re.compile(r"\w+(ed|ing)\b")
PLAIN = {"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "bring", "ping", "ring", "string"}


def fault(message: str) -> str | None:
    """Return what is wrong with the subject of a commit message, or None."""
    subject = message.split("\n", 1)[0].rstrip()
    if subject.startswith(("Merge ", "Revert ", "fixup! ", "squash! ")):
        return None
    if len(subject) > LONGEST:
        return f"expected a subject of at most {LONGEST} characters, found {len(subject)}"
    area = AREA.fullmatch(subject)
    if area is None:
        return f"expected a subject such as 'report: omit the seed line', found {subject!r}"
    first = area[2].split()[0].lower()
    if NOT_IMPERATIVE.fullmatch(first) and first not in PLAIN:
        return f"expected an imperative such as 'add' or 'fix', found {first!r}"
    if subject.endswith("."):
        return "expected no full stop at the end of a subject"
    return None


def main() -> int:
    """Print the fault of the message in the given file, if any, and return 1; else return 0."""
    found = fault(Path(sys.argv[1]).read_text(encoding="utf8"))
    if found:
        print(f"commit message: {found}", file=sys.stderr)
    return int(found is not None)


if __name__ == "__main__":
    sys.exit(main())
