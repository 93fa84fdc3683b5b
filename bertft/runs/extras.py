"""Optional packages and the extras that install them."""

from __future__ import annotations

import importlib.util

from bertft.errors import BertftError

EXTRAS = {  # the modules that pyproject.toml's extra of this name installs
    "report": ("matplotlib", "plotly", "PIL"),
    "data": ("datasets", "pyarrow", "pandas"),
    "peft": ("peft",),
}


def need(extra: str, purpose: str) -> None:
    """Raise ``BertftError`` if a module of ``extra`` is not installed.

    The sentence starts with ``purpose``, what needs the extra, and ends with the command that installs it. Nothing is
    imported.
    """
    for module in EXTRAS[extra]:
        if importlib.util.find_spec(module) is None:
            raise BertftError(f"{purpose} needs the package {module}: pip install 'bertft[{extra}]'")
