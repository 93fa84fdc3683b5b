"""CoNLL-U files: dependency trees, one word per line."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from sys import intern

from bertft.data.examples import Sentence
from bertft.data.files import read_lines, shorten
from bertft.errors import BertftError
from bertft.runs.files import write_bytes_atomically

_COLUMNS = 10


def read_conllu(path: str | os.PathLike[str]) -> list[Sentence]:
    """Return the sentences of a CoNLL-U file, plain or ``.gz``, with their basic trees.

    Multiword-token lines (``3-4``) and empty nodes (``5.1``) are skipped. The id of a sentence is its ``# sent_id``, or
    its number in the file.

    Raises:
        BertftError: for a line without ten columns, an id that is not the next integer, an empty form, a head that is
            no integer or out of range, a sentence without exactly one root, a cycle, and a file without a sentence;
            names file and line.
    """
    sentences: list[Sentence] = []
    identifier = None
    block: list[tuple[int, str]] = []
    for number, line in read_lines(path):
        if line.startswith("#"):
            key, separator, value = line[1:].partition("=")
            if separator and key.strip() == "sent_id":
                identifier = value.strip()
        elif line.strip():
            block.append((number, line))
        elif block:
            sentences.append(_sentence(path, identifier or str(len(sentences) + 1), block))
            identifier, block = None, []
    if block:
        sentences.append(_sentence(path, identifier or str(len(sentences) + 1), block))
    if not sentences:
        raise BertftError(f"{path}: expected CoNLL-U sentences, found none")
    return sentences


def write_conllu(
    path: str | os.PathLike[str],
    sentences: Sequence[Sentence],
    heads: Sequence[Sequence[int]] | None = None,
    relations: Sequence[Sequence[str]] | None = None,
) -> None:
    """Write ``sentences`` as CoNLL-U, atomically, and as gzip if the name ends in ``.gz``.

    ``heads`` and ``relations`` replace those of the sentences, for example by a parser's predictions. Forms, tags,
    heads and relations are written, and ids as ``# sent_id``; every other column is ``_``.

    Raises:
        BertftError: if heads or relations differ from the sentences in number, or heads are no tree.
    """
    heads = [s.heads for s in sentences] if heads is None else heads
    relations = [s.relations for s in sentences] if relations is None else relations
    if not len(sentences) == len(heads) == len(relations):
        counts = f"{len(heads)} lists of heads and {len(relations)} of relations"
        raise BertftError(f"{path}: expected heads and relations for {len(sentences)} sentences, found {counts}")
    lines = []
    for sentence, tree, labels in zip(sentences, heads, relations, strict=True):
        n = len(sentence.words)
        if not n == len(tree) == len(labels):
            counts = f"{len(tree)} heads and {len(labels)} relations"
            raise BertftError(f"{path}: sentence {sentence.id}: expected {n} heads and relations, found {counts}")
        if (flaw := find_tree_flaw(tree)) is not None:
            raise BertftError(f"{path}: sentence {sentence.id}: word {flaw[0] + 1}: {flaw[1]}")
        lines.append(f"# sent_id = {sentence.id}")
        columns = zip(sentence.words, sentence.upos, sentence.xpos, tree, labels, strict=True)
        for i, (word, upos, xpos, head, label) in enumerate(columns, start=1):
            lines.append(f"{i}\t{word}\t_\t{upos}\t{xpos}\t_\t{head}\t{label}\t_\t_")
        lines.append("")
    data = "".join(f"{line}\n" for line in lines).encode("utf8")
    write_bytes_atomically(path, gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)


def find_tree_flaw(heads: Sequence[int]) -> tuple[int, str] | None:
    """Check that ``heads`` (1-based, 0 for the root) is a tree with one root.

    Returns None for a tree, else the index from 0 of a word at fault and its flaw in words.
    """
    n = len(heads)
    roots = []
    for i, head in enumerate(heads):
        if not 0 <= head <= n:
            return i, f"head {head} is out of range, expected 0 to {n}"
        if head == 0:
            roots.append(i)
    if not roots:
        return 0, "the sentence has no root, expected one word with head 0"
    if len(roots) > 1:
        return roots[1], f"the sentence has {len(roots)} roots, expected one word with head 0"
    state = bytearray(n + 1)  # 0 unseen, 1 on the current path, 2 known to lead to the root
    state[0] = 2
    for start in range(1, n + 1):
        path, node = [], start
        while state[node] == 0:
            state[node] = 1
            path.append(node)
            node = heads[node - 1]
        if state[node] == 1:
            return node - 1, f"word {node} is its own ancestor, expected a tree and found a cycle"
        for node in path:
            state[node] = 2
    return None


def _sentence(path: str | os.PathLike[str], identifier: str, block: list[tuple[int, str]]) -> Sentence:
    words: list[str] = []
    heads, numbers = list[int](), list[int]()
    relations, upos, xpos = list[str](), list[str](), list[str]()
    feats, misc = list[str](), list[str]()
    for number, line in block:
        cells = line.split("\t")
        if len(cells) != _COLUMNS:
            raise BertftError(f"{path}: line {number}: expected {_COLUMNS} tab-separated columns, found {len(cells)}")
        if cells[0] != str(len(words) + 1):
            if _is_range_or_empty_node(cells[0]):
                continue
            if not _is_integer(cells[0]):
                raise BertftError(f"{path}: line {number}: expected an integer as id, found {shorten(cells[0])}")
            raise BertftError(f"{path}: line {number}: expected id {len(words) + 1}, found {shorten(cells[0])}")
        if not cells[1].strip():
            raise BertftError(f"{path}: line {number}: expected a word in column 2, found nothing")
        if not _is_integer(cells[6]):
            raise BertftError(f"{path}: line {number}: expected an integer as head, found {shorten(cells[6])}")
        numbers.append(number)
        words.append(cells[1])
        upos.append(intern(cells[3]))
        xpos.append(intern(cells[4]))
        heads.append(int(cells[6]))
        relations.append(intern(cells[7]))
        feats.append(intern(cells[5]))
        misc.append(intern(cells[9]))
    if not words:
        raise BertftError(f"{path}: line {block[0][0]}: expected words, found only multiword tokens or empty nodes")
    if (flaw := find_tree_flaw(heads)) is not None:
        raise BertftError(f"{path}: line {numbers[flaw[0]]}: {flaw[1]}")
    tree = (tuple(words), tuple(heads), tuple(relations), tuple(upos), tuple(xpos))
    return Sentence(identifier, *tree, tuple(feats), tuple(misc))


def _is_integer(cell: str) -> bool:
    return cell.isascii() and cell.removeprefix("-").isdigit() and len(cell) < 10


def _is_range_or_empty_node(cell: str) -> bool:
    left, dot, right = cell.partition("-" if "-" in cell else ".")
    return bool(dot) and all(part.isascii() and part.isdigit() for part in (left, right))
