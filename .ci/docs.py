"""The site: built with warnings as errors, links and docstrings checked.

``python .ci/docs.py FOLDER`` builds it there, offline, and executes the notebooks. Links to pages, files and anchors
must lead somewhere; those to other sites are checked by form only. Every public name (`bertft.__all__` and those of its
packages) must have a docstring and a place in the reference. Notebooks are kept without outputs.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "bertft",
    "bertft.cli.doctor",
    "bertft.data",
    "bertft.models",
    "bertft.models.finetuning.evaluation",
    "bertft.models.finetuning.run",
    "bertft.models.tasks",
    "bertft.ops",
    "bertft.probes",
    "bertft.report",
    "bertft.runs.rows",
    "bertft.runs.settings",
    "bertft.similarity",
    "bertft.study",
    "bertft.study.analyses.ablation",
    "bertft.study.estimate",
    "bertft.study.inputs",
    "bertft.study.repeat",
    "bertft.study.run",
)
HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")


def silent_names() -> list[str]:
    """Return the public functions and classes without a docstring."""
    import importlib

    found = []
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            members = [(name, value)]
            if inspect.isclass(value):
                members += [(f"{name}.{k}", v) for k, v in vars(value).items() if not k.startswith("_")]
            for label, member in members:
                documented = isinstance(member, property) or inspect.isfunction(member) or inspect.isclass(member)
                if documented and not (inspect.getdoc(member) or "").strip():
                    found.append(f"{package}.{label}: no docstring")
    return found


def absent_packages(pages: Path) -> list[str]:
    """Return the public packages that no page of the folder ``pages`` describes."""
    text = "".join(page.read_text(encoding="utf8") for page in pages.glob("*.md"))
    described = set(re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE))
    return [f"{package}: on no page of docs/reference" for package in PACKAGES if package not in described]


def kept_outputs(folder: Path) -> list[str]:
    """Return the notebooks of ``folder`` that hold outputs."""
    found = []
    for path in sorted(folder.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf8"))["cells"]
        if any(cell.get("outputs") or cell.get("execution_count") for cell in cells):
            found.append(f"{path.name}: has outputs; clear them before it is committed")
    return found


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken_links(site: Path) -> tuple[list[str], int]:
    """Return the links of a folder of pages that lead nowhere, and the number of all links."""
    pages = {path: Page(path.read_text(encoding="utf8")) for path in sorted(site.rglob("*.html"))}
    broken, count = [], 0
    for path, page in pages.items():
        for link in page.links:
            count += 1
            if fault := _fault(link, path, pages):
                broken.append(f"{path.relative_to(site)}: {link}: {fault}")
    return broken, count


def _fault(link: str, page: Path, pages: dict[Path, Page]) -> str | None:
    """Return why a link of a page leads nowhere, or None."""
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        well_formed = HOST.fullmatch(parts.hostname or "") and not re.search(r"\s", link)
        return None if well_formed else "expected a host with a domain"
    if parts.scheme in ("mailto", "data"):
        return None
    if parts.scheme or parts.netloc or parts.path.startswith("/"):
        return "expected a relative link or one to another site"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
    if not target.exists():
        return "no such file"
    known = {path.resolve(): own.anchors for path, own in pages.items()}.get(target)
    if parts.fragment and known is not None and unquote(parts.fragment) not in known:
        return "no such anchor"
    return None


def main() -> int:
    from sphinx.cmd.build import main as build

    out = Path(sys.argv[1])
    begun = time.monotonic()
    if code := build(["-W", "--keep-going", "-q", "-b", "html", str(ROOT / "docs"), str(out)]):
        return code
    built = time.monotonic() - begun
    broken, links = broken_links(out)
    faults = [*broken, *silent_names(), *absent_packages(ROOT / "docs" / "reference")]
    faults += kept_outputs(ROOT / "docs" / "notebooks")
    print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
    print(f"{len(list(out.rglob('*.html')))} pages in {out}, {links:,} links; built in {built:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
