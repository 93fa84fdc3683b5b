"""Settings of the site: ``python -m sphinx -W -b html docs OUT`` builds it, without a connection."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "site"))  # the extensions below

project = "bertft"
release = version = importlib.metadata.version("bertft")
html_title = f"bertft {version}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",  # these are in docs/site
    "generated_pages",
    "docstrings",
    "one_line_blocks",
]
exclude_patterns = ["site", "benchmarks", "notebooks/runs", "**.ipynb_checkpoints"]
highlight_language = "none"  # most blocks are commands

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sphinx = html_show_copyright = False

myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 4

nb_execution_mode = "force"  # notebooks are kept without outputs
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for a cell, on a busy machine
nb_output_stderr = "remove"  # warnings of libraries about this machine

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_use_ivar = True
default_role = "py:obj"  # a name in backticks is a link if the reference has it
