"""The pipeline of a stream: the plain way, what is read ahead, errors, interruptions, sizes."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models.batching import pad, pad_inputs, pool_words, word_pieces
from bertft.models.encoder import Encoder
from bertft.runs.checkpoint import Checkpoint
from bertft.similarity.compare import stream
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.encoders import compare_stream
from bertft.similarity.compare.plan import Plan
from bertft.similarity.compare.stimuli import cut, in_windows, layer_counts
from bertft.similarity.compare.stream import ON_GPU, Sizes, StreamRun, sizes_for
from bertft.similarity.compare.workers import ALONE, Team

TEXTS = [" ".join(s.words) for s in synthetic.sentences(60, seed=3)]
PLAN = Plan(sample=150)


@pytest.fixture(autouse=True, scope="module")
def small_buffers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "BUFFER", 16)
        yield


@pytest.fixture(scope="module")
def encoders(tiny_model, disturbed):
    return Encoder.from_pretrained(str(tiny_model)), disturbed(0)


def count_up(kept) -> list[int]:
    """Return a number for each piece: kept ones count from 0, the others are -1."""
    numbers = itertools.count()
    return [next(numbers) if keep else -1 for keep in kept]


def tokenised(encoder: Encoder, text: str, unit: str) -> tuple[dict[str, list[int]], list[int]]:
    """Return the model's inputs of one text, and the vector that each piece belongs to."""
    words = text.split() if unit == "word" else text
    encoding = encoder.tokenizer(words, is_split_into_words=unit == "word")
    of = encoding.word_ids()
    slots = [-1 if w is None else w for w in of] if unit == "word" else count_up(w is not None for w in of)
    return {key: encoding[key] for key in ("input_ids", "token_type_ids")}, slots


