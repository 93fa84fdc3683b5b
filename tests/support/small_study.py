"""A small study for tests."""

from __future__ import annotations

import json

import yaml

TREE = {
    "name": "small",
    "model": "MODEL",
    "seed": 3,
    "tasks": {
        "dep": {
            "train": "builtin:synthetic?split=train&size=24&seed=1",
            "dev": "builtin:synthetic?split=dev&size=12&seed=1",
            "epochs": 1,
            "learning_rate": "5e-3",
            "batch_size": 4,
        },
        "frozen": {
            "task": "mnli",
            "train": "builtin:synthetic?split=train&size=24&seed=1",
            "dev": "builtin:synthetic?split=dev&size=12&seed=1",
            "epochs": 1,
            "freeze": 3,
        },
        "squad": {
            "train": "questions.json",
            "dev": "questions.json",
            "epochs": 1,
            "stride": 16,
        },
    },
    "stimuli": {"plain": {"source": "builtin:synthetic?size=60&seed=2"}},
    "rsa": {"tokens": 200, "layers": "all", "by": "upos"},
    "probes": {
        "train": "builtin:synthetic?split=train&size=20&seed=3",
        "dev": "builtin:synthetic?split=dev&size=16&seed=3",
        "rank": 4,
        "epochs": 1,
    },
    "variants": {"shorter": {"rsa": {"tokens": 100}, "tasks": {"dep": {"max_train": 8}}}},
}


def write(path, tree):
    """Write a study as YAML beside its SQuAD file, which has two questions on each of eight short passages."""
    paragraphs = []
    for number, animal in enumerate(("cat", "dog", "horse", "cow", "hen", "fox", "owl", "bee")):
        context = f"the {animal} saw a tree and then it slept"
        answers = {"who saw a tree?": f"the {animal}", "what was seen?": "a tree"}
        questions = [
            {"id": f"{number}-{i}", "question": q, "answers": [{"text": a, "answer_start": context.index(a)}]}
            for i, (q, a) in enumerate(answers.items())
        ]
        paragraphs.append({"context": context, "qas": questions})
    squad = {"version": "1.1", "data": [{"title": "animals", "paragraphs": paragraphs}]}
    (path.parent / "questions.json").write_text(json.dumps(squad), encoding="utf8")
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf8")
    return path


def changed(**changes):
    tree = json.loads(json.dumps(TREE))
    for key, value in changes.items():
        *above, last = key.split("__")
        node = tree
        for part in above:
            node = node[part]
        node[last] = value
    return tree
