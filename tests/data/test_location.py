"""Parsed sources: the place of each name and its properties."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertft.data import location
from bertft.data.location import HubName, Source


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working folder with a file ``squad``, a folder ``org/saved`` and a file ``org/x.json``."""
    (tmp_path / "org" / "saved").mkdir(parents=True)
    (tmp_path / "org" / "x.json").touch()
    (tmp_path / "squad").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "place", "hub"),
    [
        ("builtin:synthetic?size=3", "builtin", None),
        ("squad", "file", None),
        ("~/squad", "file", None),
        ("org/saved", "folder", None),
        ("org/x.json", "file", None),
        ("org/missing.json", "file", None),
        ("/nope", "file", None),
        ("a\0b", "file", None),
        ("org/absent", "hub", HubName("org/absent")),
        ("org/data@v1:en", "hub", HubName("org/data", "v1", "en")),
    ],
)
def test_a_source_is_parsed_to_its_place(here, text, place, hub):
    source = Source.parse(text)
    assert (source.text, source.place, source.hub) == (text, place, hub)


def test_a_path_object_is_never_a_hub_id(here):
    assert Source.parse(Path("org/absent")).place == "file"


def test_a_file_suffix_does_not_hide_a_model(here):
    assert Source.parse("org/model.json").place == "file"
    assert Source.parse("org/model.json", "model").hub == HubName("org/model.json")


def test_builtin_options_are_parsed():
    source = Source.parse("builtin:synthetic?size=3&seed=")
    assert (source.builtin, source.options) == ("builtin:synthetic", {"size": "3", "seed": ""})
    assert Source.parse("builtin:synthetic").options == {}


def test_only_existing_paths_exist(here):
    names = ("squad", "org/saved", "/nope", "a\0b", "org/absent", "builtin:synthetic")
    assert [name for name in names if Source.parse(name).exists()] == ["squad", "org/saved"]


def test_an_unreachable_repository_keeps_its_revision(here, monkeypatch):
    monkeypatch.setattr(location, "at_commit", lambda hub, kind: HubName(hub.id, "0" * 40, hub.config))
    monkeypatch.setattr(location, "hub_within_reach", lambda: False)
    monkeypatch.setattr(location, "is_cached", lambda identifier, kind: False)
    source = Source.parse("org/data@v1:en")
    assert not source.reachable() and source.pinned() == source
    monkeypatch.setattr(location, "is_cached", lambda identifier, kind: (identifier, kind) == ("org/data", "dataset"))
    pinned = source.pinned()
    assert (pinned.text, str(pinned.hub)) == (f"org/data@{'0' * 40}:en",) * 2


@pytest.mark.parametrize("text", ["squad", "builtin:synthetic", "org/saved", "a\0b"])
def test_a_local_source_is_its_own_pin(here, text, monkeypatch):
    monkeypatch.setattr(location, "hub_within_reach", lambda: pytest.fail("asked the hub"))
    assert Source.parse(text).pinned() == Source.parse(text)
