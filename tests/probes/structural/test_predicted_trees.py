"""Files of predicted trees."""

from __future__ import annotations

import torch

from bertft.data.examples import Sentence
from bertft.data.readers.conllu import read_conllu
from bertft.probes.structural.predicted_trees import predicted_heads, write_trees

SENTENCES = [
    Sentence("a1", ("Dogs", "bark", "."), (2, 0, 2), ("a", "root", "b"), ("NOUN", "VERB", "PUNCT"), ("X", "Y", "Z")),
    Sentence("a2", ("Stop",), (0,), ("root",), ("VERB",), ("V",)),
    Sentence("a3", ("big", "cat"), (2, 0), ("amod", "root"), ("ADJ", "NOUN"), ("J", "N")),
]  # fmt: skip
TEXT = """# generator = bertft structural probe
# layer = 7
# sent_id = a1
# text = Dogs bark .
1\tDogs\t_\tNOUN\tX\t_\t3\tdep\t_\tGoldHead=2
2\tbark\t_\tVERB\tY\t_\t1\tdep\t_\tGoldHead=0
3\t.\t_\tPUNCT\tZ\t_\t0\troot\t_\tGoldHead=2

# sent_id = a2
# text = Stop
1\tStop\t_\tVERB\tV\t_\t0\troot\t_\tGoldHead=0

# sent_id = a3
# text = big cat
1\tbig\t_\tADJ\tJ\t_\t0\troot\t_\tGoldHead=2
2\tcat\t_\tNOUN\tN\t_\t1\tdep\t_\tGoldHead=0

"""


def test_trees_are_written_as_conllu_with_the_gold_heads(tmp_path):
    points = torch.tensor([1.0, 3.0, 0.0, 5.0, 2.0, 9.0])[:, None]  # "Dogs" lies between "bark" and "."
    write_trees(tmp_path / "trees", SENTENCES, points, torch.tensor([3.0, 2.0, 1.0, 9.0, 4.0, 5.0]), layer=7)
    assert (tmp_path / "trees").read_text(encoding="utf8") == TEXT
    assert [(s.words, s.heads) for s in read_conllu(tmp_path / "trees")] == [
        (("Dogs", "bark", "."), (3, 1, 0)),
        (("Stop",), (0,)),
        (("big", "cat"), (0, 1)),
    ]


def test_the_first_of_equal_depths_is_the_root():
    assert predicted_heads(torch.zeros(3, 2), torch.ones(3)) == [0, 1, 1]
    assert predicted_heads(torch.tensor([[0.0], [4.0], [1.0]]), torch.tensor([2.0, 1.0, 1.0])) == [3, 0, 2]
