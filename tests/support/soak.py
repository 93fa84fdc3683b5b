"""A long comparison of two tiny encoders: uninterrupted, killed, and in two processes.

    python tests/support/soak.py FOLDER TOKENS

runs ``bertft rsa`` three times on one text: ``whole`` beside ``killed``, which is ended by SIGKILL three times and
started again, and then ``two``, which two processes share. Each leaves its sums in ``FOLDER/<run>.npz``. The
resident memory of every process is sampled. The last line printed is JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from transformers import BertConfig, BertModel, BertTokenizer

ROOT = Path(__file__).parents[2]
LAYERS, WIDTH, WORDS = 2, 32, 2000
LINE = 40  # words of a text, each one piece
KILLS = 3
SAMPLE_S = 0.5  # seconds between two samples of memory
# The command line, which also leaves the sums from which the rows follow.
WORKER = """
import os
import numpy as np
import bertft.similarity.compare.encoders as encoders
from bertft.cli.main import main
from bertft.similarity.compare.comparison import Comparison
encoders.EVERY = float(os.environ["EVERY"])
def rows(self, *arguments, made=Comparison.rows, **options):
    tensors, _ = self.state()
    sums = {name: tensors[name].numpy() for name in sorted(tensors) if name.startswith("sums/")}
    np.savez(os.environ["SUMS"], **sums)
    return made(self, *arguments, **options)
Comparison.rows = rows
main()
"""


def prepare(folder: Path, tokens: int) -> None:
    """Write a text of ``tokens`` pieces, a random encoder and the same with noise, and the worker."""
    words = [f"{'bcdfghjklm'[i % 10]}{'aeiou'[i // 10 % 5]}{'npqrstvwxz'[i // 50 % 10]}{i}" for i in range(WORDS)]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokenizer = BertTokenizer(vocab={entry: i for i, entry in enumerate(entries)}, do_lower_case=True)
    tokenizer.model_max_length = 64
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(entries),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=64,
    )
    model = BertModel(config)
    for name in ("base", "tuned"):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        with torch.no_grad():
            for weight in model.encoder.parameters():
                weight.add_(0.05 * torch.randn(weight.shape))
    draw = np.random.default_rng(0)
    with (folder / "text.txt").open("w", encoding="utf8") as file:
        for _ in range(max(1, tokens // (LINE * 1000))):
            chosen = draw.zipf(1.3, (1000, LINE)) % WORDS
            file.writelines(" ".join(words[i] for i in line) + "\n" for line in chosen.tolist())
    (folder / "worker.py").write_text(WORKER, encoding="utf8")


@dataclass
class Run:
    """A run in ``folder/name``: seconds, seconds of the processor, kills, and samples of resident memory in bytes."""

    folder: Path
    name: str
    every: float
    processes: int = 1
    seconds: float = 0.0
    cpu: float = 0.0
    kills: list[float] = field(default_factory=list)
    memory: dict[int, list[int]] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[str]:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes)]
        command = [sys.executable, *(launch if self.processes > 1 else []), "worker.py", "rsa", "--base", "base"]
        command += ["--tuned", "t=tuned", "--text", "text.txt", "--tokens", "all", "--out", self.name, "--quiet"]
        own = {"EVERY": str(self.every), "SUMS": f"{self.name}.npz", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **own}
        with (self.folder / f"{self.name}.log").open("a", encoding="utf8") as log:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log, text=True)

    def advance(self, kills: int = 0) -> Iterator[None]:
        """Run to the end, in steps of `SAMPLE_S`; kill the process some time after each of ``kills`` checkpoints."""
        draw, begun = random.Random(0), time.monotonic()
        while True:
            process, last, moment = self.start(), self._checkpoint(), float("inf")
            cpu = 0.0
            while process.poll() is None:
                streams = self._checkpoint() != last and not (self.folder / f"{self.name}.npz").exists()
                cpu = max(cpu, self._sample(process.pid, streams))
                if len(self.kills) < kills and moment == float("inf") and streams:
                    moment = time.monotonic() + draw.uniform(0, self.every)
                if time.monotonic() > moment:
                    process.send_signal(signal.SIGKILL)
                yield
                time.sleep(SAMPLE_S)
            self.cpu += cpu
            self.seconds = time.monotonic() - begun
            if process.returncode == 0:
                return
            if process.returncode != -signal.SIGKILL:
                raise RuntimeError((self.folder / f"{self.name}.log").read_text(encoding="utf8")[-3000:])
            self.kills.append(round(self.seconds, 1))

    def _checkpoint(self) -> int:
        path = self.folder / self.name / "checkpoint" / f"0-of-{self.processes}.safetensors"
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _sample(self, pid: int, streams: bool) -> float:
        """Note the memory of each process if it ``streams``; return the seconds of the processor so far."""
        used = 0.0
        try:
            parent = psutil.Process(pid)
            for process in (parent, *parent.children(recursive=True)):
                times = process.cpu_times()
                used += times.user + times.system
                if streams:
                    self.memory.setdefault(process.pid, []).append(process.memory_info().rss)
        except psutil.NoSuchProcess:
            pass
        return used

    def medians(self) -> list[tuple[int, int]]:
        """Return each process's median memory in the first third and in the last third of the text after a checkpoint.

        Processes that were killed early are left out, and so is the one that starts the others.
        """
        longest = max(map(len, self.memory.values()))
        own = [samples for samples in self.memory.values() if len(samples) > longest / 2]
        own = own[1:] if self.processes > 1 else own
        return [(int(np.median(s[: len(s) // 3 + 1])), int(np.median(s[-len(s) // 3 :]))) for s in own]


def soak(folder: Path, tokens: int, every: float) -> dict[str, Run]:
    """Return the three runs, once they have ended."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, tokens)
    whole, killed, two = (Run(folder, name, every) for name in ("whole", "killed", "two"))
    two.processes = 2
    beside = [whole.advance(), killed.advance(kills=KILLS)]
    while beside:
        beside = [run for run in beside if next(run, "ended") is None]
    for _ in two.advance():
        pass
    return {run.name: run for run in (whole, killed, two)}


def furthest(folder: Path) -> float:
    """Return by how much the sums of two processes differ from one's, as a share of the largest sum of their kind."""
    one, two = (np.load(folder / f"{name}.npz") for name in ("whole", "two"))
    assert set(one) == set(two) and one
    return max(float(np.abs(one[name] - two[name]).max() / max(np.abs(one[name]).max(), 1e-300)) for name in one)


def main(folder: str, tokens: str = "10000000", every: str = "10") -> None:
    runs = soak(Path(folder), int(tokens), float(every))
    about = {
        name: {"seconds": round(run.seconds, 1), "cpu": round(run.cpu, 1), "kills": run.kills, "memory": run.medians()}
        for name, run in runs.items()
    }
    print(json.dumps({**about, "sums": furthest(Path(folder))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
