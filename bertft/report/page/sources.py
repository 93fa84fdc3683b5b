"""Sources of the texts of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {"models", "texts", "vectors"}
EVERY = "*"  # stands for every text, or for every text of one analysis: ``along/*``


class Sources:
    """The source of each text of a run.

    ``run.json`` may record them under ``sources``: a mapping of ``<analysis>/<text>``, ``<analysis>/*``, ``<text>`` or
    ``*`` to a description; the first of these that is present applies. Or it records ``models``, ``texts`` and
    ``vectors`` there, each with a source and a fingerprint by name. Folders without the record are read by their
    configuration.
    """

    def __init__(self, config: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        recorded = record.get("sources")
        if isinstance(recorded, Mapping):
            self._found = _described(recorded) if KINDS & recorded.keys() else dict(recorded)
        else:
            self._found = _of_config(config)

    def of(self, analysis: str, text: str) -> str:
        """Return the description of ``text`` in ``analysis``, or nothing."""
        for key in (f"{analysis}/{text}", f"{analysis}/{EVERY}", text, EVERY):
            if key in self._found:
                return str(self._found[key])
        return ""


def _described(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Return the source of each text, of files of vectors for any text, and of the models for their weights."""
    found = {name: str(entry["source"]) for name, entry in recorded.get("texts", {}).items()}
    for kind, key in (("vectors", EVERY), ("models", f"weights/{EVERY}")):
        if kind in recorded:
            found[key] = ", ".join(str(entry["source"]) for entry in recorded[kind].values())
    return found


def _of_config(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the sources that a configuration names: of a study, of ``python -m experiments`` or of one command."""
    found = {name: str(task.get("dev")) for name, task in (config.get("tasks") or {}).items()}
    found |= {name: str(stimuli.get("source")) for name, stimuli in (config.get("stimuli") or {}).items()}
    for name, edge in (config.get("edge") or {}).items():
        found[f"edge/{name}"] = _trained(edge)
    probes = config.get("probes")
    if isinstance(probes, Mapping):
        found[str(probes.get("name"))] = f"train {probes.get('train')}, measured on {probes.get('dev')}"
    # The rows of "along" name the task; its text is one for all.
    found[f"along/{EVERY}"] = found.get(str((config.get("along") or {}).get("text")), "")
    if config.get("command") and config.get("dev"):
        dev, test = config["dev"], config.get("test")
        found[EVERY] = f"train {config.get('train')}, dev {dev}" + (f", measured on {test}" if test else "")
    elif config.get("text"):
        found[EVERY] = str(config["text"])
    return found


def _trained(edge: Mapping[str, Any]) -> str:
    dev, test = edge.get("dev"), edge.get("test")
    return f"train {edge.get('train')}, " + (f"dev {dev}, measured on {test}" if test else f"dev and measured on {dev}")
