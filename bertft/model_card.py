"""The README.md of a fine-tuned folder, in the form a model hub reads: what it is, how it was made, how it scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

TASKS = {
    "dep": "dependency parsing",
    "mnli": "natural language inference",
    "squad": "extractive question answering",
    "pos": "part-of-speech tagging",
}
_SETTINGS = ("epochs", "learning_rate", "head_learning_rate", "batch_size", "warmup", "weight_decay", "freeze",
             "truncate", "lora", "seed")  # fmt: skip


def model_card(card: Mapping[str, Any]) -> str:
    """Markdown with YAML front matter, from what ``bertft.json`` holds. Of local paths the last part alone is named."""
    config, task = card["config"], TASKS.get(card["task"], card["task"])
    about: dict[str, Any] = {"library_name": "transformers", "tags": ["bertft", card["task"]]}
    if _on_the_hub(str(config["model"])):
        about["base_model"] = config["model"]
    front = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    scores = "".join(f"| {name} | {_score(score)} |\n" for name, score in card["scores"].items())
    settings = ", ".join(f"{name} {config[name]}" for name in _SETTINGS if config.get(name) is not None)
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    return f"""---
{front}---

# {_name(str(config["model"]))} fine-tuned on {task}

An encoder fine-tuned by bertft on {_name(str(config["train"]))}; scores on {_name(str(config["dev"]))}, square brackets
hold 95 % intervals over its items.

| measure | value |
|---|---|
{scores}
```python
from transformers import AutoModel, AutoTokenizer

encoder = AutoModel.from_pretrained("FOLDER_OR_ID")
tokenizer = AutoTokenizer.from_pretrained("FOLDER_OR_ID")
```

`head.safetensors` holds the task's head, which `bertft.finetune.load_finetuned` puts on the encoder.

Settings: {settings}. Made with {versions}. The whole account is in `bertft.json`.
"""


def _score(score: Mapping[str, Any]) -> str:
    return f"{score['value']:.4g} [{score['low']:.4g}, {score['high']:.4g}] (n = {score['n']:,})"


def _on_the_hub(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/", "~")) and not Path(model).exists()


def _name(source: str) -> str:
    """``/home/me/ud/train.conllu.gz`` is ``train.conllu.gz``; a hub id or built-in name stays whole."""
    return source if source.startswith("builtin:") or _on_the_hub(source) else Path(source).name
