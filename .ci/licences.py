"""Licences of the installed dependencies.

python .ci/licences.py --write docs/licences.md     write the page
python .ci/licences.py --check docs/licences.md     list the differences; fail if a licence is not stated or binds
                                                    those who build on bertft
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("demo", "report", "data", "peft")
"""The extras that users install; the tools of tests, benchmarks and CI are not distributed."""
UNSTATED = {"UNKNOWN": "not stated", "": "not stated"}
BINDING = re.compile(r"\b(A?GPL|SSPL)|Affero|GNU General Public")  # not the LGPL, which lets others link


def closure(root: str, extras: tuple[str, ...]) -> list[importlib.metadata.Distribution]:
    """Return the installed direct and indirect dependencies of ``root``, by name, without ``root``."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [(root, frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            found[key] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name == root:
                raise SystemExit(f"{root} is not installed here") from None
            continue  # an extra that is not installed, or another platform's
        for line in found[key].requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return [found[key] for key in sorted(found) if key != root]


def licences(names: list[str]) -> dict[str, str]:
    """Return the licence of each package, as pip-licenses reads it from the package's metadata."""
    command = [sys.executable, "-m", "piplicenses", "--from", "mixed", "--format", "json", "--with-system"]
    done = subprocess.run([*command, "--packages", *names], capture_output=True, text=True, check=True)
    found = {package["Name"]: " ".join(package["License"].split()) for package in json.loads(done.stdout)}
    return {name: UNSTATED.get(found.get(name, "UNKNOWN"), found.get(name, "")) for name in names}


def page(distributions: list[importlib.metadata.Distribution]) -> str:
    """Return the generated page of the documentation."""
    of = licences([str(d.metadata["Name"]) for d in distributions])
    rows = [f"| {d.metadata['Name']} | {d.version} | {of[d.metadata['Name']]} |" for d in distributions]
    return (
        "# Licences\n\n"
        "bertft is Apache-2.0. What installing it brings along (with the extra all), as tested, by what\n"
        "each package says of itself. Written by `python .ci/licences.py --write docs/licences.md`; do not edit.\n\n"
        "| package | version | licence |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def differences(held: str, now: str) -> list[str]:
    """Return the differences of two pages in packages and licences; versions may differ."""

    def rows(text: str) -> dict[str, str]:
        cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
        return {name: licence for name, _, licence in cells[1:]}

    page, here = rows(held), rows(now)
    found = [f"{name} ({here[name]}): not on the page" for name in here if name not in page]
    found += [f"{name}: no longer installed" for name in page if name not in here]
    changed = [name for name in here if page.get(name, here[name]) != here[name]]
    return found + [f"{name}: {page[name]} on the page, {here[name]} now" for name in changed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path)
    parser.add_argument("--check", type=Path)
    given = parser.parse_args()
    text = page(closure("bertft", EXTRAS))
    print(text)
    if given.write:
        given.write.write_text(text, encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    wrong = [f"{line}: no licence" for line in lines if line.endswith("| not stated |")]
    wrong += [f"{line}: binds those who build on bertft" for line in lines if BINDING.search(line.split(" | ")[-1])]
    if given.check:  # a new release may bring a dependency, which is not the fault of a change
        noted = differences(given.check.read_text(encoding="utf-8"), text)
        print(*(f"note: {line}" for line in noted), sep="\n", file=sys.stderr)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
