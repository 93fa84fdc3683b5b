"""Comparison over a million tokens, or a billion.

Processes share the text and read it line by line. They keep only sums and a small sample.

    torchrun --nproc-per-node 2 examples/million_tokens.py builtin:minilm runs/mnli --text folder_of_text

The tokens are the first ones of the text. After a kill, rerun the same command: it resumes from the last checkpoint and
ends with the same numbers. The command line does the same with bertft rsa --tokens all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bertft
from bertft.data.streams import stream
from bertft.runs.checkpoint import Checkpoint
from bertft.similarity import Plan, compare_stream
from bertft.similarity.compare.workers import team


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("tuned")
    parser.add_argument("--text", default="builtin:synthetic?size=2000")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="a shorter text is read to its end")
    parser.add_argument("--out", type=Path, default=Path("runs/million"))
    given = parser.parse_args(arguments)

    with team() as members:  # one process, or those that torchrun started
        base, tuned = (bertft.Encoder.from_pretrained(name) for name in (given.base, given.tuned))
        name = f"rank{members.rank}"
        texts = stream("text", given.text)
        settings = {"given": str(given), "text": texts.digest, "size": members.size}
        checkpoint = Checkpoint(given.out / "checkpoints", settings, name)
        rows = compare_stream(
            base, {"tuned": tuned}, texts, Plan(), tokens=given.tokens, checkpoint=checkpoint, team=members
        )
        if rows is not None:  # in the first process
            bertft.write_results(given.out / "results.csv", rows)
            print(f"{rows[0].n:,} tokens; the table is {given.out / 'results.csv'}")


if __name__ == "__main__":
    main()
