"""Validation of settings.

Valid settings are accepted; anything else gives one sentence with file and key.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from bertft.errors import BertftError
from bertft.runs.settings import (
    Amount,
    Count,
    OneOf,
    Percent,
    Positive,
    Settings,
    Share,
    Size,
    Within,
    check,
    validated,
)


@dataclass(frozen=True)
class Inner(Settings):
    source: str
    size: Size | tuple[Size, ...] = 1
    rate: Positive = 1.0
    share: Share | None = None
    decay: Amount = 0.0
    stride: Count = 0
    percent: Annotated[tuple[Percent, ...], Within(min_length=1)] = (50,)
    kind: Literal["a", "b"] = "a"
    fast: bool = False
    measure: Annotated[str, OneOf("bertft.runs.rows", "COLUMNS")] = "task"


@dataclass(frozen=True)
class Outer(Settings):
    runs: dict[str, Inner] = field(default_factory=dict)
    one: Inner | None = None
    out: str | Path = "out"


def test_plain_values_become_settings():
    tree = {"runs": {"x": {"source": "s", "size": [2, 3], "rate": 2, "percent": [0, 100]}, 7: {"source": "t"}}}
    built = validated(Outer, tree, "f")
    assert built == Outer({"x": Inner("s", (2, 3), 2.0, percent=(0, 100)), "7": Inner("t")})
    assert type(built.runs["x"].rate) is float


@pytest.mark.parametrize("text", ["5e-5", "0.00005", "5E-05"])
def test_a_number_that_yaml_reads_as_text_is_a_number(text):
    assert validated(Inner, {"source": "s", "rate": text}, "f").rate == 5e-5


@pytest.mark.parametrize(
    ("inner", "sentence"),
    [
        ({"source": 3}, "one.source: expected text, found 3"),
        ({}, "one.source: missing, and it has no default"),
        ([1], "one: expected a mapping with source, size, rate, "),
        ({"source": "s", "sise": 2}, "one.sise: unknown key, did you mean 'size'?"),
        ({"sourc": "s"}, "one.sourc: unknown key, did you mean 'source'?"),
        ({"source": "s", "size": 0}, "one.size: expected a number above 0, found 0"),
        ({"source": "s", "size": True}, "one.size: expected a whole number, found True"),
        ({"source": "s", "size": 2.5}, "one.size: expected a whole number, found 2.5"),
        ({"source": "s", "size": "2"}, "one.size: expected a whole number, found '2'"),
        ({"source": "s", "size": [1, 0]}, "one.size[1]: expected a number above 0, found 0"),
        ({"source": "s", "rate": "fast"}, "one.rate: expected a number, found 'fast'"),
        ({"source": "s", "rate": True}, "one.rate: expected a number, found True"),
        ({"source": "s", "rate": float("nan")}, "one.rate: expected a number above 0, found nan"),
        ({"source": "s", "share": 1}, "one.share: expected a number below 1, found 1"),
        ({"source": "s", "share": -0.5}, "one.share: expected a number of at least 0, found -0.5"),
        ({"source": "s", "decay": None}, "one.decay: expected a number, found nothing"),
        ({"source": "s", "decay": "-1e-3"}, "one.decay: expected a number of at least 0, found -0.001"),
        ({"source": "s", "stride": -1}, "one.stride: expected a number of at least 0, found -1"),
        ({"source": "s", "percent": 5}, "one.percent: expected a list, found 5"),
        ({"source": "s", "percent": []}, "one.percent: expected a list with at least 1 entry, found an empty list"),
        ({"source": "s", "percent": [5, 101]}, "one.percent[1]: expected a number of at most 100, found 101"),
        ({"source": "s", "kind": "c"}, "one.kind: expected a or b, found 'c'"),
        ({"source": "s", "fast": "yes"}, "one.fast: expected true or false, found 'yes'"),
        ({"source": "s", "measure": "tusk"}, "one.measure: expected model, task, "),
        ({"source": "\ud800"}, "expected Unicode text"),
        ({"source": "s", "two\nlines": 1}, "one.two lines: unknown key"),
    ],
)
def test_one_sentence_names_file_key_expected_and_found(inner, sentence):
    with pytest.raises(BertftError) as raised:
        validated(Outer, {"one": inner}, "file.yaml")
    assert str(raised.value).startswith(f"file.yaml: {sentence}") and "\n" not in str(raised.value)


def test_the_key_of_a_part_comes_first():
    with pytest.raises(BertftError, match=r"^f: a\.b\.size: expected a number above 0, found -1$"):
        validated(Inner, {"source": "s", "size": -1}, "f", "a.b")
    with pytest.raises(BertftError, match=r"^f: a\.b: expected a whole number, found 'x'$"):
        validated(int, "x", "f", "a.b")


def test_what_json_cannot_hold_is_one_sentence():
    circle: dict[str, object] = {}
    circle["one"] = circle
    for tree in (circle, {("a",): 1}):
        with pytest.raises(BertftError, match=r"^f: expected plain YAML"):
            validated(Outer, tree, "f")


def test_an_instance_is_checked_and_left_as_it_is():
    check(Outer(out=Path("a"), one=Inner("s", (1, 2))), "command")
    with pytest.raises(BertftError, match=r"^command: runs\.x\.stride: expected a number of at least 0, found -1$"):
        check(Outer({"x": Inner("s", stride=-1)}), "command")


def test_importing_settings_loads_no_pydantic():
    code = "import sys, bertft.study.config; sys.exit('pydantic' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
