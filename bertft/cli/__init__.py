"""``bertft <command>``: the one place that prints, and the one place that turns errors into exit codes.

0 done; 2 bad input, one line ``error: ...``; 130 interrupted, one line that says what to type to go on.
"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Sequence

INTERRUPTED = 130
BAD_INPUT = 2

# What memory and disks that are full are called by torch, NumPy, CUDA, safetensors and the system.
_NO_MEMORY = ("outofmemoryerror", "out of memory", "can't allocate memory", "cannot allocate memory")
_NO_SPACE = ("no space left on device", "disk quota exceeded", "file too large")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    import typer

    from bertft.cli.commands import app
    from bertft.errors import BertftError

    quiet_libraries()
    command = typer.main.get_command(app)
    try:
        with warnings.catch_warnings():
            _show_own_warnings()
            code = command.main(args=arguments, prog_name="bertft", standalone_mode=False)
    except BertftError as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.strerror is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    except Exception as error:
        if (sentence := _exhausted(error)) is not None:
            return _fail(sentence)
        if not hasattr(error, "format_message"):  # typer's usage errors have it, in every version
            raise
        asked = " ".join(["bertft", *_named(command, arguments)])
        return _fail(f"{error.format_message()} (see `{asked} --help`)")
    if code == INTERRUPTED:
        again = shlex.join(["bertft", *arguments])
        print(f"\ninterrupted: what was finished is kept; to go on, type: {again}", file=sys.stderr)
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def quiet_libraries() -> None:
    """Ask the libraries below for silence, unless the user's environment asks for something else."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def _show_own_warnings() -> None:
    """Only bertft's warnings reach the user, as one line each."""

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"bertft(\..*)?")
    warnings.showwarning = show  # catch_warnings puts the old one back


def _named(command: object, arguments: Sequence[str]) -> list[str]:
    """The leading arguments that name a command there is: ``["probe", "structural"]``."""
    found: list[str] = []
    for word in arguments:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        found.append(word)
    return found


def _exhausted(error: Exception) -> str | None:
    """One sentence for an error that means memory or a disk is full, or None; libraries raise it as many types."""
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        return (
            "out of memory: give the run less at a time (a smaller --batch-size, --tokens, --sample or --max-train), "
            "or more memory; what was finished is kept, and the same command goes on"
        )
    if any(sign in text for sign in _NO_SPACE):
        return f"no space left on the disk ({error}); make room, then the same command goes on"
    return None


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT
