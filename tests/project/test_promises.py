"""Promises of `docs/promises.md`: no file elsewhere, no connection, and a page whose tests exist."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import matplotlib.figure  # noqa: F401  a library's own folder, which its import makes
import pytest
from documented import marks

from bertft.cli.main import run

TESTS = Path(__file__).parents[1]
ROWS = [
    line
    for line in (TESTS.parent / "docs" / "promises.md").read_text(encoding="utf8").splitlines()
    if line.startswith("| ") and "`" in line.rpartition(" | ")[2]
]
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`( \(slow\))?")
TEXT = ["--text", "builtin:synthetic?size=20", "--tokens", "60", "--quiet"]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CREATING = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.truncate", "shutil.copyfile")

written: list[str] | None = None  # an audit hook cannot be removed; without a list it does nothing


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if written is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes, os.PathLike)) and isinstance(flags, int) and flags & WRITING:
            written.append(os.fsdecode(path))
    elif event in CREATING:
        written.extend(os.fsdecode(path) for path in arguments if isinstance(path, (str, bytes, os.PathLike)))


sys.addaudithook(_watch)


def test_every_promise_names_tests_that_exist():
    assert len(ROWS) >= 20
    for row in ROWS:
        named = NAMED.findall(row)
        assert named, row
        for file, name, slow in named:
            assert any(mark.name == "slow" for mark in marks(file, name)) == bool(slow), f"{file}::{name}"


def test_a_command_writes_only_in_its_folder_and_the_cache(tiny_model, tmp_path, monkeypatch):
    global written
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python's own cache, where a module is imported here first
    written = []
    try:
        assert run(["rsa", "--base", str(tiny_model), "--tuned", f"same={tiny_model}", *TEXT, "--out", "run"]) == 0
    finally:
        found, written = written, None
    out, cache = tmp_path / "run", Path(os.environ.get("BERTFT_CACHE", Path.home() / ".cache"))
    places = [(tmp_path / path).resolve() for path in found]
    elsewhere = {place for place in places if not (place.is_relative_to(out) or place.is_relative_to(cache.resolve()))}
    assert elsewhere - {Path(os.devnull)} == set()
    assert out / "results.csv" in places


def test_offline_no_connection_is_opened(tiny_model, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(f"a connection is opened: {arguments}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(AssertionError):
        socket.create_connection(("localhost", 9))
    out = str(tmp_path / "run")
    assert run(["rsa", "--base", str(tiny_model), "--tuned", f"same={tiny_model}", *TEXT, "--out", out]) == 0
    assert run(["rsa", "--base", "no/such", "--tuned", f"same={tiny_model}", *TEXT, "--out", f"{out}2"]) == 2
