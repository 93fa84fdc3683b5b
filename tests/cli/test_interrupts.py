"""An interruption that a library swallows is raised again."""

import signal
import subprocess
import sys

import pytest

from bertft.cli.interrupts import listening, raise_again
from bertft.cli.main import answer
from bertft.cli.options import showing_progress


@pytest.fixture(autouse=True)
def heard():
    """Listen to Ctrl-C, as a background job does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def swallow():
    """Meet Ctrl-C as C code does that clears every exception."""
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("sign", ["advance", "step"])
def test_a_swallowed_interruption_ends_the_command_at_the_next_sign_of_progress(quiet, sign, capsys):
    reached = []

    def work():
        with showing_progress(quiet) as progress, progress.step("work", total=2) as bar:
            bar.advance()
            swallow()
            reached.append("after the signal")
            bar.advance() if sign == "advance" else progress.step("more")
            reached.append("the end")
            return 0

    assert answer(work, again="bertft study x.yaml", smaller="") == 130
    assert reached == ["after the signal"]
    assert capsys.readouterr().err.endswith("To resume: bertft study x.yaml\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interruption_is_raised_again_once_and_not_by_the_next_command():
    with listening():
        swallow()
        with pytest.raises(KeyboardInterrupt):
            raise_again()
        raise_again()
        swallow()
    with listening():
        raise_again()


def test_another_handler_stays():
    def own(number, frame):
        raise AssertionError

    signal.signal(signal.SIGINT, own)
    with listening():
        assert signal.getsignal(signal.SIGINT) is own
    assert signal.getsignal(signal.SIGINT) is own


def test_an_interruption_of_the_imports_is_one_line():
    code = (
        "import signal, sys; from bertft.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Cut:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Cut())\n"
        "main.main(['--help'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.strip()) == (130, "interrupted before the work began")