@torch.inference_mode()
def plainly(base: Encoder, tuned: Encoder, tokens: int | None, unit: str):
    """Return the rows of TEXTS, taken text by text and batch by batch without any of the pipeline."""
    comparison = Comparison(PLAN, layer_counts(base, {"t": tuned}))
    room = tokens or 10**9
    for first in range(0, len(TEXTS), stream.BUFFER):
        buffer = [(i, *tokenised(base, TEXTS[i], unit)) for i in range(first, min(first + stream.BUFFER, len(TEXTS)))]
        used = {}
        for i, _, slots in buffer:
            used[i] = min(room, max(slots) + 1)
            room -= used[i]
        buffer = [item for item in sorted(buffer, key=lambda item: -len(item[2])) if used[item[0]]]
        while buffer:
            size = max(1, 256 // len(buffer[0][2]))
            group, buffer = buffer[:size], buffer[size:]
            inputs = pad_inputs([item[1] for item in group], base.tokenizer)
            counts = torch.tensor([max(slots) + 1 for _, _, slots in group])
            pieces, offsets = word_pieces(pad([slots for *_, slots in group], -1), counts)
            kept = torch.cat([torch.arange(n) < used[i] for (i, *_), n in zip(group, counts.tolist(), strict=True)])
            spaces = []
            for encoder in (base, tuned):
                hidden = encoder.model(**inputs, output_hidden_states=True).hidden_states
                spaces.append(torch.stack([pool_words(layer, pieces, offsets) for layer in hidden])[:, kept])
            index = torch.tensor([i for i, *_ in group])
            comparison.update(index, torch.tensor([used[i] for i, *_ in group]), spaces)
        comparison.sentences += sum(count > 0 for count in used.values())
    return comparison.rows("toy")


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("tokens", [None, 301])
def test_rows_are_those_of_the_plain_way_to_the_last_bit(encoders, unit, tokens):
    base, tuned = encoders
    rows = compare_stream(base, {"t": tuned}, TEXTS, PLAN, tokens=tokens, unit=unit, batch_tokens=256, data="toy")
    assert rows == plainly(base, tuned, tokens, unit)


@pytest.mark.parametrize("tokens", [None, 1000])
def test_a_text_is_read_one_buffer_ahead_and_no_further(encoders, monkeypatch, tokens):
    base, tuned = encoders
    read, ahead, furthest = [], [], []
    update = Comparison.update

    def counted(self, index, *rest):
        ahead.append(len(read) - int(index.max()) // 16 * 16)
        furthest.append(int(index.max()))
        return update(self, index, *rest)

    monkeypatch.setattr(Comparison, "update", counted)
    texts = (read.append(i) or TEXTS[i % 60] for i in range(160))
    compare_stream(base, {"t": tuned}, texts, PLAN, tokens=tokens, batch_tokens=256)
    assert max(ahead) == 32
    assert len(read) == (160 if tokens is None else max(furthest) // 16 * 16 + 16)


@pytest.mark.parametrize("partner", ["alike", "narrow"])
def test_an_error_of_the_background_comes_after_the_buffers_before_it(encoders, monkeypatch, partner):
    base, tuned = encoders
    if partner == "narrow":
        tuned = Encoder(tuned.model, tuned.tokenizer, "narrow")
        monkeypatch.setattr(Encoder, "max_length", property(lambda self: 128 if self is base else 100))
    done = []
    update = Comparison.update
    monkeypatch.setattr(
        Comparison, "update", lambda self, index, *rest: (done.append(index), update(self, index, *rest))
    )
    texts = [*TEXTS[:35], "half a character: \ud83d", *TEXTS[36:]]
    with pytest.raises(BertftError, match="half a character") as error:
        compare_stream(base, {"t": tuned}, texts, PLAN, unit="word", batch_tokens=256)
    assert "\n" not in str(error.value)
    assert sorted(torch.cat(done).unique().tolist()) == list(range(32))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bertft-ahead")]


def test_a_second_signal_ends_the_run_at_once(encoders, tmp_path):
    base, tuned = encoders

    def texts():
        yield from TEXTS[:20]
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("read on")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        compare_stream(base, {"t": tuned}, texts(), PLAN, checkpoint=Checkpoint(tmp_path, {}), batch_tokens=256)
    assert signal.getsignal(signal.SIGINT) is before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bertft-ahead")]


def test_encoders_that_read_alike_get_the_same_batches(encoders, tiny_model):
    base, tuned = encoders
    other = Encoder.from_pretrained(str(tiny_model))
    other.tokenizer.backend_tokenizer.normalizer = None  # one vocabulary, other rules
    run = StreamRun(base, {"t": tuned, "o": other}, Comparison(PLAN, {}), None, OPTIONS, ALONE)
    buffer = run._reader(ALONE, 0, 0).prepare(TEXTS[:16])
    assert buffer.batches[0] is buffer.batches[1] is not buffer.batches[2]


OPTIONS = {"unit": "token", "batch_tokens": None, "window": "split"}


def one_by_one(index, lengths, left):
    """Return the stimuli kept of each window, and what is left of each example, window by window."""
    kept, left = [], left.tolist()
    for example, length in zip(index.tolist(), lengths.tolist(), strict=True):
        kept.append(min(length, left[example]))
        left[example] -= kept[-1]
    return kept, left


@pytest.mark.parametrize("seed", range(5))
def test_windows_use_up_an_example_in_order(seed):
    g = torch.Generator().manual_seed(seed)
    index, lengths = torch.randint(0, 6, (15,), generator=g), torch.randint(0, 5, (15,), generator=g)
    left = torch.randint(0, 9, (6,), generator=g) + (0 if seed else 100)  # with room for all, or not
    expected, after = one_by_one(index, lengths, left)
    space = torch.arange(int(lengths.sum())).repeat(2, 1)[..., None].float()
    kept, (found,) = cut(index, lengths, left, [space])
    assert kept.tolist() == expected and left.tolist() == after
    starts = [0, *itertools.accumulate(lengths.tolist())]
    rows = [start + i for start, count in zip(starts, expected, strict=False) for i in range(count)]
    assert found[0, :, 0].tolist() == rows


def test_texts_are_cut_into_windows_that_fit_all_encoders(encoders, monkeypatch):
    base, tuned = encoders
    monkeypatch.setattr(Encoder, "max_length", property(lambda self: 12 if self is base else 9))
    texts = [text.split() for text in TEXTS[:12]]
    found = list(in_windows(texts, [base, tuned]))
    for i, text in enumerate(texts):
        parts = [part for j, part in found if j == i]
        assert [*itertools.chain(*parts)] == text
        sizes = [len(base.tokenizer(part, is_split_into_words=True)["input_ids"]) for part in parts]
        assert all(size <= 9 for size, part in zip(sizes, parts, strict=True) if len(part) > 1)
        for part, following in itertools.pairwise(parts):  # as long as they can be
            assert len(base.tokenizer([*part, following[0]], is_split_into_words=True)["input_ids"]) > 9
    assert len(found) > len(texts)


@pytest.mark.parametrize(
    ("layers", "memory", "tokens", "expected"),
    [
        (7, 80e9, None, (16 * ON_GPU, 65_536)),
        (7, 80e9, 5000, (16, 65_536)),
        (25, 16e9, None, (16 * ON_GPU, 8192)),  # 25 x 1024 x 4 bytes twice, 2 GB
        (400, 1e9, None, (16 * ON_GPU, 4096)),
    ],
)
def test_sizes_fit_the_device(monkeypatch, layers, memory, tokens, expected):
    weight = torch.zeros(1)
    encoder = SimpleNamespace(
        device=torch.device("cuda", 0), num_layers=layers, dim=384 if layers == 7 else 1024,
        model=SimpleNamespace(parameters=lambda: iter([weight])),
    )  # fmt: skip
    properties = SimpleNamespace(total_memory=int(memory))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert sizes_for([encoder, encoder], tokens) == expected
    on_cpu = SimpleNamespace(device=torch.device("cpu"))
    assert sizes_for([encoder, on_cpu], tokens) == (16, 4096)


def test_a_run_keeps_the_sizes_that_it_began_with(encoders):
    base, tuned = encoders

    def run(batch):
        options = {**OPTIONS, "batch_tokens": batch}
        return StreamRun(base, {"t": tuned}, Comparison(PLAN, layer_counts(base, {"t": tuned})), None, options, ALONE)

    tensors, record = run(300).state()
    assert record["sizes"] == [16, 300]
    resumed = run(None)
    resumed.restore(tensors, record)
    assert resumed.sizes == Sizes(16, 300)
    del record["sizes"]  # of an earlier version
    resumed.restore(tensors, record)
    assert resumed.sizes == Sizes(16, 4096)


def test_processes_take_the_smallest_sizes(monkeypatch):
    def gather(found, own):
        found[:] = [own, (64, 4096), (32, 8192)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert Team(0, 3).least((128, 65_536)) == (32, 4096)
    assert ALONE.least((128, 65_536)) == (128, 65_536)

    def lost(found, own):
        raise RuntimeError("Connection closed\nby peer")

    monkeypatch.setattr(torch.distributed, "all_gather_object", lost)
    with pytest.raises(BertftError, match=r"^process 0 of 3: another process was lost \(Connection closed by peer\)$"):
        Team(0, 3).least((1, 1))


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("tokens", [None, 301])
def test_a_record_says_where_the_run_is(encoders, unit, tokens):
    base, tuned = encoders
    options = {"unit": unit, "batch_tokens": 256, "window": "split", "layers": None}
    comparison = Comparison(PLAN, layer_counts(base, {"t": tuned}))
    run = StreamRun(base, {"t": tuned}, comparison, tokens, options, ALONE)
    counts = [max(tokenised(base, text, unit)[1]) + 1 for text in TEXTS]
    room, used = tokens or 10**9, []
    for count in counts:
        used.append(min(room, count))
        room -= used[-1]
    before, last, seen = 0, (0, 0), 0
    for stimuli, texts in run.batches(iter(TEXTS)):
        record = run.state()[1]
        assert record["first"] == 16 * record["buffer"] and record["taken"] == sum(used[: record["first"]])
        following = (last[0], last[1] + 1) if record["buffer"] == last[0] else (last[0] + 1, 1)
        assert (record["buffer"], record["batch"]) == following
        left = used[record["first"] : record["first"] + 16]
        assert len(record["left"]) == len(left) and sum(left) - sum(record["left"]) == len(comparison) - record["taken"]
        assert len(comparison) - before == stimuli and 0 < texts <= 16 and not record["ended"]
        before, last, seen = len(comparison), (record["buffer"], record["batch"]), seen + texts
    record = run.state()[1]
    buffers = -(-sum(count > 0 for count in used) // 16)
    assert (record["buffer"], record["batch"], record["left"], record["ended"]) == (buffers, 0, None, True)
    assert record["taken"] == len(comparison) == sum(used) and record["sentences"] == sum(count > 0 for count in used)
    assert record["sizes"] == [16, 256] and seen == record["sentences"]
    assert list(run.batches(iter(TEXTS))) == []  # it has ended
