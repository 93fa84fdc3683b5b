"""Entry point of ``bertft``: errors become exit codes.

0: done. 2: bad input or a full machine, reported on one line, ``error: ...``. 130: interrupted, reported with the
command that resumes. With ``--json`` the sentence also goes to stdout, as ``{"error": ...}``.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from bertft.cli.interrupts import listening
from bertft.errors import BertftError, lacks_memory, lacks_space

INTERRUPTED = 130
BAD_INPUT = 2

# torch.save hides the OSError; match its text.
_NOT_WRITTEN = ("pytorchstreamwriter failed", "unexpected pos ", "basic_ios::clear")
# Options that memory grows with.
_SMALLER = ("--batch-size", "--rank", "--sample", "--tokens", "--max-train")
_SMALLER_STUDY = "--set and a smaller batch_size or max_train of a task, rsa.tokens or probes.rank"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    try:
        code = run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:  # while the libraries are imported
        print("\ninterrupted before the work began", file=sys.stderr)
        code = INTERRUPTED
    if code == INTERRUPTED:
        # Python ends by the signal instead of this code if the interrupt met a string that was being executed, as the
        # import of a dataclass does, although the interrupt was handled.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    import typer

    from bertft.cli.app import app

    quiet_libraries(bars=sys.stderr.isatty() and not {"--quiet", "-q"} & set(arguments))
    command = typer.main.get_command(app)
    names, chosen = _named(command, arguments)

    def work() -> int:
        try:
            code = command.main(args=arguments, prog_name="bertft", standalone_mode=False)
        except typer.Abort:
            raise KeyboardInterrupt from None
        except Exception as error:
            if not hasattr(error, "format_message"):  # typer's usage errors have it, in every version
                raise
            found = _found(error, arguments)
            raise BertftError(
                f"{error.format_message()}{found} (see `{' '.join(['bertft', *names])} --help`)"
            ) from None
        return code if isinstance(code, int) else 0

    again = shlex.join(["bertft", *arguments])
    return answer(work, again=again, smaller=_smaller(chosen), as_json="--json" in arguments)


def _found(error: Any, arguments: Sequence[str]) -> str:
    """Return ``, found VALUE`` for a refused option whose message does not quote the value."""
    names = getattr(getattr(error, "param", None), "opts", ())
    pairs = itertools.chain(itertools.pairwise(arguments), (word.split("=", 1) for word in arguments if "=" in word))
    values = [value for name, value in pairs if name in names]
    return f", found {values[-1]!r}" if values and values[-1] not in error.format_message() else ""


def answer(work: Callable[[], int], *, again: str, smaller: str, as_json: bool = False) -> int:
    """Return the exit code of ``work``; report errors of the user or the machine on one line of stderr, raise others.

    Args:
        work: does the work and returns an exit code.
        again: the command that resumes after an interruption.
        smaller: options that need less memory, or "".
        as_json: whether to print the report on stdout as well, as JSON.
    """
    try:
        with listening(), warnings.catch_warnings():
            _show_own_warnings()
            code = work()
    except BertftError as error:
        return _fail(str(error), as_json)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        sentence = _exhausted(error, smaller)
        if sentence is None and isinstance(error, OSError) and error.strerror is not None:
            sentence = _of_system(error)
        if sentence is None:
            raise
        return _fail(sentence, as_json)
    if code == INTERRUPTED:
        sentence = f"interrupted; finished work is kept. To resume: {again}"
        print(f"\n{sentence}", file=sys.stderr)
        _print_json(sentence, as_json)
    return code


def quiet_libraries(*, bars: bool) -> None:
    """Silence the libraries, but show download ``bars`` if asked. Variables that are already set keep their value."""
    silent = {} if bars else {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    for name, value in {
        **silent,
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def _show_own_warnings() -> None:
    """Show only bertft's own warnings, each once and on one line."""
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        line = f"warning: {' '.join(str(message).split())}"
        if line not in shown:
            shown.add(line)
            print(line, file=sys.stderr)

    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"bertft(\..*)?")
    warnings.showwarning = show  # catch_warnings restores the old one


def _named(command: Any, arguments: Sequence[str]) -> tuple[list[str], Any]:
    """Return the leading arguments that name an existing command, ``["probe", "structural"]``, and that command."""
    found: list[str] = []
    for word in arguments:
        inner = getattr(command, "commands", {}).get(word)
        if inner is None:
            break
        command = inner
        found.append(word)
    return found, command


def _smaller(command: Any) -> str:
    """Return the options of a command that need less memory when smaller, as a phrase, or ""."""
    options = {option for param in command.params for option in param.opts}
    if "--set" in options:
        return _SMALLER_STUDY
    found = [option for option in _SMALLER if option in options]
    return f"a smaller {' or '.join(found)}" if found else ""


def _exhausted(error: Exception, smaller: str) -> str | None:
    """Return one sentence for an error that means exhausted memory or disk, else None."""
    if lacks_memory(error):
        less = f" Or start a new run with {smaller}." if smaller else ""
        return f"out of memory; finished work is kept. Rerun with more memory to resume.{less}"
    if lacks_space(error):
        return _full(_of_system(error) if isinstance(error, OSError) and error.strerror is not None else str(error))
    if any(sign in str(error).lower() for sign in _NOT_WRITTEN):
        return _full("torch.save could not finish writing a file")
    return None


def _of_system(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _full(reason: str) -> str:
    return f"no space left on the disk, or file too large ({reason}); free some space, then rerun the command"


def _fail(message: str, as_json: bool) -> int:
    sentence = " ".join(message.split())
    print(f"error: {sentence}", file=sys.stderr)
    _print_json(sentence, as_json)
    return BAD_INPUT


def _print_json(sentence: str, wanted: bool) -> None:
    if wanted:
        print(json.dumps({"error": sentence}, ensure_ascii=False))
