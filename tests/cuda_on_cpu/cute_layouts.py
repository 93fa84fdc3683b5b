"""CUTLASS's own tables of tensor-core fragments.

They are read from the headers of the PyPI package ``nvidia-cutlass``.

A CuTe layout maps coordinates to an index by nested shapes and strides; (thread, value) coordinates are counted with
the leftmost mode fastest, as the header's ``Layout<Shape<...>, Stride<...>>`` writes them.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

Nested = int | tuple["Nested", ...]


def headers() -> Path | None:
    """Return the folder of CuTe's headers, or None if the package is not installed."""
    spec = importlib.util.find_spec("cutlass_library")  # found, not imported: it needs more packages than its headers
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "source" / "include" / "cute" / "atom"
    return folder if folder.is_dir() else None


class Layout:
    """A map from (thread, value) to an index."""

    def __init__(self, shape: Nested, stride: Nested):
        (self.thread_shape, self.value_shape), (self.thread_stride, self.value_stride) = shape, stride
        self.values = _size(self.value_shape)

    def __call__(self, thread: int, value: int) -> int:
        return _index(thread, self.thread_shape, self.thread_stride) + _index(
            value, self.value_shape, self.value_stride
        )


def traits(header: str, struct: str) -> dict[str, Layout]:
    """Return the layouts (ALayout and so on, SrcLayout, DstLayout) of a ``MMA_Traits`` or ``Copy_Traits`` struct."""
    text = re.sub(r"//.*", "", (headers() / header).read_text(encoding="utf-8"))
    named = {m[1]: m[2] for m in re.finditer(r"^using (\w+)\s*=\s*(Layout<.*?);", text, flags=re.DOTALL | re.MULTILINE)}
    wanted, found = struct, {}
    while wanted:
        match = re.search(rf"struct \w+_Traits<{wanted}>\s*(?::\s*\w+_Traits<(\w+)>\s*)?\{{(.*?)\}};", text, re.DOTALL)
        for name, value in re.findall(r"using (\w+Layout)\s*=\s*(.*?);", match[2], flags=re.DOTALL):
            found.setdefault(name, value)
        wanted = match[1]
    return {name: _parse(named.get(value.strip(), value)) for name, value in found.items() if value != "DstLayout"}


def _parse(text: str) -> Layout:
    """``Layout<Shape<Shape<_4,_8>,_2>, Stride<Stride<_8,_1>,_32>>`` -> Layout."""
    literal = re.sub(r"(Layout|Shape|Stride)\s*<", "(", re.sub(r"\s+", "", text)).replace(">", ")").replace("_", "")
    if not re.fullmatch(r"[\d(),]+", literal):
        raise ValueError(f"not a layout of constants: {text}")
    numbers = iter(re.findall(r"\d+|[()]", literal))

    def group() -> tuple[Nested, ...]:
        items: list[Nested] = []
        for token in numbers:
            if token == ")":
                break
            items.append(group() if token == "(" else int(token))
        return tuple(items)

    next(numbers)
    shape, stride = group()
    return Layout(shape, stride)


def _size(shape: Nested) -> int:
    if isinstance(shape, int):
        return shape
    total = 1
    for part in shape:
        total *= _size(part)
    return total


def _index(coordinate: int, shape: Nested, stride: Nested) -> int:
    if isinstance(shape, int):
        return coordinate * stride
    index = 0
    for part, step in zip(shape, stride, strict=True):
        index += _index(coordinate % _size(part), part, step)
        coordinate //= _size(part)
    return index
