"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from bertft.runs.files import appearing_file, appearing_folder, sweep_unfinished, write_text_atomically


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(tmp_path / "a.txt", "\ud800")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_text_atomically(tmp_path / "folder", "a folder is in the way")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "made" / "table.csv"
    write_text_atomically(path, "old")
    with pytest.raises(KeyError), appearing_file(path) as file:
        file.write(b"half of the new")
        raise KeyError
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["table.csv"]
    with appearing_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_file_gets_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text_atomically(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_appears_whole_and_leftovers_of_a_killed_writer_are_replaced(tmp_path):
    (tmp_path / ".model.part").mkdir()
    (tmp_path / ".model.part" / "left").touch()
    with pytest.raises(KeyError), appearing_folder(tmp_path / "model") as fresh:
        assert not fresh.exists()
        fresh.mkdir()
        raise KeyError
    assert not list(tmp_path.iterdir())
    with appearing_folder(tmp_path / "model") as fresh:
        fresh.mkdir()
        (fresh / "weights").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["model"] and (tmp_path / "model" / "weights").exists()


def test_the_sweep_removes_unfinished_files_and_folders_only(tmp_path):
    for name in (".table.csv.x1.part", "deep/.model.part/weights", "deep/kept.part", "deep/.kept"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sweep_unfinished(tmp_path)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["deep/.kept", "deep/kept.part"]
