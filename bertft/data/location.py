"""Locations of sources and models: package, disk or hub.

`Source.parse` reads a name once; everything else about the name follows from the parsed `Source`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit
from urllib.request import getproxies

Kind = Literal["dataset", "model"]

_NAME = re.compile(
    r"(?P<id>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>(?!.*\.\.)\w[\w./-]*))?(?::(?P<config>.*))?", re.DOTALL
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUILTIN = "builtin:"
# A name with one of these suffixes is always a file, so that a mistyped path is not looked up on the hub.
_FILE_SUFFIXES = {".conllu", ".gz", ".json", ".jsonl", ".tsv", ".txt"}
# Files that a repository of each kind may hold. The path of one in the cache contains the commit.
_FILES: dict[Kind, tuple[str, ...]] = {"model": ("config.json", "adapter_config.json"), "dataset": ("README.md",)}


@dataclass(frozen=True)
class HubName:
    """A repository on the hub.

    ``revision`` is a branch, tag or commit (None: main), ``config`` the configuration of a data set.
    """

    id: str
    revision: str | None = None
    config: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return self.id + revision + (f":{self.config}" if self.config else "")


@dataclass(frozen=True)
class Source:
    """A parsed name of a corpus (``kind`` ``dataset``) or of a model.

    ``place`` is the location of the source:

    - ``builtin``: made by the package or installed beside it, ``builtin:name?key=value``;
    - ``folder``: an existing folder;
    - ``file``: an existing file, or anything that is neither an existing path nor a hub id;
    - ``hub``: a repository on the Hugging Face hub, whose name is `hub`.
    """

    text: str
    kind: Kind
    place: Literal["builtin", "folder", "file", "hub"]
    hub: HubName | None = None

    @classmethod
    def parse(cls, source: str | os.PathLike[str], kind: Kind = "dataset") -> Source:
        """Parse ``source``. An existing path always takes precedence over the hub; a path object is never a hub id."""
        text = os.fspath(source)
        if text.startswith(_BUILTIN):
            return cls(text, kind, "builtin")
        if "\0" in text:
            return cls(text, kind, "file")
        path = at_home(text)
        if path.is_dir():
            return cls(text, kind, "folder")
        is_file = path.exists() or (kind == "dataset" and path.suffix in _FILE_SUFFIXES)
        if is_file or not isinstance(source, str):
            return cls(text, kind, "file")
        hub = hub_name(text)
        return cls(text, kind, "file" if hub is None else "hub", hub)

    @property
    def path(self) -> Path:
        """The path of a file or a folder, with ``~`` expanded."""
        return at_home(self.text)

    def exists(self) -> bool:
        """Return whether the source is an existing file or folder."""
        return self.place in ("file", "folder") and "\0" not in self.text and self.path.exists()

    @property
    def builtin(self) -> str:
        """The name of built-in data or of a built-in model, without its options: ``builtin:synthetic``."""
        return self.text.partition("?")[0]

    @property
    def options(self) -> dict[str, str]:
        """The options of built-in data, which follow its name like the query of a URL."""
        return dict(parse_qsl(self.text.partition("?")[2], keep_blank_values=True))

    @property
    def encoder_name(self) -> str:
        """The name of an encoder in results: the last part of its path or hub id, without revision."""
        name = self.text if self.hub is None else str(dataclasses.replace(self.hub, revision=None))
        return Path(name).name.removeprefix(_BUILTIN)

    @property
    def data_name(self) -> str:
        """The name of a corpus in results: as `encoder_name`, without suffixes and options."""
        if self.place == "builtin":
            return self.builtin.removeprefix(_BUILTIN)
        return self.encoder_name.split(".")[0]

    def pinned(self) -> Source:
        """Return the source at the commit that its revision points to now; a local source is returned as it is."""
        if self.hub is None:
            return self
        hub = at_commit(self.hub, self.kind) if self.reachable() else self.hub
        return dataclasses.replace(self, text=str(hub), hub=hub)

    def cached(self) -> bool:
        """Return whether the repository was downloaded before."""
        return self.hub is not None and is_cached(self.hub.id, self.kind)

    def reachable(self) -> bool:
        """Return whether the repository can be opened: from the hub or from the cache."""
        return hub_within_reach() or self.cached()


def hub_name(text: str) -> HubName | None:
    """Parse ``id``, ``id@revision``, ``id:config`` or ``id@revision:config``; return None for anything else."""
    match = _NAME.fullmatch(text)
    return match and HubName(match["id"], match["revision"], match["config"] or None)


def hub_of(source: str | os.PathLike[str]) -> HubName | None:
    """Return the hub repository that a source or a model's name stands for, or None for a local one."""
    return Source.parse(source).hub


def encoder_name(source: str | os.PathLike[str]) -> str:
    """Return the name of an encoder in results: the last part of its path or hub id, without revision."""
    return Source.parse(source).encoder_name


def data_name(source: str | os.PathLike[str]) -> str:
    """Return the name of a corpus in results: as `encoder_name`, without suffixes and options.

    ``../data/wikipedia/sentences.txt.gz`` is ``sentences``, ``org/corpus@refs/convert/parquet`` is ``corpus``.
    """
    return Source.parse(source).data_name


def pin(source: str, kind: Kind = "dataset") -> str:
    """Return ``source``, with a hub repository's revision replaced by the commit that it points to now.

    A result stored under a pinned name cannot be mistaken for one of another commit after the branch has moved.
    """
    return Source.parse(source, kind).pinned().text


def at_commit(name: HubName, kind: Kind) -> HubName:
    """Return the repository at the commit that its revision points to now.

    The hub is asked, or its cache when offline. If neither knows the commit, ``name`` is returned unchanged, and
    the reader reports the reason.
    """
    if name.revision and _COMMIT.fullmatch(name.revision):
        return name
    with contextlib.suppress(Exception):  # network, hub and cache errors share no base class
        return dataclasses.replace(name, revision=_commit(name, kind))
    return name


def _commit(name: HubName, kind: Kind) -> str:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    for file in _FILES[kind]:
        with contextlib.suppress(EntryNotFoundError):
            found = huggingface_hub.hf_hub_download(name.id, file, repo_type=kind, revision=name.revision)
            return Path(found).parent.name  # .../snapshots/<commit>/<file>
    # a data set without a README
    return str(huggingface_hub.HfApi().repo_info(name.id, repo_type=kind, revision=name.revision).sha)


def hub_within_reach() -> bool:
    """Return whether the hub's host name resolves; without this check its client would retry for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():  # the proxy resolves names
        return True
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def is_cached(identifier: str, kind: Kind = "dataset") -> bool:
    """Return whether a repository was downloaded before. The cache holds data sets in two layouts; both are tried."""
    from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

    folders = [Path(HF_HUB_CACHE) / f"{kind}s--{identifier.replace('/', '--')}"]
    if kind == "dataset":
        prepared = os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME, "datasets")  # as `datasets` finds it
        folders.append(Path(prepared) / identifier.replace("/", "___"))
    return any(folder.is_dir() for folder in folders)


def at_home(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` with a leading ``~`` or ``~user`` expanded, or unchanged if there is no such user."""
    try:
        return Path(os.path.expanduser(path))  # Path.expanduser raises where there is no such user
    except ValueError:  # a NUL character, which no path holds
        return Path(path)
