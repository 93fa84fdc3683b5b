"""Readers at their limits: the last span of a text, offsets at the end of a passage, parts of ids, counts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bertft.data.examples import Sentence
from bertft.data.readers.conllu import find_tree_flaw, read_conllu, write_conllu
from bertft.data.readers.nli import pair_of, read_nli_counted
from bertft.data.readers.spans import SpanTarget, arcs_as_spans, read_spans
from bertft.data.readers.squad import question_of
from bertft.errors import BertftError

WORD = "{}\tw\t_\tX\tX\t_\t{}\tdep\t_\t_\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf8")
    return path


@pytest.mark.parametrize("name", ["1-2-3", "1.2.3", "1.2-3", "1-2.3", "1-", "-", "."])
def test_a_range_has_two_numbers(tmp_path, name):
    with pytest.raises(BertftError, match=f"line 1: expected an integer as id, found '{name}'"):
        read_conllu(write(tmp_path, WORD.format(name, 0)))


@pytest.mark.parametrize("name", ["1-2", "10-11", "0.1", "0.12"])
def test_a_range_or_an_empty_node_is_no_word(tmp_path, name):
    (sentence,) = read_conllu(write(tmp_path, WORD.format(name, "_") + WORD.format(1, 0)))
    assert sentence.words == ("w",)


def test_heads_end_at_the_last_word():
    assert find_tree_flaw([0, 1, 2]) is None and find_tree_flaw([3, 0, 2]) is None
    assert find_tree_flaw([0, 1, 4]) == (2, "head 4 is out of range, expected 0 to 3")
    assert find_tree_flaw([0, 1, -1]) == (2, "head -1 is out of range, expected 0 to 3")


def test_a_compressed_file_has_no_time_of_writing(tmp_path):
    path = tmp_path / "a.conllu.gz"
    write_conllu(path, [Sentence("s", ("w",), (0,), ("root",), ("X",), ("Y",))])
    assert path.read_bytes()[4:8] == bytes(4)  # MTIME, RFC 1952
    expected = b"# sent_id = s\n1\tw\t_\tX\tY\t_\t0\troot\t_\t_\n\n"
    assert gzip.decompress(path.read_bytes()) == expected


def test_all_pairs_without_a_label_are_counted(tmp_path):
    record = {"sentence1": "A", "sentence2": "B", "gold_label": "-"}
    path = write(tmp_path, "".join(json.dumps(record) + "\n" for _ in range(3)))
    with pytest.raises(BertftError, match=r"expected labelled pairs, found 3 without a gold label$"):
        read_nli_counted(path)
    path.write_text(path.read_text() + json.dumps({**record, "gold_label": "neutral"}))
    pairs, skipped = read_nli_counted(path)
    assert (len(pairs), skipped) == (1, 3)


@pytest.mark.parametrize(
    ("changed", "named"), [({"pairID": "\ud800"}, "id"), ({"premise": "\ud800"}, "premise"),
                           ({"hypothesis": 1}, "hypothesis")],
)  # fmt: skip
def test_the_field_at_fault_is_named(changed, named):
    record = {"premise": "A", "hypothesis": "B", "label": 0, **changed}
    with pytest.raises(BertftError, match=rf"^here: ({named} contains half|expected a string as {named}, found int)"):
        pair_of(record, "here", "1")


@pytest.mark.parametrize("span", [[0, 1], [3, 4], [0, 4]])
def test_a_span_may_end_with_the_text(tmp_path, span):
    path = write(tmp_path, json.dumps({"text": "a b c d", "targets": [{"span1": span, "label": "x"}]}))
    assert read_spans(path)[0].targets[0].first == tuple(span)
    path = write(tmp_path, json.dumps({"text": "a b c", "targets": [{"span1": [0, 4], "label": "x"}]}))
    with pytest.raises(BertftError, match=r"0 <= start < end <= 3, found '\[0, 4\]'"):
        read_spans(path)


def test_arcs_are_spans_of_one_word_and_the_root_is_its_own_head():
    sentence = Sentence("s", ("Do", "go", "home", "now"), (2, 0, 4, 2), ("aux", "root", "x", "mod"), ("_",) * 4, ())
    (text,) = arcs_as_spans([sentence])
    assert (text.id, text.words) == ("s", sentence.words)
    expected = [((0, 1), (1, 2), "aux"), ((1, 2), (1, 2), "root"), ((2, 3), (3, 4), "x"), ((3, 4), (1, 2), "mod")]
    assert text.targets == tuple(SpanTarget(word, head, (relation,)) for word, head, relation in expected)


def answered(start: object, text: object = "dog", context: str = "a dog"):
    return question_of("q", {"question": "what?"}, context, [{"text": text, "answer_start": start}], "file")


def test_an_answer_may_end_with_the_passage():
    assert answered(2).answers[0].start == 2 and answered(0, "a dog").answers[0].text == "a dog"


@pytest.mark.parametrize(
    ("start", "text", "message"),
    [
        (3, "dog", "expected the answer 'dog' at offset 3, found 'og'"),
        (4, "dog", "expected the answer 'dog' at offset 4, found 'g'"),
        (5, "dog", "expected the answer 'dog' at offset 5, found the end of the context"),
        (-1, "g", "expected the answer 'g' at offset -1, found the end of the context"),
        (0, "dog", "expected the answer 'dog' at offset 0, found 'a d'"),
        (0, 3, "expected a string as answer text, found int"),
        (0, None, "expected a string as answer text, found nothing"),
        (0, "", "expected an answer, found an empty text"),
        (True, "dog", "expected an integer as answer_start, found 'True'"),
        (2.0, "dog", "expected an integer as answer_start, found '2.0'"),
    ],
)
def test_an_answer_that_is_not_at_its_offset_is_refused(start, text, message):
    with pytest.raises(BertftError) as error:
        answered(start, text)
    assert str(error.value) == f"file: question 'q': {message}"
