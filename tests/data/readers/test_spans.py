"""Edge-probing files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertft.data.readers.spans import SpanTarget, SpanText, read_spans
from bertft.errors import BertftError


def line(*targets: object, text: object = "The dog slept .") -> str:
    return json.dumps({"text": text, "targets": list(targets), "info": {}}) + "\n"


ONE = {"span1": [1, 2], "label": "NOUN"}
TWO = {"span1": [1, 2], "span2": [2, 3], "label": ["a", "b"]}


def read(tmp_path: Path, text: str) -> list[SpanText]:
    path = tmp_path / "a.jsonl"
    path.write_text(text, encoding="utf8")
    return read_spans(path)


def test_texts_and_targets_are_read(tmp_path: Path) -> None:
    words = ("The", "dog", "slept", ".")
    assert read(tmp_path, line(ONE) + "\n" + line()) == [
        SpanText("1", words, (SpanTarget((1, 2), None, ("NOUN",)),)),
        SpanText("3", words, ()),
    ]
    assert read(tmp_path, line(TWO))[0].targets == (SpanTarget((1, 2), (2, 3), ("a", "b")),)
    assert read(tmp_path, line({**TWO, "label": []}))[0].targets[0].labels == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line(ONE) + line(ONE)[:20], "line 2: not valid JSON"),
        ("[]\n", "line 1: expected a JSON object, found '[]'"),
        (line(ONE, text=1), "line 1: expected a string as text, found int"),
        ('{"text": "a"}', "line 1: expected a list 'targets', found 'None'"),
        (line(3), "line 1: targets[0]: expected a JSON object, found '3'"),
        (
            line(ONE, {"span1": [3, 5], "label": "x"}),
            "line 1: targets[1]: expected span1 as [start, end] with 0 <=",
        ),
        (line({"span1": [2, 2], "label": "x"}), "line 1: targets[0]: expected span1"),
        (line({"span1": [-1, 2], "label": "x"}), "line 1: targets[0]: expected span1"),
        (line({"span1": [False, True], "label": "x"}), "line 1: targets[0]: expected span1"),
        (line({"label": "x"}), "line 1: targets[0]: expected span1"),
        (line({"span1": [0, 1], "span2": None, "label": "x"}), "line 1: targets[0]: expected span2 as [start, end]"),
        (line({"span1": [0, 1]}), "line 1: targets[0]: expected a string as label, found nothing"),
        (line(ONE) + line(TWO), "line 2: targets[0]: expected no span2, as in the targets before"),
        (line(TWO, ONE), "line 1: targets[1]: expected span2, as in the targets before"),
        (line(), "expected texts with targets, found none"),
    ],
)
def test_every_flaw_is_named_with_line_and_target(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BertftError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'a.jsonl'}: {message}")


spans = st.lists(st.integers(-1, 5), max_size=3) | st.none() | st.text(max_size=2) | st.booleans()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(["span1", "span2", "label"]), spans, max_size=3), max_size=3))
def test_any_targets(tmp_path: Path, targets: list[dict[str, object]]) -> None:
    try:
        texts = read(tmp_path, line(*targets))
    except BertftError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(0 <= t.first[0] < t.first[1] <= 4 for text in texts for t in text.targets)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("task", "counts", "labels"),
    [
        ("pos_ewt", "12544 204577 2001 25147 2077 25094", 17),
        ("dep_ewt", "12544 204577 2001 25147 2077 25094", 51),
        ("constituents_ewt", "12504 177157 1962 21506 2051 21232", 28),
        ("srl_ewt", "10333 81244 1490 9556 1474 9313", 57),
        ("ner_ewt", "447 711 177 255 709 1088", 3),
        ("spr_ewt", "2113 5166 279 681 269 622", 18),
        ("coref_gum", "1167 20806 137 2646 146 2386", 2),
        ("relations_semeval2010", "6500 6500 1500 1500 2717 2717", 19),
    ],
)
def test_real_files(data_root: Path, task: str, counts: str, labels: int) -> None:
    found, seen = [], set()  # the documentation counts the labels of the training file
    for split in ("train", "dev", "test"):
        texts = read_spans(data_root / "edge_probing" / task / f"{split}.jsonl.gz")
        found += [len(texts), sum(len(text.targets) for text in texts)]
        if split == "train":
            seen = {label for text in texts for target in text.targets for label in target.labels}
    assert " ".join(map(str, found)) == counts
    assert len(seen) == labels
