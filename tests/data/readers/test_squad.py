"""SQuAD files."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertft.data.examples import Answer, Question
from bertft.data.readers.squad import read_squad
from bertft.errors import BertftError

CONTEXT = "Beyoncé – born 1981 – sings."
GOOD = {
    "version": "1.1",
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {"id": "q1", "question": "Who?", "answers": [{"text": "Beyoncé", "answer_start": 0}]},
                        {"id": "q2", "question": "When?", "answers": [{"text": "1981", "answer_start": 15}] * 2},
                    ],
                }
            ],
        }
    ],
}


def read(tmp_path: Path, value: object) -> list[Question]:
    path = tmp_path / "a.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf8")
    return read_squad(path)


def test_questions_and_answers_are_read(tmp_path: Path) -> None:
    expected = [
        Question("q1", "Who?", CONTEXT, (Answer("Beyoncé", 0),)),
        Question("q2", "When?", CONTEXT, (Answer("1981", 15),) * 2),
    ]
    assert read(tmp_path, GOOD) == expected
    assert read(tmp_path, json.dumps(GOOD, indent=1, ensure_ascii=False)) == expected
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    assert read_squad(tmp_path / "a.json.gz") == expected


def changed(change: Callable[[Any, Any], object]) -> dict[str, Any]:
    value = copy.deepcopy(GOOD)
    paragraph = value["data"][0]["paragraphs"][0]  # type: ignore[index]
    change(paragraph, paragraph["qas"][1])
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            changed(lambda p, q: q["answers"][0].update(answer_start=14)),
            "question 'q2': expected the answer '1981' at offset 14, found ' 198'",
        ),
        (
            changed(lambda p, q: q["answers"][0].update(answer_start=0)),
            "question 'q2': expected the answer '1981' at offset 0, found '",
        ),
        (
            changed(lambda p, q: q["answers"][0].update(answer_start=99)),
            "question 'q2': expected the answer '1981' at offset 99, found the end of the context",
        ),
        (changed(lambda p, q: q["answers"][0].update(answer_start=-13)), "question 'q2': expected the answer '1981'"),
        (
            changed(lambda p, q: q["answers"][0].update(answer_start="15")),
            "question 'q2': expected an integer as answer_start, found '15'",
        ),
        (
            changed(lambda p, q: q["answers"][0].update(text="")),
            "question 'q2': expected an answer, found an empty text",
        ),
        (
            changed(lambda p, q: q.update(answers=[])),
            "question 'q2' has no answer; unanswerable questions (SQuAD v2.0)",
        ),
        (changed(lambda p, q: q.update(is_impossible=True)), "question 'q2' has no answer"),
        (
            changed(lambda p, q: q.update(answers=["1981"])),
            "question 'q2': expected an answer with text and answer_start",
        ),
        (changed(lambda p, q: q.pop("answers")), "question 'q2': expected a list 'answers', found nothing"),
        (changed(lambda p, q: q.pop("question")), "question 'q2': expected a string as question, found nothing"),
        (changed(lambda p, q: q.update(id="q1")), "question 'q1': two questions have this id"),
        (changed(lambda p, q: q.update(id=7)), "data[0].paragraphs[0].qas[1]: expected a string as id, found int"),
        (changed(lambda p, q: p.pop("context")), "data[0].paragraphs[0]: expected a string as context, found nothing"),
        (changed(lambda p, q: p.update(qas="x")), "data[0].paragraphs[0]: expected a list 'qas', found str"),
        (changed(lambda p, q: p["qas"].append(1)), "data[0].paragraphs[0].qas[2]: expected a JSON object, found '1'"),
        ({"data": [{"paragraphs": {}}]}, "data[0]: expected a list 'paragraphs', found dict"),
        ({"data": [3]}, "data[0]: expected a JSON object, found '3'"),
        ({"version": "1.1"}, "the file: expected a list 'data', found nothing"),
        ([], "the file: expected a JSON object, found '[]'"),
        ({"data": []}, "expected SQuAD questions, found none"),
        (json.dumps(GOOD)[:100], "line 1: not valid JSON at column"),
        (json.dumps(GOOD, indent=1)[:150], "line 9: not valid JSON at column"),
    ],
)
def test_every_flaw_is_named_with_its_place(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(BertftError) as error:
        read(tmp_path, value)
    assert str(error.value).startswith(f"{tmp_path / 'a.json'}: {message}")
    assert "\n" not in str(error.value)
