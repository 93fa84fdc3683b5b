"""JSON schema of a study: the committed file, real studies, wrong ones."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bertft.errors import BertftError
from bertft.runs.settings import validated
from bertft.study.config import StudyConfig
from bertft.study.reader import BUILTIN
from bertft.study.schema import SCHEMA, study_schema

ROOT = Path(__file__).parents[2]
STUDIES = [*BUILTIN.glob("*.yaml"), *(ROOT / "experiments").glob("merchant2020_*.yaml")]
MINE = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "study.md").read_text(encoding="utf8"), re.DOTALL)[1]


def refusals(tree: Any) -> list[str]:
    """Return what the schema refuses; as in the reader, the key ``null`` of YAML is text."""
    validator = jsonschema.Draft202012Validator(study_schema())
    return [error.message for error in validator.iter_errors(json.loads(json.dumps(tree)))]


def changed(keys: str, value: Any) -> dict[str, Any]:
    """Return the study of the docs with one setting replaced, or removed if the value is ``...``."""
    tree = copy.deepcopy(yaml.safe_load(MINE))
    *path, last = keys.split(".")
    node = tree
    for key in path:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return tree


def test_the_file_is_that_of_the_code():
    assert json.loads(SCHEMA.read_text(encoding="utf8")) == study_schema(), "run python .ci/schema.py"
    jsonschema.Draft202012Validator.check_schema(study_schema())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_of_the_repository_are_accepted(path):
    assert len(STUDIES) >= 3 and refusals(yaml.safe_load(path.read_text(encoding="utf8"))) == []


def test_the_study_of_the_docs_is_accepted_by_schema_and_reader():
    tree = yaml.safe_load(MINE)
    assert refusals(tree) == []
    variants = tree.pop("variants")
    validated(StudyConfig, tree, "docs/study.md")
    assert variants["small"]["tasks"]["dep"]["max_train"] == 4000


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("sed", 1),
        ("tasks", ...),
        ("model", 3),
        ("tasks.dep.epoch", 3),
        ("tasks.dep.train", ...),
        ("tasks.dep.epochs", 0),
        ("tasks.dep.warmup", 1),
        ("rsa.metric", "cosinus"),
        ("rsa.draw", "shuffle"),
        ("rsa.unit", "char"),
        ("rsa.layers", "some"),
        ("rsa.tokens", "many"),
        ("probes.rank", []),
        ("probes.rank", [8, 0]),
        ("stimuli.wikipedia.kind", "poem"),
        ("directions", 11),
        ("weights", 1),
    ],
)
def test_what_the_reader_refuses_the_schema_refuses(keys, value):
    tree = changed(keys, value)
    assert refusals(tree)
    tree.pop("variants")
    with pytest.raises(BertftError):
        validated(StudyConfig, tree, "study.yaml")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("rsa", None),
        ("probes", None),
        ("rsa.layers", "0, 3,6"),
        ("probes.rank", [8, 32]),
        ("tasks.dep.max_train", None),
        ("variants.small.probes", None),
        ("variants.small.rsa", {"tokens": 300}),
    ],
)
def test_what_the_reader_accepts_the_schema_accepts(keys, value):
    assert refusals(changed(keys, value)) == []


@pytest.mark.parametrize(("keys", "value"), [("variants.small.sed", 1), ("variants.small.tasks.dep.epoch", 1)])
def test_a_wrong_key_of_a_variant_is_refused(keys, value):
    assert refusals(changed(keys, value))
