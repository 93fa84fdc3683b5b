"""Feature store: vectors, resuming and stale entries.

It returns the encoder's vectors, resumes after a kill, and never uses stale vectors.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models.blocks import reinitialise
from bertft.models.encoder import Encoder
from bertft.models.fingerprint import fingerprint
from bertft.probes import feature_store as module
from bertft.probes.feature_store import FeatureStore
from bertft.probes.vectors import StreamedVectors, extract

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return Encoder.from_pretrained(str(tiny_model))


@pytest.fixture(scope="module")
def words():
    return [s.words for s in synthetic.sentences(50, seed=2)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "PART", 8)


class Messages:
    """A progress that keeps its messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, description, total=None, unit="it"):
        from bertft.runs.progress import SILENT

        self.lines.append(f"{description}: {total} {unit}")
        return SILENT.step(description)

    def say(self, message):
        self.lines.append(message)


def entry(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_stored_vectors_equal_those_of_the_encoder(encoder, words, tmp_path, dtype):
    said = Messages()
    stored = FeatureStore(tmp_path, dtype=dtype).vectors(encoder, words, progress=said)
    total = sum(map(len, words))
    size = total * 4 * 32 * (2 if dtype == torch.float16 else 4)
    assert (entry(tmp_path) / "vectors.bin").stat().st_size == size
    assert said.lines[0].startswith(f"features: {size / 1e6:,.1f} MB") and said.lines[1].endswith(": 7 parts")
    memory = extract(encoder, words, dtype=torch.float32)
    tolerance = 2e-3 if dtype == torch.float16 else 1e-5
    torch.testing.assert_close(stored.batch(range(50)).float(), memory.batch(range(50)), rtol=0, atol=tolerance)
    assert stored.lengths.tolist() == [len(w) for w in words]
    again = Messages()
    second = FeatureStore(tmp_path, dtype=dtype).vectors(encoder, words, progress=again)
    assert again.lines == [] and torch.equal(second.vectors, stored.vectors)


def test_only_the_kept_words_are_stored(encoder, words, tmp_path):
    rng = np.random.default_rng(0)
    kept = [np.sort(rng.permutation(len(w))[: rng.integers(0, len(w) + 1)]) for w in words]
    every = extract(encoder, words, dtype=torch.float32)
    for store in (
        FeatureStore(tmp_path, dtype=torch.float32),
        FeatureStore(stream=True),
        FeatureStore(dtype=torch.float32),
    ):
        some = store.vectors(encoder, words, kept=kept)
        assert some.lengths.tolist() == [len(k) for k in kept] and (some.layers, some.width) == (4, 32)
        for members in ([3, 1], [49, 0, 7]):
            rows = torch.cat([torch.from_numpy(kept[i] + every.starts[i]) for i in members])
            wanted = every.vectors[rows].transpose(0, 1)
            torch.testing.assert_close(some.batch(members), wanted, rtol=0, atol=1e-5)
            torch.testing.assert_close(some.batch(members, torch.tensor([2])), wanted[2:3], rtol=0, atol=1e-5)


def test_long_sentences_are_refused_before_a_file_is_made_or_split(encoder, words, tmp_path):
    long = [*words[:3], ("dog",) * 300]
    with pytest.raises(BertftError, match=r"sentence d .* expected at most 128"):
        FeatureStore(tmp_path / "a").vectors(encoder, long, names=list("abcd"))
    assert not (tmp_path / "a").exists()
    kept = [np.arange(len(w)) for w in long[:3]] + [np.array([0, 120, 130, 260, 299])]
    split = FeatureStore(tmp_path / "b", window="split", dtype=torch.float32)
    every = split.vectors(encoder, long)
    assert every.lengths[3] == 300
    assert torch.equal(split.vectors(encoder, long, kept=kept).batch([3]), every.batch([3])[:, kept[3]])


def test_every_change_gives_another_key(encoder, words, tmp_path, monkeypatch):
    def entries() -> int:
        return len(list(tmp_path.iterdir()))

    FeatureStore(tmp_path).vectors(encoder, words)
    random = Encoder(reinitialise(encoder.model, 1), encoder.tokenizer, encoder.name)
    changes = [
        lambda: FeatureStore(tmp_path).vectors(random, words),
        lambda: FeatureStore(tmp_path).vectors(encoder, words[:-1]),
        lambda: FeatureStore(tmp_path).vectors(encoder, [*words[:-1], (*words[-1][:-1], "x")]),
        lambda: FeatureStore(tmp_path).vectors(encoder, words, kept=[np.array([0])] * len(words)),
        lambda: FeatureStore(tmp_path, dtype=torch.float32).vectors(encoder, words),
        lambda: FeatureStore(tmp_path, window="split").vectors(encoder, words),
    ]
    for number, change in enumerate(changes, start=2):
        change()
        assert entries() == number
    monkeypatch.setattr(module, "code_digest", lambda sources: "another version")
    FeatureStore(tmp_path).vectors(encoder, words)
    assert entries() == len(changes) + 2


def test_the_last_call_of_a_tokenizer_does_not_change_the_key(tiny_model):
    encoder = Encoder.from_pretrained(str(tiny_model))
    before = fingerprint(encoder)
    encoder.tokenizer(["a b c", "d"], truncation=True, padding=True, max_length=3)
    assert encoder.tokenizer.backend_tokenizer.truncation is not None
    assert fingerprint(encoder) == before
    encoder.tokenizer.add_tokens(["zyzzyva"])
    assert fingerprint(encoder) != before


def test_damaged_and_missing_parts_are_extracted_again(encoder, words, tmp_path):
    first = FeatureStore(tmp_path).vectors(encoder, words).vectors.clone()
    place = entry(tmp_path)
    data = bytearray((place / "vectors.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (place / "vectors.bin").write_bytes(data)
    lines = (place / "journal.jsonl").read_text().splitlines(keepends=True)
    (place / "journal.jsonl").write_text("".join(lines[1:-1]) + lines[-1][:4])  # one line missing, one truncated
    said = Messages()
    assert torch.equal(FeatureStore(tmp_path).vectors(encoder, words, progress=said).vectors, first)
    assert "1 damaged part(s)" in said.lines[0] and "4 of 7 parts are there" in said.lines[1]
    (place / "vectors.bin").write_bytes(data[:-10])
    assert torch.equal(FeatureStore(tmp_path).vectors(encoder, words).vectors, first)
    assert sorted(json.loads(line)[0] for line in (place / "journal.jsonl").read_text().splitlines()) == list(range(7))


def test_a_killed_extraction_is_resumed(encoder, words, tmp_path):
    script = textwrap.dedent(f"""
        import time
        import bertft.probes.feature_store as store
        from bertft.data import synthetic
        from bertft.models.encoder import Encoder
        store.PART = 8
        write = store._Entry.write
        def slowly(self, part, vectors):
            write(self, part, vectors)
            time.sleep(60 if part == 2 else 0)
        store._Entry.write = slowly
        words = [s.words for s in synthetic.sentences(50, seed=2)]
        store.FeatureStore({str(tmp_path / "a")!r}).vectors(Encoder.from_pretrained({encoder.name!r}), words)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        journals = list((tmp_path / "a").glob("*/journal.jsonl"))
        if journals and len(journals[0].read_text().splitlines()) == 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    said = Messages()
    resumed = FeatureStore(tmp_path / "a").vectors(encoder, words, progress=said)
    assert "3 of 7 parts are there" in said.lines[0] and said.lines[1].endswith(": 4 parts")
    assert torch.equal(resumed.vectors, FeatureStore(tmp_path / "b").vectors(encoder, words).vectors)


def test_a_full_disk_and_bad_types_are_refused(encoder, words, tmp_path, monkeypatch):
    with pytest.raises(BertftError, match="float16 or float32, found bfloat16: its 8 bits"):
        FeatureStore(tmp_path, dtype=torch.bfloat16)
    usage = module.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BertftError, match="found 0 MiB free"):
        FeatureStore(tmp_path).vectors(encoder, words)


def test_streaming_stores_nothing(encoder, words, tmp_path):
    streamed = FeatureStore(tmp_path, stream=True).vectors(encoder, words)
    assert isinstance(streamed, StreamedVectors) and list(tmp_path.iterdir()) == []
