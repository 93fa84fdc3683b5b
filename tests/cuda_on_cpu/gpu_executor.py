"""Launchers of a .cu file on NumPy arrays, under a checker.

They run on the CPU.

>>> kernels = Kernels("csrc/cuda/pairwise_distance.cu", mode="checked")
>>> kernels.pairwise_distance_f32(x, n, d, Uninitialised(out), order="random", seed=3)    # doctest: +SKIP

Arguments follow the launcher's C parameters; a stream is supplied. Arrays are copied into separate, 256-byte aligned
buffers between guard zones (as cudaMalloc would place them) and back afterwards; ``const`` pointers are read-only.
A fault raises KernelError, which names kernel, block, thread, file and line.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gpu_build import CSRC, HERE, kernel_library, runtime

ORDERS = {"ascending": 0, "descending": 1, "random": 2}
GUARD = 512  # bytes on either side of an array; a multiple of ALIGNMENT
ALIGNMENT = 256
POISON = 0xFF  # NaN in every float format, -1 in every integer
SIXTEEN_BITS = {"float16": ("float16",), "bfloat16": ("bfloat16", "uint16", "int16")}


class KernelError(AssertionError):
    """A fault inside a kernel or its launch.

    Attributes: kernel, block, thread (triples or None), file, line (or None), problem (text), code (CUDA's number).
    """

    def __init__(self, problem, *, code, kernel=None, block=None, thread=None, file=None, line=None):
        self.problem, self.code, self.kernel, self.block, self.thread = problem, code, kernel, block, thread
        self.file, self.line = file, line
        place = [f"kernel {kernel}"] if kernel else []
        if thread is not None:
            place.append(f"block {_triple(block)} thread {_triple(thread)}")
        if file:
            place.append(f"{Path(file).name}:{line}")
        super().__init__(": ".join([", ".join(place), problem] if place else [problem]))


@dataclass
class Uninitialised:
    """An array whose contents the kernel may not read before some kernel of the call has written them."""

    array: np.ndarray


@dataclass
class Misaligned:
    """An array that starts ``elements`` elements after a 256-byte boundary."""

    array: np.ndarray
    elements: int = 1


@dataclass(frozen=True)
class Device:
    """Properties of the GPU that the launcher receives."""

    multiprocessors: int = 4
    compute_capability: int = 90
    shared_limit: int = 227 << 10


class _Copy:
    """An array's stand-in in "device memory"."""

    def __init__(self, array: np.ndarray, name: str, skew: int, uninitialised: bool):
        self.array, self.name, self.uninitialised, self.read_only = array, name, uninitialised, True
        self.memory = np.full(array.nbytes + 2 * GUARD + ALIGNMENT + skew, POISON, np.uint8)
        self.start = -self.memory.ctypes.data % ALIGNMENT + GUARD + skew
        self.bytes = self.memory[self.start : self.start + array.nbytes]
        if not uninitialised:
            self.bytes[:] = _bytes(array)
        self.given = self.bytes.copy()

    @property
    def address(self) -> int:
        return self.memory.ctypes.data + self.start

    def check(self) -> str | None:
        """Return the forbidden write of the kernel, or None."""
        before, after = self.memory[: self.start], self.memory[self.start + self.array.nbytes :]
        if (before != POISON).any() or (after != POISON).any():
            return f"OUT OF BOUNDS write beside '{self.name}' ({self.array.nbytes} bytes)"
        if self.read_only and not np.array_equal(self.bytes, self.given):
            return f"WRITE to read-only '{self.name}'"
        return None

    def give_back(self) -> None:
        if not self.read_only:
            _bytes(self.array)[:] = self.bytes


class Kernels:
    """The launchers of one .cu file as methods.

    ``source``: path, or a file name in csrc/cuda. ``mode``: "plain" (faster; wrong synchronisation shows as
    KernelError or as a wrong number), "checked" (every memory access is checked) or "counting" (every access is
    counted, see gpu_counters.py). ``defines``: -D macros.
    """

    def __init__(
        self,
        source: str | Path,
        mode: str = "checked",
        *,
        defines: Mapping[str, object] | None = None,
        device: Device | None = None,
    ):
        path = Path(source)
        if not path.exists():
            path = CSRC / "cuda" / path
        self.source, self.mode, self.device = path.resolve(), mode, device or Device()
        self.library = kernel_library(self.source, mode, defines)
        found = runtime().load(str(self.library))
        self.launchers = {
            name: (address, list(zip(names.split(","), types, strict=True)))
            for name, (address, types, names) in found.items()
        }
        self.switches = self.accesses = 0  # of the last call: fiber switches, checked accesses
        self.launches: list[dict] = []  # of the last call, in counting mode

    def __getattr__(self, name: str):
        if name.startswith("_") or name not in self.__dict__.get("launchers", {}):
            raise AttributeError(f"{self.__dict__.get('source', '?')} has no launcher {name!r}")
        return lambda *arguments, **options: self.call(name, *arguments, **options)

    def call(self, name: str, *arguments, order: str = "ascending", seed: int = 0) -> None:
        """Call launcher ``name`` with threads and blocks in ``order``; raise KernelError on any fault."""
        address, parameters = self.launchers[name]
        copies: list[_Copy] = []
        slots = _slots(name, parameters, arguments, copies)
        engine, device = runtime(), self.device
        limits = device.shared_limit, device.multiprocessors, device.compute_capability
        engine.configure(ORDERS[order], seed, *limits, self.mode == "counting")
        try:
            for copy in copies:
                engine.register_buffer(copy.address, copy.array.nbytes, copy.name, copy.read_only, copy.uninitialised)
            code = engine.call(address, slots)
        finally:
            engine.release_buffers()
        self.switches, self.accesses = engine.counts()
        self.launches = engine.launches()
        if (fault := engine.error()) is not None:
            raise _kernel_error(fault, name)
        if code:
            raise KernelError(f"launcher {name} returned {code}", code=code)
        for copy in copies:
            if problem := copy.check():
                raise KernelError(f"{name}: {problem}", code=719)
        for copy in copies:
            copy.give_back()


def _slots(launcher: str, parameters: list[tuple[str, str]], arguments: tuple, copies: list[_Copy]) -> list[int]:
    wanted = [text for _, text in parameters if text != "stream"]
    if len(arguments) != len(wanted):
        raise TypeError(f"{launcher} takes {len(wanted)} arguments ({', '.join(wanted)}), got {len(arguments)}")
    remaining = iter(arguments)
    return [
        0 if text == "stream" else _slot(f"{launcher}: {name}", name, text, next(remaining), copies)
        for name, text in parameters
    ]


def _slot(where: str, name: str, text: str, argument, copies: list[_Copy]) -> int:
    if not text.endswith("*"):
        if text == "unsupported":
            raise TypeError(f"{where}: the executor cannot pass this type")
        return int.from_bytes(np.asarray(argument, dtype=text).tobytes().ljust(8, b"\0"), "little")
    if argument is None:
        return 0
    skew, uninitialised = 0, isinstance(argument, Uninitialised)
    if isinstance(argument, Misaligned):
        skew = argument.elements * argument.array.itemsize
    array = argument.array if isinstance(argument, Uninitialised | Misaligned) else argument
    read_only, kind = text.startswith("const "), text.removeprefix("const ").removesuffix("*")
    if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
        raise TypeError(f"{where}: expected a C-contiguous NumPy array for {text}, got {type(array).__name__}")
    if kind not in ("void", "unsupported") and array.dtype.name not in SIXTEEN_BITS.get(kind, (kind,)):
        raise TypeError(f"{where}: expected {text}, got an array of {array.dtype}")
    place = (array.ctypes.data, array.nbytes)
    copy = next((c for c in copies if (c.array.ctypes.data, c.array.nbytes) == place), None)
    if copy is None:
        copies.append(copy := _Copy(array, name, skew, uninitialised))
    copy.read_only &= read_only
    return copy.address


def _kernel_error(fault: dict, launcher: str) -> KernelError:
    file, line = fault["file"], fault["line"]
    if fault["pc"] is not None:
        file, line = source_line(*fault["pc"])
    return KernelError(
        fault["message"],
        code=fault["code"],
        kernel=fault["kernel"] or launcher,
        block=fault["block"],
        thread=fault["thread"],
        file=file,
        line=line,
    )


def source_line(library: str, offset: int) -> tuple[str, int] | tuple[None, None]:
    """Return the innermost source line, outside the executor's headers, of the machine code before ``offset``."""
    command = ["addr2line", "-i", "-e", library, hex(offset - 1)]
    try:
        frames = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        return Path(library).name, offset
    for frame in frames:
        file, _, line = frame.split(" ")[0].rpartition(":")
        if line.isdigit() and not Path(file).is_relative_to(HERE / "device"):
            return file, int(line)
    return None, None


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _triple(v: tuple[int, int, int]) -> str:
    return "({},{},{})".format(*v)
