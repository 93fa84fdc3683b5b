"""Fine-tuning that stays near the base encoder.

The loss is the task's plus (1 - similarity) of the top layer to the base's. The similarity is RSA, Pearson's r of the
two matrices of cosines between all words of a batch, or debiased linear CKA. Both take linear time and are
differentiable, so a batch of any size can be a stimulus set.

    python examples/rsa_regulariser.py builtin:minilm --strength 5 --similarity cka
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

import bertft
from bertft.data import load
from bertft.ops import linear_cka, rdm_correlation

LABELS = ("entailment", "neutral", "contradiction")
SIMILARITIES = {"rsa": partial(rdm_correlation, route="linear"), "cka": linear_cka}


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--train", default="builtin:synthetic?size=200")
    parser.add_argument("--similarity", choices=SIMILARITIES, default="rsa")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args(arguments)

    torch.manual_seed(0)
    pairs = load("nli", given.train)
    base, tuned = (bertft.Encoder.from_pretrained(given.model) for _ in range(2))
    head = torch.nn.Linear(tuned.dim, len(LABELS)).to(tuned.device)
    optimiser = torch.optim.AdamW([*tuned.model.parameters(), *head.parameters()], lr=2e-4)
    task, similarity = torch.tensor(0.0), torch.tensor(1.0)
    for step in range(given.steps):
        batch = [pairs[i] for i in torch.randint(len(pairs), (16,)).tolist()]
        texts = [pair.premise for pair in batch], [pair.hypothesis for pair in batch]
        inputs = tuned.tokenizer(*texts, padding=True, return_tensors="pt").to(tuned.device)
        labels = torch.tensor([LABELS.index(pair.label) for pair in batch], device=tuned.device)
        hidden: Tensor = tuned.model(**inputs).last_hidden_state
        with torch.no_grad():
            before: Tensor = base.model(**inputs).last_hidden_state
        words = inputs["attention_mask"].bool()
        similarity = SIMILARITIES[given.similarity](hidden[words].unsqueeze(0), before[words].unsqueeze(0)).squeeze()
        task = torch.nn.functional.cross_entropy(head(hidden[:, 0]), labels)
        optimiser.zero_grad()
        (task + given.strength * (1 - similarity)).backward()
        optimiser.step()
        if step % 5 == 0 or step == given.steps - 1:
            print(f"step {step:3d}  task {task.item():.3f}  similarity to the base {similarity.item():.3f}")
    return task.item(), similarity.item()


if __name__ == "__main__":
    main()
