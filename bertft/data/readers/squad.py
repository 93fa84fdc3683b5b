"""SQuAD v1.1 files: questions answered by a passage's span."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bertft.data.examples import Answer, Question
from bertft.data.files import check_text, parse_json, read_lines, shorten
from bertft.errors import BertftError


def read_squad(path: str | os.PathLike[str]) -> list[Question]:
    """Return the questions of a SQuAD v1.1 JSON file, plain or ``.gz``, in file order.

    Raises:
        BertftError: for text that is not JSON, a missing or mistyped field, an answer that is not at its offset, two
            questions with one id, a question without an answer (as in SQuAD v2.0, which is not supported), and a file
            without a question; names the file and the line, the question's id or the place in the tree.
    """
    root = parse_json("\n".join(line for _, line in read_lines(path)), path)
    questions: list[Question] = []
    seen: set[str] = set()
    for a, article in enumerate(_list(root, "data", f"{path}: the file")):
        where = f"{path}: data[{a}]"
        for p, paragraph in enumerate(_list(article, "paragraphs", where)):
            where = f"{path}: data[{a}].paragraphs[{p}]"
            items = _list(paragraph, "qas", where)
            context = check_text(paragraph.get("context"), "context", where)
            for q, item in enumerate(items):
                if not isinstance(item, dict):
                    raise BertftError(f"{where}.qas[{q}]: expected a JSON object, found {shorten(item)}")
                identifier = check_text(item.get("id"), "id", f"{where}.qas[{q}]")
                if identifier in seen:
                    raise BertftError(f"{path}: question {shorten(identifier)}: two questions have this id")
                seen.add(identifier)
                answers = _list(item, "answers", f"{path}: question {shorten(identifier)}")
                questions.append(question_of(identifier, item, context, answers, str(path)))
    if not questions:
        raise BertftError(f"{path}: expected SQuAD questions, found none")
    return questions


def question_of(
    identifier: str, item: Mapping[str, object], context: str, answers: list[object], source: str
) -> Question:
    """Return the question in one ``item`` with its ``answers``, objects of ``text`` and ``answer_start``, checked."""
    where = f"{source}: question {shorten(identifier)}"
    if item.get("is_impossible") or not answers:
        raise BertftError(
            f"{where} has no answer; unanswerable questions (SQuAD v2.0) are not supported, leave them out"
        )
    return Question(
        identifier,
        check_text(item.get("question"), "question", where),
        context,
        tuple(_answer(answer, context, where) for answer in answers),
    )


def _answer(answer: object, context: str, where: str) -> Answer:
    if not isinstance(answer, dict):
        raise BertftError(f"{where}: expected an answer with text and answer_start, found {shorten(answer)}")
    text = check_text(answer.get("text"), "answer text", where)
    start = answer.get("answer_start")
    if not isinstance(start, int) or isinstance(start, bool):
        raise BertftError(f"{where}: expected an integer as answer_start, found {shorten(start)}")
    if not text:
        raise BertftError(f"{where}: expected an answer, found an empty text")
    if start < 0 or context[start : start + len(text)] != text:
        found = shorten(context[start : start + len(text)]) if 0 <= start < len(context) else "the end of the context"
        raise BertftError(f"{where}: expected the answer {shorten(text)} at offset {start}, found {found}")
    return Answer(text, start)


def _list(holder: object, name: str, where: str) -> list[Any]:
    if not isinstance(holder, dict):
        raise BertftError(f"{where}: expected a JSON object, found {shorten(holder)}")
    value = holder.get(name)
    if not isinstance(value, list):
        found = "nothing" if value is None else type(value).__name__
        raise BertftError(f"{where}: expected a list {name!r}, found {found}")
    return value
