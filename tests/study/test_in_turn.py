"""`bertft diff --in-turn`: the rows of both models at once, with one of them in memory."""

from __future__ import annotations

import pytest
import torch

import bertft.study.diff.run as diff_run
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.runs.artefacts import Artefact, DamagedArtefact
from bertft.runs.rows import Row, read_results
from bertft.similarity.compare.recorded import Recorded, Recorder
from bertft.study.diff.in_turn import FOLDER
from bertft.study.diff.settings import DiffCommand

TEXT = "builtin:synthetic?size=40"
PIECES = 128  # of a batch, so that there are several


@pytest.fixture(scope="module")
def tuned(disturbed, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tuned"
    encoder = disturbed(0, (1, 2))
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return str(folder)


def without_page_and_in_small_batches(patch) -> None:
    patch.setattr("bertft.study.diff.run.redraw", lambda *given, **settings: None)
    for module in ("similarity.compare.stream", "similarity.compare.recorded", "study.diff.parts"):
        patch.setattr(f"bertft.{module}.USUAL", PIECES)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_page_and_in_small_batches(monkeypatch)


def run(tiny_model, tuned, out, *, in_turn: bool) -> list[Row]:
    command = DiffCommand(base=str(tiny_model), tuned={"tuned": tuned}, text=TEXT, tokens=300, in_turn=in_turn)
    found = diff_run.run_diff(command, out)
    assert found.rows == read_results(out / "results.csv")
    return found.rows


@pytest.fixture(scope="module")
def at_once(tiny_model, tuned, tmp_path_factory) -> list[Row]:
    with pytest.MonkeyPatch.context() as patch:
        without_page_and_in_small_batches(patch)
        rows = run(tiny_model, tuned, tmp_path_factory.mktemp("runs") / "at_once", in_turn=False)
    return [row for row in rows if "noise" not in row.model and row.task != "causes"]


def same(rows: list[Row], at_once: list[Row]) -> bool:
    """Return whether the rows are equal to the last digit, those of weights, which are read from files, to rounding."""
    (exact, weights), (truth, others) = (
        ([row for row in table if row.task != "weights"], [row for row in table if row.task == "weights"])
        for table in (rows, at_once)
    )
    assert exact == truth and [row.key for row in weights] == [row.key for row in others]
    return len(weights) > 8 and [row.value for row in weights] == pytest.approx([r.value for r in others], rel=1e-12)


def test_rows_are_those_of_both_at_once_while_the_base_is_gone(tiny_model, tuned, tmp_path, monkeypatch, at_once):
    loaded: list[Encoder] = []
    load = diff_run.load_encoder

    def watched(name, dtype):
        assert all(weight.is_meta for encoder in loaded for weight in encoder.model.parameters())
        loaded.append(load(name, dtype))
        return loaded[-1]

    monkeypatch.setattr(diff_run, "load_encoder", watched)
    out = tmp_path / "run"
    assert same(run(tiny_model, tuned, out, in_turn=True), at_once) and len(loaded) == 2
    assert {"rsa", "null", "local", "directions", "weights"} <= {row.task for row in at_once}
    assert "in_turn: true" in (out / "config.yaml").read_text(encoding="utf8") and not (out / FOLDER).exists()
    loaded.clear()
    monkeypatch.setattr(Encoder, "encode", None)
    assert same(run(tiny_model, tuned, out, in_turn=True), at_once)  # nothing is kept or read again


@pytest.mark.parametrize("kept", [1, 3])
def test_a_killed_run_resumes_without_encoding_kept_batches(tiny_model, tuned, tmp_path, monkeypatch, at_once, kept):
    save, encode, saved, encoded = Artefact.save, Encoder.encode, [], []

    def until(self, *given, **settings):
        if self.path.parent.name == FOLDER:
            if len(saved) == kept:
                saved.append(None)
                raise KeyboardInterrupt
            saved.append(self.path)
        save(self, *given, **settings)

    monkeypatch.setattr(Artefact, "save", until)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tuned, tmp_path / "run", in_turn=True)
    assert sorted((tmp_path / "run" / FOLDER).iterdir()) == sorted(saved[:kept])

    def counted(self, batch, layers):
        encoded.append(isinstance(self, Recorder))
        return encode(self, batch, layers)

    monkeypatch.setattr(Encoder, "encode", counted)
    assert same(run(tiny_model, tuned, tmp_path / "run", in_turn=True), at_once)
    again = saved[kept + 1 :]
    assert encoded.count(True) == len(again) > 1 and not set(again) & set(saved[:kept])
    assert not (tmp_path / "run" / FOLDER).exists()


def test_recorded_batches_are_the_encoders_and_damage_is_refused(tiny_model, tmp_path):
    texts = [f"the dog saw number {i}" for i in range(9)]
    encoder = Encoder.from_pretrained(str(tiny_model))
    truth = [batch.vectors for batch in encoder.stream(texts, unit="token", batch_tokens=32)]
    recorder = Recorder(encoder, tmp_path / "kept", {"base": "a"})
    for batch in recorder.stream(texts, unit="token", batch_tokens=32):
        assert batch.vectors.shape[0] == 4
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == len(truth) > 2
    recorded = recorder.released()
    assert isinstance(recorded, Recorded) and all(weight.is_meta for weight in encoder.model.parameters())
    again = [batch.vectors for batch in recorded.stream(texts, unit="token", batch_tokens=32)]
    assert all(torch.equal(x, y) for x, y in zip(truth, again, strict=True))
    with pytest.raises(BertftError, match=r"kept: a batch of .* is missing; remove the folder"):
        list(recorded.stream(texts, unit="token", batch_tokens=16))
    content = bytearray(files[0].read_bytes())
    content[-1] ^= 1
    files[0].write_bytes(content)
    with pytest.raises(DamagedArtefact, match="damaged"):
        list(recorded.stream(texts, unit="token", batch_tokens=32))
    fresh = Recorder(Encoder.from_pretrained(str(tiny_model)), tmp_path / "kept", {"base": "a"})
    assert torch.equal(next(fresh.stream(texts, unit="token", batch_tokens=32)).vectors, truth[0])
    other = Recorder(fresh, tmp_path / "kept", {"base": "b"}).released()
    with pytest.raises(BertftError):
        list(other.stream(texts, unit="token", batch_tokens=32))


def test_bad_input_is_refused_and_leaves_nothing(tiny_model, tuned, tmp_path):
    command = DiffCommand(base=str(tiny_model), tuned={"t": tuned}, text=TEXT, tokens=50, in_turn=True)
    with pytest.raises(BertftError, match="--in-turn: needs a folder, --out"):
        diff_run.run_diff(command, None)
    other = Encoder.from_pretrained(tuned)
    other.tokenizer.model_max_length = 16
    other.model.save_pretrained(tmp_path / "short")
    other.tokenizer.save_pretrained(tmp_path / "short")
    command = DiffCommand(
        base=str(tiny_model), tuned={"t": str(tmp_path / "short")}, text=TEXT, tokens=50, in_turn=True
    )
    with pytest.raises(BertftError, match="--in-turn needs one tokenizer and one window, found others in t"):
        diff_run.run_diff(command, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_against_itself_is_unchanged_in_turn_too(tiny_model, tmp_path):
    command = DiffCommand(base=str(tiny_model), tuned={"t": str(tiny_model)}, text=TEXT, tokens=50, in_turn=True)
    found = diff_run.run_diff(command, tmp_path / "run")
    assert found.verdict[0].endswith("t is unchanged: its weights are those of the base.")
