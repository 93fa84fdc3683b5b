"""The README.md of a fine-tuned folder, in the form a model hub reads: what it is, how it was made, how it scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

TASKS = {
    "dep": "dependency parsing",
    "mnli": "natural language inference",
    "squad": "extractive question answering",
    "pos": "part-of-speech tagging",
}
# What the hub calls the kind of task that was scored.
_KINDS = {"dep": "token-classification", "mnli": "text-classification", "squad": "question-answering",
          "pos": "token-classification"}  # fmt: skip
_SETTINGS = ("epochs", "learning_rate", "head_learning_rate", "batch_size", "warmup", "weight_decay", "freeze",
             "truncate", "lora", "seed")  # fmt: skip


def model_card(card: Mapping[str, Any]) -> str:
    """Markdown with YAML front matter, from what ``bertft.json`` holds.

    The front matter says what is known: base model and data set where they are on the hub, scores. No licence: that is
    for whoever publishes the model to say.
    """
    config, task = card["config"], TASKS.get(card["task"], card["task"])
    front = yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True)
    scores = "".join(f"| {name} | {_score(score)} |\n" for name, score in card["scores"].items())
    settings = ", ".join(f"{name} {config[name]}" for name in _SETTINGS if config.get(name) is not None)
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    return f"""---
{front}---

# {_title(card)}

An encoder fine-tuned by bertft for {task} on {config["train"]}; scores on {config["dev"]}, square brackets hold 95 %
intervals over its items.

| measure | value |
|---|---|
{scores}
The encoder alone:

```python
from transformers import AutoModel, AutoTokenizer

encoder = AutoModel.from_pretrained("FOLDER_OR_ID")
tokenizer = AutoTokenizer.from_pretrained("FOLDER_OR_ID")
```

With the task's head, `head.safetensors`, from a local copy of this repository:

```python
from bertft.models.finetuning.evaluation import load_finetuned

model = load_finetuned("FOLDER")  # model.predict(examples)
```

Settings: {settings}. Made with {versions}. The whole account, with SHA-256 of base model, data and files, is in
`bertft.json`.
"""


def _title(card: Mapping[str, Any]) -> str:
    return f"{card['config']['model']} fine-tuned on {TASKS.get(card['task'], card['task'])}"


def _front_matter(card: Mapping[str, Any]) -> dict[str, Any]:
    hub, dev = card.get("hub", {}), card["config"]["dev"]
    # What transformers makes of the folder by itself: an encoder without the head.
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "feature-extraction"}
    front["tags"] = ["bertft", card["task"]]
    if "model" in hub:
        front["base_model"] = hub["model"]["id"]
    if "train" in hub:
        front["datasets"] = [hub["train"]["id"]]
    found = {key: value for key, value in hub.get("dev", {}).items() if key != "id"}
    result = {
        "task": {"type": _KINDS.get(card["task"], card["task"]), "name": TASKS.get(card["task"], card["task"])},
        "dataset": {"type": hub["dev"]["id"] if "dev" in hub else dev, "name": dev, **found},
        "metrics": [{"type": name, "name": name, "value": score["value"]} for name, score in card["scores"].items()],
    }
    front["model-index"] = [{"name": _title(card), "results": [result]}]
    return front


def _score(score: Mapping[str, Any]) -> str:
    return f"{score['value']:.4g} [{score['low']:.4g}, {score['high']:.4g}] (n = {score['n']:,})"
