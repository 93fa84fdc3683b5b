"""The README.md of a fine-tuned folder."""

from __future__ import annotations

import yaml

from bertft.model_card import model_card

CARD = {
    "task": "mnli",
    "config": {
        "model": "org/encoder", "train": "/home/me/mnli/train.jsonl.gz", "dev": "builtin:synthetic?split=dev",
        "epochs": 3, "learning_rate": 8e-5, "freeze": -1, "truncate": None, "seed": 7,
    },
    "scores": {"accuracy": {"value": 0.66580, "low": 0.6381, "high": 0.6944, "n": 1155}},
    "versions": {"bertft": "0.1.0", "torch": "2.13.0"},
}  # fmt: skip


def test_the_card_says_what_it_is_and_tells_no_path():
    card = model_card(CARD)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {"library_name": "transformers", "tags": ["bertft", "mnli"], "base_model": "org/encoder"}
    assert "| accuracy | 0.6658 [0.6381, 0.6944] (n = 1,155) |" in card
    assert "train.jsonl.gz" in card and "/home" not in card and "builtin:synthetic?split=dev" in card
    assert "epochs 3, learning_rate 8e-05, freeze -1, seed 7." in card and "truncate" not in card


def test_a_local_base_is_no_hub_id(tmp_path):
    card = model_card({**CARD, "config": {**CARD["config"], "model": str(tmp_path / "encoder")}})
    assert "base_model" not in card and "# encoder fine-tuned on natural language inference" in card
    assert str(tmp_path) not in card
