"""Reference of the Python interface.

``python .ci/docs.py FOLDER`` writes it; warnings are errors. Every public name (`bertft.__all__` and those of its
packages) must have a docstring.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from pathlib import Path

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
                    found.append(f"{package}.{label}")
    return found


def main() -> int:
    import pdoc

    out = Path(sys.argv[1])
    warnings.simplefilter("error")
    # pdoc cannot read the annotations of a NamedTuple; mypy checks them.
    warnings.filterwarnings("ignore", message="Error parsing type annotation ForwardRef")
    warnings.filterwarnings("ignore", message="'bertft' may refer to either")  # installed from this checkout
    pdoc.render.configure(docformat="markdown", search=True)
    pdoc.pdoc("bertft", "!bertft.__main__", output_directory=out)
    silent = silent_names()
    for name in silent:
        print(f"no docstring: {name}", file=sys.stderr)
    print(f"{len(list(out.rglob('*.html')))} pages in {out}")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
