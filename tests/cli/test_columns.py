"""Verdicts on a terminal and in a pipe."""

from __future__ import annotations

import os
import sys

import pytest

from bertft.cli.columns import fitted
from bertft.cli.options import tell

VERDICT = """changed    dep changed: its similarity to minilm falls to 0.718 [0.694, 0.739] at layer 6.
moved      0.163 Only the final subpattern may be [irrefutable,] and each subpattern
           0.186 See the [FAQ] entry on UnboundLocalError for well-chosen examples.
page       /a/folder/with/a/rather/long/path/that/must/not/be/broken/report.html
Results are in a line that has no columns and is left to the terminal, however long it is."""

SHOWN = """changed    dep changed: its similarity to
           minilm falls to 0.718 [0.694,
           0.739] at layer 6.
moved      0.163 Only the final subpattern may
           be [irrefutable,] and each
           subpattern
           0.186 See the [FAQ] entry on
           UnboundLocalError for well-chosen
           examples.
page       /a/folder/with/a/rather/long/path/that/must/not/be/broken/report.html
Results are in a line that has no columns and is left to the terminal, however long it is."""


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that makes stdout a terminal of some columns."""

    def of(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))

    return of


def test_a_terminal_keeps_the_second_column(terminal):
    terminal(46)
    assert [line.split() for line in fitted(VERDICT).splitlines()] == [line.split() for line in SHOWN.splitlines()]
    assert fitted(VERDICT) == SHOWN


def test_lines_that_fit_or_have_no_room_are_unchanged(terminal):
    terminal(200)
    assert fitted(VERDICT) == VERDICT
    terminal(30)
    assert fitted(VERDICT) == VERDICT


def test_a_pipe_gets_whole_lines(capsys, tmp_path):
    assert fitted(VERDICT) == VERDICT
    tell(VERDICT, tmp_path, as_json=False)
    assert capsys.readouterr().out == VERDICT + "\n"


def test_commands_print_what_fits(terminal, capsys, tmp_path):
    terminal(46)
    tell(VERDICT, tmp_path, as_json=False)
    assert capsys.readouterr().out == SHOWN + "\n"
