"""Pairs of texts cut to a window, for every tokenizer family."""

from __future__ import annotations

import families
import pytest
import tokenizers
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from bertft.data.examples import Answer, Question
from bertft.models.loading import load_pretrained
from bertft.models.tasks import get_task
from bertft.models.tasks.base import Window
from bertft.models.tasks.pairs import encode_pairs, model_inputs

FIRST = ["the old dog", "a cat", "dog " * 9, "where does the big dog run ?"]
SECOND = ["sees a cat .", "the dog runs " * 25, "a cat sees " * 30, "old [SEP] ones"]


@pytest.fixture(scope="module", params=[*families.FAMILIES, "llama-3"])
def tokenizer(request, tmp_path_factory):
    if request.param == "llama-3":  # two post-processors, one of which trims spaces from offsets
        backend = families.byte_level(True)
        steps = [processors.ByteLevel(trim_offsets=True), backend.post_processor]
        backend.post_processor = processors.Sequence(steps)
        return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **families.ROBERTA)
    folder = families.save(request.param, tmp_path_factory.mktemp("family") / "model")
    return load_pretrained(str(folder))[1]


@pytest.mark.skipif(tokenizers.__version__ in ("0.23.1", "0.23.2"), reason="its overflow is lost")
@pytest.mark.parametrize("strategy", ["longest_first", "only_second"])
def test_pairs_are_cut_as_by_the_tokenizer_itself(tokenizer, strategy):
    options = {"max_length": 24, "stride": 0}
    if strategy == "only_second":
        options = {"max_length": 60, "stride": 7}
    expected = tokenizer(
        FIRST, SECOND, truncation=strategy, **options, return_overflowing_tokens=True, return_offsets_mapping=True,
        return_attention_mask=False,
    )  # fmt: skip
    offsets, owners = expected.pop("offset_mapping"), expected.pop("overflow_to_sample_mapping")
    found = encode_pairs(tokenizer, FIRST, SECOND, strategy=strategy, **options)
    windows = [(number, own) for number, whole in enumerate(found) for own in (whole, *whole.overflowing)]
    assert len(windows) > len(FIRST)
    assert [number for number, _ in windows] == owners
    for row, (_, own) in enumerate(windows):
        assert model_inputs(tokenizer, own) == {name: expected[name][row] for name in expected}
        assert own.offsets == offsets[row]
        assert [part == 1 for part in own.sequence_ids] == [part == 1 for part in expected.sequence_ids(row)]


def test_offsets_point_at_the_answers(tokenizer):
    words = ["old", "dog", "sees", "cat"]
    context = "the old dog sees a big cat ."
    asked = [Question(str(i), "what ?", context, (Answer(w, context.index(w)),)) for i, w in enumerate(words)]
    features = get_task("squad").features(tokenizer, asked, {}, Window(96, 16), training=True)
    assert len(features) == len(words)
    for feature, word in zip(features, words, strict=True):
        first, last = feature.target
        assert context[feature.starts[first] : feature.ends[last]].strip() == word


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_own_settings_apply(tokenizer, side):
    tokenizer.truncation_side = side
    try:
        (found,) = encode_pairs(tokenizer, ["a dog"], ["the old cat sees " * 9], max_length=30, strategy="only_second")
        expected = tokenizer(["a dog"], ["the old cat sees " * 9], truncation="only_second", max_length=30)
        assert found.ids == expected["input_ids"][0]
    finally:
        tokenizer.truncation_side = "right"


def test_windows_cover_the_second_text(tokenizer):
    """Windows cover the text whatever the library does with the overflow."""
    text = "the old dog sees a cat . " * 40
    (whole,) = encode_pairs(tokenizer, ["a dog"], [text], max_length=60, strategy="only_second", stride=5)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    pieces = {span[1] for span in backend.encode(text, add_special_tokens=False).offsets}  # the end of each piece
    covered = set()
    for own in (whole, *whole.overflowing):
        assert len(own) <= 60
        inside = [span for span, part in zip(own.offsets, own.sequence_ids, strict=True) if part == 1]
        covered |= {span[1] for span in inside}
    assert len(whole.overflowing) > 3 and covered == pieces
