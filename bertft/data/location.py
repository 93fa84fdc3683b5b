"""Repositories on the Hugging Face hub by name: ``org/name``, pinned as ``org/name@revision``."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(
    r"(?P<id>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>(?!.*\.\.)\w[\w./-]*))?(?::(?P<config>.*))?", re.DOTALL
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# A file at the top of a repository of each kind, whose place in the cache tells the commit.
_FILES = {"model": "config.json", "dataset": "README.md"}


@dataclass(frozen=True)
class HubName:
    """A repository, the branch, tag or commit of it (None: main), and of a data set the configuration."""

    id: str
    revision: str | None = None
    config: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return self.id + revision + (f":{self.config}" if self.config else "")


def hub_name(text: str) -> HubName | None:
    """``id``, ``id@revision``, ``id:config`` or ``id@revision:config`` taken apart; None for what is none of them."""
    found = _NAME.fullmatch(text)
    return found and HubName(found["id"], found["revision"], found["config"] or None)


def at_commit(name: HubName, kind: str) -> HubName:
    """The repository (``kind`` ``model`` or ``dataset``) at the commit that its revision stands for now.

    Asked of the hub, offline of its cache; where neither knows, ``name`` as it is: what reads it then says why.
    """
    if name.revision and _COMMIT.fullmatch(name.revision):
        return name
    with contextlib.suppress(Exception):  # network, hub and cache errors share no base class
        return dataclasses.replace(name, revision=_commit(name, kind))
    return name


def _commit(name: HubName, kind: str) -> str:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    try:
        file = huggingface_hub.hf_hub_download(name.id, _FILES[kind], repo_type=kind, revision=name.revision)
    except EntryNotFoundError:  # a data set without a README
        return str(huggingface_hub.HfApi().repo_info(name.id, repo_type=kind, revision=name.revision).sha)
    return Path(file).parent.name  # .../snapshots/<commit>/<file>
