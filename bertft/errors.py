"""User errors: one sentence with the problem and its place."""

from __future__ import annotations

import errno
from dataclasses import dataclass

# Substrings by which torch, NumPy, CUDA, safetensors and the system report exhausted memory or disk.
_NO_MEMORY = ("outofmemoryerror", "out of memory", "can't allocate memory", "cannot allocate memory")
_NO_SPACE = ("no space left on device", "disk quota exceeded", "file too large")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BertftError(Exception):
    """Bad input or an impossible request.

    The message is one sentence that names the file and line, or the argument, the expected value and the
    value found. The command line prints it after ``error:`` and exits with code 2; nothing is left half-written.
    """


_REASONS = {
    "not_finite": "holds NaN or infinity",
    "no_norm": "has norm 0, so its cosine or correlation is undefined",
}


@dataclass(eq=False)
class BadRow(BertftError):
    """A row of vectors that an op cannot take.

    Callers that know more about the row (its layer, text or encoder) replace fields or write their own sentence.

    Attributes:
        op: the function that refused the row.
        side: the argument that holds it, ``x`` or ``y``.
        row: its index within the layer.
        layer: index of the layer, None where the op takes a single one.
        reason: ``not_finite``, or ``no_norm`` under a metric that needs the row's direction.
    """

    op: str
    side: str
    row: int
    layer: int | None
    reason: str

    def __str__(self) -> str:
        layer = "" if self.layer is None else f" in layer {self.layer}"
        return f"{self.op}: row {self.row} of {self.side}{layer} {self.why}"

    @property
    def why(self) -> str:
        """The reason as the predicate of a sentence about the row."""
        return _REASONS[self.reason]


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error means that memory is exhausted; libraries raise it as many types."""
    return isinstance(error, MemoryError) or _says(error, _NO_MEMORY)


def lacks_space(error: BaseException) -> bool:
    """Return whether an error means that a disk is full, or that a file may not be so large."""
    return (isinstance(error, OSError) and error.errno in _FULL) or _says(error, _NO_SPACE)


def _says(error: BaseException, signs: tuple[str, ...]) -> bool:
    text = f"{type(error).__name__} {error}".lower()
    return any(sign in text for sign in signs)
