"""The one kind of error a user can cause: a sentence that says what is wrong and where."""

from __future__ import annotations


class BertftError(Exception):
    """Bad input or an impossible request.

    The message is one sentence that names the file and line, or the argument, what was expected and what was
    found. The command line prints it after ``error:`` and exits with code 2; nothing is left half-written.
    """
