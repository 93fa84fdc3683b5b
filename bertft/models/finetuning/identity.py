"""Identity of fine-tuning runs: settings and digests."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from bertft.data.location import at_home, hub_of
from bertft.models.finetuning.config import PRECISIONS, REPORTING, FinetuneConfig, default_length
from bertft.models.fingerprint import model_fingerprint

# Settings that name something, locate it or select a part of it. The model and the examples themselves
# are compared by their digests instead.
LOCATION_SETTINGS = ("out", "model", "train", "dev", "dev_name", "dev_split", "max_train", "max_dev", "prefix_cache")
# Settings that are newer than existing folders; omitted at their defaults, so that those folders still match.
NEWER_SETTINGS = ("lora", "snapshots", *PRECISIONS)


def identity_of(config: FinetuneConfig, train: Sequence[Any], dev: Sequence[Any]) -> dict[str, Any]:
    """Return all that the trained weights depend on, as JSON: settings, and digests of the model and the examples.

    Raises ``BertftError`` if there is no such model.
    """
    omitted = (*LOCATION_SETTINGS, *REPORTING)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in omitted}
    settings["max_length"] = config.max_length or default_length(config.task)
    if config.task != "squad":
        del settings["stride"]  # only passages are cut into windows
    for name in NEWER_SETTINGS:
        if not settings[name]:
            del settings[name]
    if config.snapshots:
        settings["snapshots"] = list(config.snapshots)  # as JSON returns it
    return {
        **settings,
        "model": model_fingerprint(config.model),
        "train": examples_fingerprint(train),
        "dev": examples_fingerprint(dev),
    }


def differing_settings(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the names of the settings in which two identities differ.

    A setting that is newer than the stored identity has its default there.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(FinetuneConfig)}
    names = [*wanted, *(key for key in NEWER_SETTINGS if key in stored and key not in wanted)]
    return [key for key in names if stored.get(key, defaults.get(key)) != wanted.get(key, defaults.get(key))]


# The fields of an example that count, all but its id. They are listed so that a field added later changes no digest;
# of other classes all fields but the id count.
_CONTENT = {
    "Sentence": ("words", "heads", "relations", "upos"),
    "Pair": ("premise", "hypothesis", "label"),
    "Question": ("question", "context", "answers"),
    "Answer": ("text", "start"),
}


def examples_fingerprint(examples: Sequence[Any]) -> str:
    """Return the SHA-256 of the examples' content, in order; path, name and compression of the file do not matter."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(_content(example), ensure_ascii=True).encode("ascii"))
    return digest.hexdigest()


def _content(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_content(item) for item in value]
    names = _CONTENT.get(type(value).__name__)
    if names is None and dataclasses.is_dataclass(value):
        names = tuple(field.name for field in dataclasses.fields(value) if field.name != "id")
    return value if names is None else [_content(getattr(value, name)) for name in names]


def published(config: FinetuneConfig) -> dict[str, Any]:
    """Return the settings for publication: of ``model``, ``train`` and ``dev`` only the names, not their folders."""
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("out", "prefix_cache", *REPORTING)}
    for name in ("model", "train", "dev"):
        source = settings[name]
        local = hub_of(source) is None and not str(source).startswith("builtin:")
        settings[name] = at_home(source).resolve().name if local else str(source)
    return settings


def on_the_hub(config: FinetuneConfig) -> dict[str, dict[str, str]]:
    """Return id, revision (a commit, if known) and configuration of those of model, train and dev that are on the hub.

    The keys are ``model``, ``train`` and ``dev``.
    """
    repositories = {name: hub_of(getattr(config, name)) for name in ("model", "train", "dev")}
    return {
        name: {key: value for key, value in dataclasses.asdict(hub).items() if value is not None}
        for name, hub in repositories.items()
        if hub is not None
    }
