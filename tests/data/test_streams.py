"""Streams of examples, against readers of whole sources."""

from __future__ import annotations

import gzip

import datasets
import pytest

from bertft.data.sources import load
from bertft.data.streams import stream
from bertft.errors import BertftError

LINES = ["One sentence.", "", "  Another one. ", "A third."]


def test_a_file_is_read_line_by_line_like_the_reader(tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(LINES), encoding="utf8")
    with gzip.open(tmp_path / "t.txt.gz", "wt", encoding="utf8") as file:
        file.write("\n".join(LINES))
    for name in ("t.txt", "t.txt.gz"):
        source = stream("text", tmp_path / name)
        assert list(source) == list(source) == load("text", tmp_path / name)


def test_a_folder_is_its_files_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("last", encoding="utf8")
    (tmp_path / "a.txt").write_text("first\nsecond", encoding="utf8")
    (tmp_path / "notes.md").write_text("not text", encoding="utf8")
    assert [text.text for text in stream("text", tmp_path)] == ["first", "second", "last"]


def test_a_saved_data_set_and_trees_are_streamed(tmp_path):
    datasets.Dataset.from_dict({"text": ["a b", "", "c"]}).save_to_disk(str(tmp_path / "saved"))
    source = stream("text", tmp_path / "saved")
    assert [text.text for text in source] == ["a b", "c"] and source.count == 3
    assert list(stream("dep", "builtin:synthetic?size=5")) == load("dep", "builtin:synthetic?size=5")


def test_a_data_set_of_the_hub_is_read_in_streaming_mode(monkeypatch):
    asked = {}

    def load_dataset(name, config, split, revision, streaming):
        asked.update(name=name, config=config, split=split, revision=revision, streaming=streaming)
        return datasets.IterableDataset.from_generator(lambda: ({"text": f"line {i}"} for i in range(3)))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("bertft.data.location.hub_within_reach", lambda: True)
    texts = [text.text for text in stream("text", "some/corpus@v1:en", split="train")]
    assert texts == ["line 0", "line 1", "line 2"]
    assert asked == {"name": "some/corpus", "config": "en", "split": "train", "revision": "v1", "streaming": True}


def test_the_digest_follows_the_source(tmp_path):
    (tmp_path / "t.txt").write_text("one", encoding="utf8")
    before = stream("text", tmp_path / "t.txt").digest
    assert stream("text", tmp_path / "t.txt").digest == before
    (tmp_path / "t.txt").write_text("two", encoding="utf8")
    assert stream("text", tmp_path / "t.txt").digest != before


def test_a_bad_source_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n", encoding="utf8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BertftError, match="no such file"):
        stream("text", tmp_path / "absent.txt")
    with pytest.raises(BertftError, match="found none"):
        list(stream("text", tmp_path / "empty.txt"))
    with pytest.raises(BertftError, match="a folder of"):
        stream("text", tmp_path / "folder")
    with pytest.raises(BertftError, match="not available as a hub data set"):
        stream("text", "no/such")
