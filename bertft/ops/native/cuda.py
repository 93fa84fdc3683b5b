"""Building, caching and loading of the CUDA kernels.

They follow the rules of the CPU kernels (`bertft.ops.native.cpu`). They are compiled at first use on a CUDA tensor, if
torch was built for CUDA and a toolkit of its major version is found: ``$CUDA_HOME`` or ``$CUDA_PATH``, ``nvcc`` on the
path, ``/usr/local/cuda``, or the PyPI packages nvidia-cuda-nvcc, nvidia-cuda-crt, nvidia-nvvm, nvidia-cuda-runtime and
nvidia-cuda-cccl. Otherwise `status` gives the reason in a sentence, one warning repeats it, and the plain PyTorch of
`bertft.ops.reference` is used on the GPU.

Environment:
    TORCH_CUDA_ARCH_LIST   architectures, such as ``8.0;9.0+PTX``; default: those of the visible GPUs, and 8.0, 9.0,
                           10.0 and PTX when none is visible
    BERTFT_CORE            ``split`` takes float16 tensor cores for float32 products wherever they can serve, ``plain``
                           never does; default: where a card's are fast enough (docs/gpu.md)
    BERTFT_TILE            ``wide`` multiplies on tensor cores by tiles of 128 x 256 rows instead of 128 x 128, where a
                           card's shared memory holds them: for distances and RSA, to the same bits (docs/gpu.md)
    BERTFT_KERNELS, BERTFT_CACHE, CXX, CXXFLAGS, MAX_JOBS   as in `bertft.ops.native.cpu`
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from bertft.errors import BertftError
from bertft.ops.native import build, cpu
from bertft.ops.native.build import BuildError
from bertft.ops.native.loader import Loader, load_ops

NOBODY_VISIBLE = "8.0;9.0;10.0+PTX"
NVCC_FLAGS = [
    *("-std=c++20", "-O3", "--expt-relaxed-constexpr", "--threads", "2", "-Xcompiler", "-fPIC,-fvisibility=hidden"),
    # torch builds extensions with these defines
    *("-D__CUDA_NO_HALF_OPERATORS__", "-D__CUDA_NO_HALF_CONVERSIONS__"),
    *("-D__CUDA_NO_BFLOAT16_CONVERSIONS__", "-D__CUDA_NO_HALF2_OPERATORS__"),
]


# Inputs of a build -----------------------------------------------------------------------------------------------

LONGEST = ("pairwise_distance", "rdm_correlation", "split_gram")  # to compile: 22, 14 and 9 of 75 CPU seconds


def sources(root: Path) -> list[Path]:
    """Return the files of the CUDA library, headers included, in a fixed order."""
    own = [*root.glob("bind_cuda*"), *(file for name in build.SHARED for file in root.glob(name)), root / "gpu.h"]
    return sorted([*own, *root.glob("cuda/*.cu"), *root.glob("cuda/*.cuh")])


def _toolkit_candidates() -> Iterator[Path]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if folder := os.environ.get(name):
            yield Path(folder)
            return  # no other toolkit than the one asked for
    if nvcc := shutil.which("nvcc"):
        yield Path(nvcc).resolve().parent.parent
    yield Path("/usr/local/cuda")
    yield from sorted(Path("/usr/local").glob("cuda-*"), reverse=True)
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        yield from sorted(Path(folder).glob("cu*"), reverse=True)


def find_toolkit(major: str) -> Path:
    """Return the folder of a CUDA toolkit of version ``major``.

    A folder counts if it has bin/nvcc, include/cuda_runtime.h and the runtime library, because an ``nvcc`` on the path
    may be a script that calls the real one.
    """
    seen: list[str] = []
    for folder in dict.fromkeys(_toolkit_candidates()):
        nvcc = folder / "bin" / "nvcc"
        if not (nvcc.is_file() and (folder / "include" / "cuda_runtime.h").is_file()):
            continue
        version = nvcc_version(str(nvcc))
        if version.split(".")[0] != major:
            seen.append(f"{folder} is CUDA {version}")
        elif runtime_library(folder) is None:
            seen.append(f"{folder} has no libcudart.so")
        else:
            return folder
    found = (
        f" ({'; '.join(seen)})" if seen else " (CUDA_HOME, nvcc on the path, /usr/local/cuda, PyPI's nvidia-cuda-nvcc)"
    )
    raise BuildError(f"there is no CUDA {major} toolkit to compile with{found}")


@functools.cache
def nvcc_version(nvcc: str) -> str:
    """Return the version of a compiler, such as 13.0, or ``unknown`` if it does not run."""
    try:
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found[1] if (found := re.search(r"release (\d+\.\d+)", text)) else "unknown"


def runtime_library(toolkit: Path) -> Path | None:
    """Return the toolkit's libcudart.so with any suffix, because PyPI's packages lack the plain name."""
    for folder in ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"):
        if found := sorted((toolkit / folder).glob("libcudart.so*")):
            return found[0]
    return None


def architectures() -> list[str]:
    """Return the -gencode flags of nvcc for ``TORCH_CUDA_ARCH_LIST``, the visible GPUs, or `NOBODY_VISIBLE`."""
    import torch

    asked = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(",", ";").replace(" ", ";")
    if not asked.strip(";"):
        found = sorted({torch.cuda.get_device_capability(k) for k in range(torch.cuda.device_count())})
        asked = ";".join(f"{major}.{minor}" for major, minor in found) or NOBODY_VISIBLE
    flags = []
    for entry in filter(None, asked.split(";")):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", entry)
        if match is None:
            raise BuildError(f"TORCH_CUDA_ARCH_LIST contains {entry!r}; it must be numbers such as 8.0;9.0+PTX")
        number = "".join(match.group(1, 2, 3))
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match[4]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def build_key(root: Path, toolkit: Path, compiler: str, flags: list[str]) -> str:
    """Return the library's hex key, which changes with sources, torch, toolkit, compiler and flags only."""
    import torch

    stat = (toolkit / "bin" / "nvcc").stat()
    parts = [build.digest(sources(root), root), torch.__version__, str(Path(torch.__file__).parent), compiler]
    parts += [f"{toolkit} {stat.st_size} {stat.st_mtime_ns}", *flags, *_host_flags()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _host_flags() -> list[str]:
    return [flag for flag in build.compile_flags() if not flag.startswith(("-march", "-mcpu"))] + ["-DUSE_CUDA"]


# Building and loading --------------------------------------------------------------------------------------------


def write_ninja(folder: Path, root: Path, compiler: str, toolkit: Path, flags: list[str], output: Path) -> None:
    """Write ``folder/build.ninja``, which builds ``output``.

    nvcc compiles every kernel file, and ``compiler`` compiles and links the binding.
    """
    import torch

    home, runtime = Path(torch.__file__).parent, runtime_library(toolkit)
    assert runtime is not None, f"{toolkit}: no libcudart"  # find_toolkit chooses none without it
    quote = build.ninja_command
    device = quote(toolkit / "bin" / "nvcc", *NVCC_FLAGS, *flags, "-ccbin", compiler.split()[0], f"-I{root}")
    host = quote(*compiler.split(), *_host_flags(), "-isystem", home / "include")
    link = quote(
        *("-shared", f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}", f"-Wl,-rpath,{runtime.parent}"),
        *("-ltorch_cuda", "-ltorch_cpu", "-ltorch", "-lc10_cuda", "-lc10", runtime),
    )
    lines = [
        *("rule device", f"  command = {device} -MD -MF $out.d -c $in -o $out", "  depfile = $out.d", "  deps = gcc"),
        *("rule host", f"  command = {host} -MD -MF $out.d -c $in -o $out", "  depfile = $out.d", "  deps = gcc"),
        *("rule link", f"  command = {quote(*compiler.split())} $in {link} -o $out"),
    ]
    objects = []
    # ninja starts in this order: the files that take longest first, so that none of them is left for the end
    units = [file for file in sources(root) if file.suffix in (".cu", ".cpp")]
    for file in sorted(units, key=lambda file: file.stem not in LONGEST):
        objects.append(f"{file.stem}.o")
        lines.append(f"build {objects[-1]}: {'device' if file.suffix == '.cu' else 'host'} {build.ninja_path(file)}")
    lines.append(f"build {build.ninja_path(output)}: link {' '.join(objects)}")
    (folder / "build.ninja").write_text("\n".join(lines) + "\n", encoding="utf-8")


def find_or_build() -> tuple[Path, dict[str, object]]:
    """Return the library to load, compiled if need be, and entries of `status`; raise BuildError. Loads nothing."""
    import torch

    if torch.version.cuda is None:
        raise BuildError("this torch is built for the CPU only")
    root, compiler = build.source_root(), build.find_compiler()
    toolkit, flags = find_toolkit(torch.version.cuda.split(".")[0]), architectures()
    key = build_key(root, toolkit, compiler, flags)
    found: dict[str, object] = {"toolkit": str(toolkit), "architectures": " ".join(flags), "key": key}
    library = build.cache_folder() / f"bertft_cuda-{key}.so"
    found["reason"] = "found in the cache" if library.is_file() else "compiled at first use"
    library = build.build_once(
        library, lambda folder, output: write_ninja(folder, root, compiler, toolkit, flags, output)
    )
    return library, found


def on_load(hook: Callable[[], None]) -> None:
    """Call ``hook`` once the GPU's own ops exist: at once, or when `load` first succeeds."""
    _kernels.on_load(hook)


def load() -> bool:
    """Return whether the compiled CUDA kernels are in use; the first call finds or compiles, and loads them.

    If that fails, one RuntimeWarning gives the reason (none with ``BERTFT_KERNELS=reference``).
    """
    return _kernels.load()


load._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _load() -> dict[str, object]:
    if not cpu.load():  # it defines the ops' schemas, and has warned with its reason
        return {"loaded": False, "reason": "the CPU kernels, which define the ops, are not in use"}
    started = time.perf_counter()
    try:
        library, found = find_or_build()
        load_ops(library)
    except BuildError as error:
        if os.environ.get("BERTFT_KERNELS") == "compiled":
            raise BertftError(f"BERTFT_KERNELS=compiled, but {error}") from error
        warnings.warn(f"bertft runs on plain PyTorch on the GPU, slower: {error}", RuntimeWarning, stacklevel=5)
        return {"loaded": False, "reason": str(error)}
    return found | {"loaded": True, "library": str(library), "seconds": time.perf_counter() - started}


def status() -> dict[str, object]:
    """Return whether the CUDA kernels are or would be in use, and why not; compiles nothing.

    Keys: ``loaded`` and ``reason``; with kernels in use or ready to be compiled also ``toolkit``, ``architectures``.
    """
    import torch

    if _kernels.state is not None:
        return dict(_kernels.state)
    if torch.version.cuda is None:
        return {"loaded": False, "reason": "this torch is built for the CPU only"}
    try:
        found = {
            "toolkit": str(find_toolkit(torch.version.cuda.split(".")[0])),
            "architectures": " ".join(architectures()),
        }
    except BuildError as error:
        return {"loaded": False, "reason": str(error)}
    if not torch.cuda.is_available():
        return found | {"loaded": False, "reason": "no GPU is visible"}
    return found | {"loaded": False, "reason": "compiled at first use on a GPU"}


_kernels = Loader(_load)
