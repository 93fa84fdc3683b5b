"""CoNLL-U files: reading, writing and errors."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pytest

from bertft.data.examples import Sentence
from bertft.data.readers.conllu import find_tree_flaw, read_conllu, write_conllu
from bertft.errors import BertftError

GOOD = """\
# newdoc id = d
# sent_id = s-1
# text = Don't go home
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t3:aux\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t3:advmod\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t0:root\t_
3.1\tyou\t_\tPRON\tPRP\t_\t_\t_\t3:nsubj\t_
4\thome\thome\tADV\tRB\t_\t3\tadvmod\t3:advmod\tSpaceAfter=No

# no id here

1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.conllu"
    path.write_text(text, encoding="utf8")
    return path


def rows(*heads: object) -> str:
    return "".join(f"{i}\tw{i}\t_\tX\tX\t_\t{head}\tdep\t_\t_\n" for i, head in enumerate(heads, start=1)) + "\n"


def test_multiword_tokens_and_empty_nodes_are_skipped(tmp_path: Path) -> None:
    first, second = read_conllu(write(tmp_path, GOOD))
    assert first == Sentence(
        "s-1",
        ("Do", "n't", "go", "home"),
        (3, 3, 0, 3),
        ("aux", "advmod", "root", "advmod"),
        ("AUX", "PART", "VERB", "ADV"),
        ("VB", "RB", "VB", "RB"),
    )
    assert (second.id, second.words) == ("2", ("Yes",))
    assert (first.feats, first.misc) == (("_",) * 4, ("_", "_", "_", "SpaceAfter=No"))


def test_the_id_is_all_behind_the_first_equals_sign_of_its_own_comment(tmp_path: Path) -> None:
    text = "# sent_id\n# sent_id_2 = x\n" + rows(0) + "# sent_id = a = b \n" + rows(0) + "#sent_id=c\n" + rows(0)
    assert [s.id for s in read_conllu(write(tmp_path, text))] == ["1", "a = b", "c"]


def test_crlf_and_missing_last_blank_line(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    path.write_bytes(GOOD.rstrip("\n").replace("\n", "\r\n").encode())
    assert read_conllu(path) == read_conllu(write(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rows(0) + "1\tw\t_\tX\tX\t_\t0\troot\t_\n", "line 3: expected 10 tab-separated columns, found 9"),
        (rows(2, 0, 9), "line 3: head 9 is out of range, expected 0 to 3"),
        (rows(2, 0, -1), "line 3: head -1 is out of range"),
        (rows(0, 3, 2), "line 2: word 2 is its own ancestor, expected a tree and found a cycle"),
        (rows(0, 2), "line 2: word 2 is its own ancestor"),
        (rows(2, 1), "line 1: the sentence has no root, expected one word with head 0"),
        (rows(0, 1, 0), "line 3: the sentence has 2 roots, expected one word with head 0"),
        (rows(0, "_"), "line 2: expected an integer as head, found '_'"),
        (rows(0, "²"), "line 2: expected an integer as head, found '²'"),
        (rows(0, "9" * 5000), "line 2: expected an integer as head, found '999"),
        (rows(0).replace("1\t", "x\t", 1), "line 1: expected an integer as id, found 'x'"),
        (rows(0).replace("1\t", "\t", 1), "line 1: expected an integer as id, found ''"),
        (rows(0).replace("1\t", "1-²\t", 1), "line 1: expected an integer as id, found '1-²'"),
        (rows(0).replace("1\t", "x.1\t", 1), "line 1: expected an integer as id, found 'x.1'"),
        (rows(0).replace("1\t", "1-\t", 1), "line 1: expected an integer as id, found '1-'"),
        (rows(0).replace("1\t", ".1\t", 1), "line 1: expected an integer as id, found '.1'"),
        (rows(0).replace("1\t", "--1\t", 1), "line 1: expected an integer as id, found '--1'"),
        (rows(0).replace("1\t", "-1\t", 1), "line 1: expected id 1, found '-1'"),
        (rows(0).replace("1\t", "123456789\t", 1), "line 1: expected id 1, found '123456789'"),
        (rows(0).replace("1\t", "1234567890\t", 1), "line 1: expected an integer as id, found '1234567890'"),
        (rows(0, 123456789), "line 2: head 123456789 is out of range, expected 0 to 2"),
        (rows(0, 1234567890), "line 2: expected an integer as head, found '1234567890'"),
        (rows(0, 1, 1).replace("3\tw3", "4\tw3"), "line 3: expected id 3, found '4'"),
        (rows(0).replace("1\t", "01\t", 1), "line 1: expected id 1, found '01'"),
        (rows(0).rstrip("\n") + "\n" + rows(0), "line 2: expected id 2, found '1'"),
        (rows(0).replace("w1", "  "), "line 1: expected a word in column 2, found nothing"),
        ("1-2\tab" + "\t_" * 8 + "\n\n", "line 1: expected words, found only multiword tokens or empty nodes"),
        ("# a comment\n\n", "expected CoNLL-U sentences, found none"),
        ("", "expected CoNLL-U sentences, found none"),
    ],
)
def test_every_flaw_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BertftError) as error:
        read_conllu(write(tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path / 'a.conllu'}: {message}")
    assert "\n" not in str(error.value)


def test_find_tree_flaw_agrees_with_brute_force() -> None:
    for n in (1, 2, 3, 4):
        for heads in itertools.product(range(n + 1), repeat=n):
            reaches = True
            for start in range(1, n + 1):
                node = start
                for _ in range(n):
                    node = heads[node - 1] if node else 0
                reaches = reaches and node == 0
            assert (find_tree_flaw(heads) is None) == (reaches and heads.count(0) == 1), heads


def test_written_sentences_read_back_equal(tmp_path: Path) -> None:
    sentences = read_conllu(write(tmp_path, GOOD))
    for name in ("b.conllu", "b.conllu.gz"):
        write_conllu(tmp_path / name, sentences)
        assert read_conllu(tmp_path / name) == sentences
    assert gzip.decompress((tmp_path / "b.conllu.gz").read_bytes()) == (tmp_path / "b.conllu").read_bytes()


def test_predicted_heads_and_relations_are_written(tmp_path: Path) -> None:
    sentences = read_conllu(write(tmp_path, GOOD))
    write_conllu(tmp_path / "b.conllu", sentences, [[0, 1, 1, 3], [0]], [["root", "a", "b", "c"], ["root"]])
    assert read_conllu(tmp_path / "b.conllu")[0].heads == (0, 1, 1, 3)
    assert read_conllu(tmp_path / "b.conllu")[0].relations == ("root", "a", "b", "c")


def test_heads_that_are_no_tree_are_not_written(tmp_path: Path) -> None:
    sentences = read_conllu(write(tmp_path, GOOD))
    path = tmp_path / "b.conllu"
    for heads, message in (
        ([[0, 1, 1, 3]], "expected heads and relations for 2 sentences, found 1 lists of heads and 2 of relations"),
        ([[0, 1, 1], [0]], "sentence s-1: expected 4 heads and relations, found 3 heads and 4 relations"),
        ([[0, 3, 2, 1], [0]], "sentence s-1: word 2: word 2 is its own ancestor"),
    ):
        with pytest.raises(BertftError) as error:
            write_conllu(path, sentences, heads)
        assert message in str(error.value)
        assert not path.exists()
