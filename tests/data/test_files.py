"""Corpus files: compression, encoding, line ends and errors."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bertft.data.files import check_text, parse_json, read_lines
from bertft.data.readers.text import read_text
from bertft.errors import BertftError


def test_only_newline_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028still one\x0b\x85\r\ntwo\n\nlast".encode())
    assert list(read_lines(path)) == [(1, "one\u2028still one\x0b\x85"), (2, "two"), (3, ""), (4, "last")]


def test_gzip_is_detected_from_the_first_bytes(tmp_path: Path) -> None:
    for name in ("a.txt.gz", "a.txt"):
        (tmp_path / name).write_bytes(gzip.compress(b"one\ntwo\n"))
        assert list(read_lines(tmp_path / name)) == [(1, "one"), (2, "two")]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BertftError, match=r"nope\.txt: no such file$"):
        list(read_lines(tmp_path / "nope.txt"))
    with pytest.raises(BertftError, match="expected a file, found a folder"):
        list(read_lines(tmp_path))
    with pytest.raises(BertftError, match="cannot be read"):
        list(read_lines("a\0b"))


def test_truncated_gzip_names_the_line(tmp_path: Path) -> None:
    lines = "".join(f"{i} {i * 7919 % 104729}\n" for i in range(5000)).encode()
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(lines)[:-2000])
    seen = []
    with pytest.raises(BertftError, match=r"a\.txt\.gz: line \d+: the gzip file is truncated") as error:
        seen.extend(read_lines(path))
    assert f"line {len(seen) + 1}:" in str(error.value) or len(seen) == 0
    path.write_bytes(b"")
    with pytest.raises(BertftError, match="line 1: the gzip file is truncated"):
        list(read_lines(path))


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    data = bytearray(gzip.compress(b"one\ntwo\n" * 100))
    data[20] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(BertftError, match=r"a\.txt\.gz: line 1: the gzip file is (damaged|truncated)"):
        list(read_lines(path))
    path.write_text("plain\n")
    with pytest.raises(BertftError, match="expected a gzip file, as its name says"):
        list(read_lines(path))


def test_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(BertftError, match=r"a\.txt: line 2: not UTF-8, found byte 0xe9 at byte 4"):
        read_text(path)


def test_json_errors_name_line_and_column() -> None:
    assert parse_json('{"a": 1}', "f") == {"a": 1}
    with pytest.raises(BertftError, match=r"f: line 8: not valid JSON at column 7"):
        parse_json('{"a": ', "f", 8)
    with pytest.raises(BertftError, match=r"f: line 2: not valid JSON at column 1"):
        parse_json('{"a":\n', "f")
    with pytest.raises(BertftError, match="not usable JSON"):
        parse_json("[" * 200_000, "f")
    with pytest.raises(BertftError, match="not usable JSON"):
        parse_json("9" * 10_000, "f")


def test_check_text_refuses_half_characters() -> None:
    assert check_text("é", "text", "f") == "é"
    with pytest.raises(BertftError, match=r"f: text contains half a character \('\\ud800'\) at offset 1"):
        check_text("a\ud800", "text", "f")
    with pytest.raises(BertftError, match="f: expected a string as text, found nothing"):
        check_text(None, "text", "f")


def test_lines_of_text_are_stripped_and_empty_ones_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n  one \n\t\ntwo\n")
    assert [(t.id, t.text) for t in read_text(path)] == [("2", "one"), ("4", "two")]
    path.write_text("\n \n")
    with pytest.raises(BertftError, match="expected lines of text, found none"):
        read_text(path)


def test_the_home_of_an_unknown_user_is_not_expanded(monkeypatch, tmp_path, tiny_model):
    from bertft.data.location import at_home, pin
    from bertft.data.sources import load
    from bertft.data.streams import stream
    from bertft.models.loading import load_pretrained
    from bertft.models.names import is_adapter
    from bertft.study.reader import resolve_source

    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home("~/x") == tmp_path / "x" and at_home("a/~") == Path("a/~")
    name = "~no-such-user/x"
    assert at_home(name) == Path(name) and at_home("~a\0") == Path("~a\0")
    assert pin(name) == name and not is_adapter(name)
    for use in (
        lambda: load("text", name),
        lambda: stream("text", name),
        lambda: load_pretrained(name),
        lambda: resolve_source(name, tmp_path, "study.yaml: dev"),
    ):
        with pytest.raises(BertftError, match="no such"):
            use()
