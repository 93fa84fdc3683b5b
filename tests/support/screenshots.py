"""Screenshots of a page: light, dark, wide and on a phone.

All sections are unfolded. Usage:

    python tests/support/screenshots.py runs/quickstart/report.html pictures
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from browser import Browser, browser

LOOKS = {
    "light": {"width": 1280},
    "dark": {"width": 1280, "dark": True},
    "phone": {"width": 390, "height": 844, "phone": True},
    "phone_dark": {"width": 390, "height": 844, "phone": True, "dark": True},
}
TALLEST = 16_000  # pixels of one picture; a longer page takes several


def shoot(opened: Browser, page: Path, folder: Path) -> list[Path]:
    """Write ``page`` as PNG files into ``folder`` (``light.png``, if long ``light_2.png`` too); return them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, look in LOOKS.items():
        opened.open(page, **look)
        opened.run("document.querySelectorAll('details').forEach(node => { node.open = true })")
        opened.settle()
        height = opened.run("document.documentElement.scrollHeight")
        for part, top in enumerate(range(0, height, TALLEST), start=1):
            written.append(folder / (f"{name}.png" if part == 1 else f"{name}_{part}.png"))
            opened.picture(written[-1], top=top, height=min(TALLEST, height - top))
    return written


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as opened:
        for path in shoot(opened, Path(sys.argv[1]).resolve(), Path(sys.argv[2])):
            print(path)
        assert not opened.errors, opened.errors
