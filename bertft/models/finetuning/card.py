"""bertft.json and README.md of a fine-tuned folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertft.errors import BertftError

FORMAT = 1  # of bertft.json
TEMPLATE = Path(__file__).with_name("model_card.md.j2")
TASKS = {
    "dep": "dependency parsing",
    "mnli": "natural language inference",
    "squad": "extractive question answering",
    "pos": "part-of-speech tagging",
}
# The hub's name of each task.
_HUB_TASKS = {
    "dep": "token-classification",
    "mnli": "text-classification",
    "squad": "question-answering",
    "pos": "token-classification",
}
_SETTINGS = ("epochs", "learning_rate", "head_learning_rate", "batch_size", "warmup", "weight_decay", "freeze",
             "truncate", "lora", "seed")  # fmt: skip


def read_card(folder: str | Path) -> dict[str, Any]:
    """Read ``bertft.json`` of a fine-tuned folder.

    Raises ``BertftError`` if the folder has none, or one of another format.
    """
    path = Path(folder) / "bertft.json"
    try:
        card = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise BertftError(f"{folder}: expected a folder made by finetune, found none with bertft.json") from None
    except (ValueError, RecursionError) as error:
        raise BertftError(f"{path}: expected JSON, found something else ({error})") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise BertftError(f"{path}: expected format {FORMAT}, found another")
    return card


def model_card(card: Mapping[str, Any]) -> str:
    """Return the README.md of a folder, from its ``bertft.json``, as a model hub reads it.

    The metadata lists what is known: the base model and the data set if they are on the hub, and the scores. It names
    no licence, because only the publisher of the model can choose one.
    """
    from huggingface_hub import ModelCard, ModelCardData

    hub, config = card.get("hub", {}), card["config"]
    title = f"{config['model']} fine-tuned on {_task_name(card)}"
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="feature-extraction",  # transformers loads the folder as an encoder without the head
        tags=["bertft", card["task"]],
        base_model=hub["model"]["id"] if "model" in hub else None,
        datasets=[hub["train"]["id"]] if "train" in hub else None,
        model_name=title,
        eval_results=_results(card),
    )
    filled = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        task=_task_name(card),
        train=config["train"],
        dev=config["dev"],
        scores=card["scores"],
        settings=", ".join(f"{name} {config[name]}" for name in _SETTINGS if config.get(name) is not None),
        versions=", ".join(f"{name} {version}" for name, version in card["versions"].items()),
    )
    return str(filled).rstrip("\n") + "\n"


def _results(card: Mapping[str, Any]) -> list[Any]:
    """Return the scores as ``huggingface_hub.EvalResult``, one for each measure."""
    from huggingface_hub import EvalResult

    dev, hub = card["config"]["dev"], card.get("hub", {}).get("dev", {})
    return [
        EvalResult(
            task_type=_HUB_TASKS.get(card["task"], card["task"]),
            task_name=_task_name(card),
            dataset_type=hub.get("id", dev),
            dataset_name=dev,
            dataset_config=hub.get("config"),
            dataset_revision=hub.get("revision"),
            metric_type=name,
            metric_name=name,
            metric_value=score["value"],
        )
        for name, score in card["scores"].items()
    ]


def _task_name(card: Mapping[str, Any]) -> str:
    return TASKS.get(card["task"], card["task"])
