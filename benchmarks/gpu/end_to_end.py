"""Commands on the GPU, everything included, and a stream of a large model with random weights."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.run import Item, Result

PIECES = 30_522  # of BERT's vocabulary
LLAMA = {
    "hidden_size": 4096, "intermediate_size": 14_336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_hidden_layers": 32,
}  # fmt: skip
TINY_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY_LLAMA = {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1,
    "num_hidden_layers": 2,
}  # fmt: skip


def end_to_end_items(device: str, tiny: bool, treebank: Path | None) -> Iterator[Item]:
    """Yield the commands; a rehearsal leaves out those that need files or take long."""
    tokens = 300 if tiny else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = write_text(folder / "text.txt", tokens, 50 if tiny else PIECES)
        if not tiny:
            yield Item("bertft rsa, MiniLM, 10^6 tokens", 45, lambda: minilm(folder, text, tokens))
        shape = TINY_BERT if tiny else {}
        yield Item("bertft rsa, shape of BERT-base", 0 if tiny else 60, lambda: bert(folder, text, tokens, shape, tiny))
        few = 100 if tiny else 100_000
        yield Item("compare_stream, shape of Llama 8B, bfloat16", 0 if tiny else 60,
                   lambda: llama(text, few, TINY_LLAMA if tiny else LLAMA, device))  # fmt: skip
        if not tiny:
            yield Item("bertft study quickstart", 50, lambda: command("study", "quickstart", "--out", folder / "study"))
        if treebank is not None:
            yield Item("bertft probe structural, rank 128", 70, lambda: probes(folder, treebank))


def command(*arguments: object, rehearse: bool = False) -> Result:
    """Run a command of bertft; return its seconds, or raise RuntimeError with its last line."""
    words = [*map(str, arguments), "--quiet"]
    began = time.perf_counter()
    if rehearse:  # in this process: a start takes seconds
        from bertft.cli.main import run

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = run(words)
        error = said.getvalue()
    else:
        done = subprocess.run([sys.executable, "-m", "bertft", *words], capture_output=True, text=True, timeout=180)
        code, error = done.returncode, done.stderr
    if code:
        raise RuntimeError(f"bertft {words[0]} exited with {code}: {(error.strip().splitlines() or [''])[-1]}")
    return {"seconds": round(time.perf_counter() - began, 1)}


def compared(folder: Path, base: object, tuned: object, text: Path, tokens: int, rehearse: bool = False) -> Result:
    """Return seconds and tokens/s of ``bertft rsa``."""
    out = folder / f"rsa-{time.monotonic_ns()}"
    found = command("rsa", "--base", base, "--tuned", f"tuned={tuned}", "--text", text, "--tokens", tokens,
                    "--out", out, rehearse=rehearse)  # fmt: skip
    return found | {"tokens per second": round(tokens / max(found["seconds"], 1e-3))}


def minilm(folder: Path, text: Path, tokens: int) -> Result:
    """Compare MiniLM with a copy whose weights are disturbed."""
    from bertft.models.encoder import Encoder

    encoder = Encoder.from_pretrained("builtin:minilm", device="cpu")
    with torch.no_grad():
        for weight in encoder.model.parameters():
            weight.mul_(1 + 0.02 * torch.randn_like(weight))
    encoder.model.save_pretrained(folder / "minilm")
    encoder.tokenizer.save_pretrained(folder / "minilm")
    return compared(folder, "builtin:minilm", folder / "minilm", text, tokens)


def bert(folder: Path, text: Path, tokens: int, shape: dict[str, Any], tiny: bool) -> Result:
    """Compare two BERTs with random weights."""
    from transformers import BertConfig, BertModel

    tokenizer = word_tokenizer(50 if tiny else PIECES)
    for seed in range(2):
        torch.manual_seed(seed)
        model = BertModel(BertConfig(vocab_size=len(tokenizer), **shape))
        model.save_pretrained(folder / f"bert{seed}")
        tokenizer.save_pretrained(folder / f"bert{seed}")
    return compared(folder, folder / "bert0", folder / "bert1", text, tokens, rehearse=tiny)


def llama(text: Path, tokens: int, shape: dict[str, int], device: str) -> Result:
    """Compare two Llamas with random weights on ``device``, of as many layers as fit beside their sums."""
    from transformers import LlamaConfig, LlamaModel

    from bertft.models.encoder import Encoder
    from bertft.similarity import Plan, compare_stream

    tokenizer = word_tokenizer(50 if shape is TINY_LLAMA else PIECES)
    layers = fitting_layers(shape, free_bytes(device))
    config = LlamaConfig(vocab_size=len(tokenizer), **(shape | {"num_hidden_layers": layers}))
    encoders, before = [], torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        for seed in range(2):
            torch.manual_seed(seed)
            with torch.device(device):
                encoders.append(Encoder(LlamaModel(config), tokenizer, name=f"llama{seed}"))
    finally:
        torch.set_default_dtype(before)
    began = time.perf_counter()
    plan = Plan(intervals=False)
    lines = text.read_text(encoding="utf-8").splitlines()
    rows = compare_stream(encoders[0], {"tuned": encoders[1]}, lines, plan, tokens=tokens, unit="token")
    seconds = time.perf_counter() - began
    return {"layers": layers, "tokens": tokens, "seconds": round(seconds, 1),
            "tokens per second": round(tokens / seconds), "rows": len(rows or [])}  # fmt: skip


def free_bytes(device: str) -> int:
    """Return the free memory of the GPU, or enough for a rehearsal."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else 1 << 30


def fitting_layers(shape: dict[str, int], free: int) -> int:
    """Return how many blocks of two encoders in bfloat16 fit into half of ``free``, with the sums of two metrics."""
    d, inner = shape["hidden_size"], shape["intermediate_size"]
    heads = shape["num_key_value_heads"] / shape["num_attention_heads"]
    weights = 2 * 2 * (d * d * (2 + 2 * heads) + 3 * d * inner)
    sums = 2 * 3 * 8 * d * d
    return max(1, min(shape["num_hidden_layers"], int(free / 2 / (weights + sums))))


def probes(folder: Path, treebank: Path) -> Result:
    """Train structural probes of MiniLM on a treebank, ``en_ewt-ud-train.conllu[.gz]`` and ``-dev``."""
    files = [next(iter(sorted(treebank.rglob(f"*ewt*{part}*.conllu*"))), None) for part in ("train", "dev")]
    if None in files:
        raise RuntimeError(f"{treebank}: no *ewt*train*.conllu and *ewt*dev*.conllu")
    return command("probe", "structural", "--model", "builtin:minilm", "--train", files[0], "--dev", files[1],
                   "--rank", 128, "--out", folder / "probes")  # fmt: skip


def word_tokenizer(words: int) -> Any:
    """Return a tokenizer of ``words`` entries, of which all words of `write_text` are single pieces."""
    from transformers import BertTokenizer

    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{k}" for k in range(words - 5))]
    tokenizer = BertTokenizer(vocab={entry: k for k, entry in enumerate(entries)}, do_lower_case=True)
    tokenizer.model_max_length = 512
    return tokenizer


def write_text(path: Path, tokens: int, words: int) -> Path:
    """Write lines of random words, ``tokens`` of them and some more, as long as sentences of a web treebank."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, words - 5, tokens + 100)
    with path.open("w", encoding="utf-8") as file:
        at = 0
        while at < len(drawn):
            size = int(np.clip(random.lognormal(2.56, 0.75), 1, 100))
            file.write(" ".join(f"w{k}" for k in drawn[at : at + size]) + "\n")
            at += size
    return path
