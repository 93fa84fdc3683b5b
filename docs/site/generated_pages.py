"""Pages whose content is kept elsewhere: READMEs, the command line, the figures of the experiments.

A line ``<!-- from: NAME -->`` in a page is replaced by what `PARTS` makes. Links to files of the repository lead to the
page that holds them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command_pages import commands
from figure_pages import gallery, programs

ROOT = Path(__file__).resolve().parents[2]
HELD = {
    "README.md": "index",
    "examples/README.md": "examples",
    "experiments/README.md": "experiments",
    "docs/benchmarks/benchmarks.md": "benchmark_table",
}
"""Files of the repository that a page holds."""
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")

PICTURE = re.compile(r'<picture>\s*<source[^>]*srcset="([^"]+)">\s*<img alt="([^"]*)" src="([^"]+)">\s*</picture>')


def rebased(text: str, folder: str) -> str:
    """Return Markdown of a file in ``folder`` with links as a page of ``docs`` needs them.

    The site has no page of a folder or of other Markdown; their links become text. A picture for light and dark pages
    becomes two, of which the theme shows one.
    """

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match.groups()
        place = (ROOT / folder / target).resolve()
        path = place.relative_to(ROOT).as_posix()
        if path in HELD:
            target = f"{HELD[path]}.md"
        elif place.is_dir() or (place.suffix == ".md" and not path.startswith("docs/")):
            return f"{words} (`{path}`)"
        elif path.startswith("docs/"):
            target = path.removeprefix("docs/")
        else:
            target = f"../{path}"
        return f"[{words}]({target}{anchor or ''})"

    return LINK.sub(link, PICTURE.sub(r"![\2](\3){.only-light}\n![\2](\1){.only-dark}", text))


def held(path: str) -> Callable[[Any], str]:
    """Return the maker of a file's text without its title."""

    def text(app: Any) -> str:
        app.env.note_dependency(str(ROOT / path))
        body = re.sub(r"\A# .*\n", "", (ROOT / path).read_text(encoding="utf8"))
        return rebased(body, str(Path(path).parent))

    return text


def others(app: Any) -> str:
    """Return the entries of a table of contents for the pages that no section names."""
    listed = {"index"}
    for page in ("index", "api", "notebooks"):
        for line in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf8").splitlines():
            listed |= set(matching(app, re.sub(r".*<(.*)>", r"\1", line.strip())))
    kept = sorted(set(app.env.found_docs) - listed)
    return "\n".join(["```{toctree}", ":hidden:", ":caption: More", "", *kept, "```"]) if kept else ""


def matching(app: Any, pattern: str) -> list[str]:
    """Return the pages whose names match an entry of a table of contents."""
    return sorted(fnmatch.filter(app.env.found_docs, pattern))


PARTS: dict[str, Callable[[Any], str]] = {
    **{path: held(path) for path in HELD},
    "programs": lambda app: programs(ROOT),
    "gallery": lambda app: gallery(ROOT),
    "commands": lambda app: commands(),
    "other pages": others,
}


def fill(app: Any, name: str, source: list[str]) -> None:
    """Replace the marks of a page."""
    if str(app.env.doc2path(name)).endswith(".ipynb"):
        return
    text = rebased(source[0], f"docs/{Path(name).parent}") if "/" not in name else source[0]
    if name == "index":  # a section may wait for a page, which Sphinx does not allow
        text = re.sub(r"^([\w/]+\*)$", lambda m: "\n".join(matching(app, m[1])), text, flags=re.MULTILINE)
    source[0] = re.sub(r"^<!-- from: (.+) -->$", lambda mark: PARTS[mark[1]](app), text, flags=re.MULTILINE)


def setup(app: Any) -> dict[str, Any]:
    """Connect the event of Sphinx that reads a page."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
