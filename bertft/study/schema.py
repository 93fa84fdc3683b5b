"""JSON schema of a study's YAML file.

Editors read it to complete keys and to mark wrong ones. The file beside the built-in studies is written by
``python .ci/schema.py``.
"""

from __future__ import annotations

from typing import Any

from bertft.runs.settings import json_schema
from bertft.study.config import StudyConfig
from bertft.study.reader import BUILTIN

SCHEMA = BUILTIN / "study.schema.json"
"""The file."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PARTIAL = "Some"  # begins the names of settings in which no key is required


def study_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a study file.

    It holds keys, types, choices and bounds. What `bertft.study.reader` checks across keys, such as that ``ablate``
    names a task, is not in it. An entry of ``variants`` may have any key of a study and requires none.
    """
    study = json_schema(StudyConfig)
    classes = study.pop("$defs")
    partial = {f"{_PARTIAL}{name}": _partial(one) for name, one in {**classes, "StudyConfig": study}.items()}
    overrides = {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{_PARTIAL}StudyConfig"}}
    variants = {**overrides, "description": "Overrides by name, chosen with --variant."}
    study["properties"] = {**study["properties"], "variants": variants}
    about = {"$schema": _DIALECT, "title": "bertft study", "description": "Settings of a study (docs/study.md)."}
    return {**study, **about, "$defs": {**classes, **partial}}


def _partial(node: Any) -> Any:
    """Return a schema in which no key is required, whose references are to such schemas too."""
    if isinstance(node, list):
        return [_partial(one) for one in node]
    if not isinstance(node, dict):
        return node.replace("#/$defs/", f"#/$defs/{_PARTIAL}") if isinstance(node, str) else node
    return {key: _partial(value) for key, value in node.items() if key != "required" or "properties" not in node}
