"""Options made from settings.

Types, defaults, bounds, order and checks of the typed values.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import typer

from bertft.cli.app import ABLATE_HELP, TRAINING_HELP
from bertft.cli.options import Config, Out, options
from bertft.cli.probe import EDGE_HELP, STRUCTURAL_HELP
from bertft.cli.rsa import RSA_HELP
from bertft.errors import BertftError
from bertft.models.finetuning.config import FinetuneConfig
from bertft.runs.settings import Positive, Settings, Size, Within
from bertft.study.options import EdgeCommand, FinetuneCommand, RsaOptions, StructuralCommand


@dataclass(frozen=True)
class Some(Settings):
    source: str
    kind: Literal["a", "b"] = "a"
    size: Size | None = None
    ranks: list[Size] = field(default_factory=lambda: [4])
    rate: Positive = 0.5
    least: Annotated[int, Within(ge=-1)] = -1
    on: bool = True
    off: bool = False
    maybe: bool | None = None
    hidden: int = 7


HELP = {"size": "Size.", "source": "Source.", "out": None, "kind": "", "ranks": "", "rate": "", "least": "", "on": "",
        "off": "Off.", "maybe": ""}  # fmt: skip
ONLY_IN_A_FILE = {"max_select", "head_learning_rate", "warmup", "weight_decay", "stride", "max_grad_norm"}
seen: list[dict[str, Any]] = []


@options(Some, HELP)
def command(chosen: dict[str, Any], out: Out, config: Config = None) -> None:
    """Keep what was given."""
    seen.append(chosen)


app = typer.Typer()
app.command()(command)
made = typer.main.get_command(app)


def given(*arguments: str) -> dict[str, Any]:
    seen.clear()
    made.main(args=["--out", "o", "--source", "s", *arguments], standalone_mode=False)
    return seen[0]


def test_options_come_in_the_order_of_the_help_and_then_those_of_the_command():
    names = [param.name for param in made.params if param.name != "help"]
    assert [name for name in names if "completion" not in name] == [*HELP, "config"]


def test_defaults_are_those_of_the_settings():
    assert given() == {"source": "s", "kind": "a", "size": None, "ranks": [4], "rate": 0.5, "least": -1, "on": True,
                       "off": False, "maybe": None}  # fmt: skip
    assert [param.name for param in made.params if param.required] == ["source", "out"]


def test_values_have_the_types_of_the_settings():
    options = ["--size", "3", "--ranks", "1", "--ranks", "2", "--rate", "1e-3", "--no-on", "--off", "--maybe"]
    found = given(*options)
    assert found["size"] == 3 and found["ranks"] == [1, 2] and found["rate"] == 0.001
    assert (found["on"], found["off"], found["maybe"]) == (False, True, True)


def test_a_false_default_makes_a_single_flag():
    names = {param.name: [*param.opts, *param.secondary_opts] for param in made.params}
    assert names["on"] == ["--on", "--no-on"] and names["off"] == ["--off"] and names["maybe"] == ["--maybe"]


@pytest.mark.parametrize("option", [["--size", "x"], ["--hidden", "1"]])
def test_values_of_another_type_and_unknown_options_are_usage_errors(option):
    with pytest.raises(Exception) as raised:
        given(*option)
    assert option[0] in raised.value.format_message()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (["--kind", "c"], "--kind: expected a or b, found 'c'"),
        (["--size", "0"], "--size: expected a number above 0, found 0"),
        (["--ranks", "0"], "--ranks: [0]: expected a number above 0, found 0"),
        (["--least", "-2"], "--least: expected a number of at least -1, found -2"),
        (["--rate", "0"], "--rate: expected a number above 0, found 0.0"),
        (["--rate", "nan"], "--rate: expected a number above 0, found nan"),
    ],
)
def test_other_bounds_are_checked_before_the_command(option, sentence):
    with pytest.raises(BertftError) as raised:
        given(*option)
    assert str(raised.value) == sentence and not seen


def test_a_help_text_without_a_setting_is_a_mistake():
    with pytest.raises(KeyError, match="sise"):
        options(Some, {"sise": "Size."})


@pytest.mark.parametrize(
    ("settings", "help", "own"),
    [
        (FinetuneCommand, TRAINING_HELP, ONLY_IN_A_FILE),
        (RsaOptions, RSA_HELP, set()),
        (StructuralCommand, STRUCTURAL_HELP, {"models"}),
        (EdgeCommand, EDGE_HELP, {"models"}),
    ],
)  # fmt: skip
def test_every_setting_of_a_command_has_an_option(settings, help, own):
    """Except ``models``, named ``--model``, and what only a file sets."""
    assert {f.name for f in dataclasses.fields(settings)} - set(help) == own


def test_options_of_training_are_settings_of_training():
    assert {f.name for f in dataclasses.fields(FinetuneCommand)} <= {f.name for f in dataclasses.fields(FinetuneConfig)}
    assert set(ABLATE_HELP) - {"k", "cache"} < set(TRAINING_HELP)
