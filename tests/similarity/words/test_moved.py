"""Words that moved.

Local RSA of all vectors at once, labels, words in context.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from bertft.data import synthetic
from bertft.data.examples import Sentence, Text
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.similarity.compare.stimuli import in_windows
from bertft.similarity.words.labels import LABELS, labels_of
from bertft.similarity.words.local_rsa import LabelMean
from bertft.similarity.words.moved import (
    Moved,
    MovedSentence,
    Word,
    _extreme_sentences,
    _extremes,
    words_that_moved,
    write_moved,
)

SENTENCES = synthetic.sentences(30, seed=3)


@pytest.fixture(scope="module")
def encoders(tiny_model):
    base, tuned = Encoder.from_pretrained(str(tiny_model)), Encoder.from_pretrained(str(tiny_model))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in tuned.model.encoder.layer[1].parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=g).to(weight.device))
    return base, tuned


def test_equals_brute_force_and_names_the_extremes(encoders):
    base, tuned = encoders
    moved = words_that_moved(base, {"t": tuned}, SENTENCES, ["upos", "depth"], extremes=5, batch_tokens=256)["t"]
    rows = []
    for encoder in encoders:
        parts = [next(encoder.stream([s.words])).vectors for s in SENTENCES]
        rows.append(torch.cat(parts, dim=1).double().cpu().numpy())
    upos = np.array([tag for s in SENTENCES for tag in s.upos])
    n = len(upos)
    for layer in (2, 3):
        a, b = (squareform(pdist(t[layer], "cosine")) for t in rows)
        others = ~np.eye(n, dtype=bool)
        local = np.array([np.corrcoef(a[i, others[i]], b[i, others[i]])[0, 1] for i in range(n)])
        table = {row.label: row for row in moved.by["upos"] if row.layer == layer}
        assert set(table) == set(upos) and sum(row.n for row in table.values()) == n
        for tag, row in table.items():
            assert row.value == pytest.approx(local[upos == tag].mean(), abs=1e-6)
            assert row.low is None or row.low < row.value < row.high
        words = [word for s in SENTENCES for word in s.words]
        lowest = [word for word in moved.most if word.layer == layer]
        assert [word.value for word in lowest] == pytest.approx(np.sort(local)[:5], abs=1e-6)
        assert [word.word for word in lowest] == [words[i] for i in np.argsort(local, kind="stable")[:5]]
        assert all(f"[{word.word}]" in word.context for word in moved.least)
        means = np.array([part.mean() for part in np.split(local, np.cumsum([len(s.words) for s in SENTENCES])[:-1])])
        for listed, order in ((moved.sentences_most, np.argsort(means)), (moved.sentences_least, np.argsort(-means))):
            of_layer = [row for row in listed if row.layer == layer]
            assert [row.value for row in of_layer] == pytest.approx(means[order[:5]], abs=1e-6)
            expected = [SENTENCES[i] for i in order[:5]]
            assert [(row.sentence, row.n, row.text) for row in of_layer] == [
                (s.id, len(s.words), " ".join(s.words)) for s in expected
            ]


def test_another_metric_and_texts_longer_than_a_window(encoders):
    """Plain text is cut at white space and, if need be, into windows."""
    base, tuned = encoders
    words = [word for s in SENTENCES for word in s.words][:120]
    texts = [Text("7", " ".join(words)), *(Text(str(i), "the dogs saw them") for i in range(5))]
    moved = words_that_moved(base, {"t": tuned}, texts, ["position"], metric="sqeuclidean", extremes=500)["t"]
    parts = [part for _, part in in_windows([words, *[["the", "dogs", "saw", "them"]] * 5], encoders)]
    assert len(parts) > 6
    rows = []
    for encoder in encoders:
        vectors = [next(encoder.stream([part])).vectors for part in parts]
        rows.append(torch.cat(vectors, 1)[3].cpu().double().numpy())
    a, b = (squareform(pdist(t, "sqeuclidean")) for t in rows)
    others = ~np.eye(len(a), dtype=bool)
    local = np.array([np.corrcoef(a[i, others[i]], b[i, others[i]])[0, 1] for i in range(len(a))])
    found = [word for word in moved.most if word.layer == 3]
    assert sorted(word.value for word in found) == pytest.approx(np.sort(local), abs=1e-5)
    last = [row for row in moved.by["position"] if row.layer == 3 and row.label == 50]
    assert last[0].n == 70 and last[0].value == pytest.approx(local[50:120].mean(), abs=1e-5)


def test_sentences_without_words_are_not_among_the_extremes():
    sentences = [Sentence(str(i), ("a",) * n, (), (), (), ()) for i, n in enumerate((2, 0, 1, 0))]
    values, groups = torch.tensor([[0.1, 0.3, 0.9]], dtype=torch.float64), torch.tensor([0, 0, 2])
    for most, expected in ((True, ["0", "2"]), (False, ["2", "0"])):
        found = _extreme_sentences(values, groups, sentences, 9, most=most)
        assert [row.sentence for row in found] == expected and {row.sentence: row.n for row in found} == {
            "0": 2,
            "2": 1,
        }
        assert sorted(row.value for row in found) == pytest.approx([0.2, 0.9])


def test_extreme_words_stand_between_twelve_on_either_side():
    words = [f"w{k}" for k in range(30)]
    sentences = [Sentence("a", tuple("xyz"), (), (), (), ()), Sentence("b", tuple(words), (), (), (), ())]
    values = torch.linspace(0.9, 0.1, 33, dtype=torch.float64)
    values = torch.stack([values, values.roll(14)])  # the lowest is the last word, and the eleventh of the second text
    groups = torch.tensor([0] * 3 + [1] * 30)
    low = _extremes(values, groups, sentences, 1, most=True)
    assert low == [
        Word(0, values[0].min().item(), "w29", "b", " ".join([*words[17:29], "[w29]"])),
        Word(1, values[1].min().item(), "w10", "b", " ".join([*words[:10], "[w10]", *words[11:23]])),
    ]
    high = _extremes(values[:1], groups, sentences, 2, most=False)
    assert [(row.word, row.sentence, row.context) for row in high] == [("x", "a", "[x] y z"), ("y", "a", "x [y] z")]


def test_depths_are_counted_up_to_ten():
    chain = Sentence("s", tuple("abcdefghijklm"), tuple(range(13)), ("",) * 13, ("",) * 13, ("",) * 13)
    assert labels_of(["depth"], [chain])["depth"] == [*range(11), 10, 10]


def test_labels():
    counts = {word.lower(): 1 for s in SENTENCES for word in s.words}
    for name, label in LABELS.items():
        assert all(len(label(s, counts)) == len(s.words) for s in SENTENCES), name
    sentence = SENTENCES[0]
    depths = LABELS["depth"](sentence, counts)
    assert [depths[i] for i, head in enumerate(sentence.heads) if head == 0] == [0]
    assert all(depths[i] == depths[head - 1] + 1 for i, head in enumerate(sentence.heads) if head and depths[i] < 10)


def test_keys_of_conllu_columns():
    sentences = [
        Sentence("a", ("dogs", "bark"), (2, 0), ("nsubj", "root"), ("NOUN", "VERB"), ("NNS", "VBP"), feats, ("_", "_"))
        for feats in (("Case=Nom|Number=Plur", "_"), ("_", "Number=Sing|Person=3"))
    ]
    assert labels_of(["feats:Number"], sentences)["feats:Number"] == ["Plur", "_", "_", "Sing"]
    odd = dataclasses.replace(sentences[0], feats=("Number=a=b", "_"))  # the first = ends the name
    assert labels_of(["feats:Number"], [odd])["feats:Number"] == ["a=b", "_"]
    odd = dataclasses.replace(
        sentences[0], misc=("a:b=c|b=d", "_"), relations=("a:b:c", "root")
    )  # and the first : a column
    assert labels_of(["misc:a:b", "relation"], [odd]) == {"misc:a:b": ["c", "_"], "relation": ["a", "root"]}


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("colour", "by must be some of upos.*'colour'"),
        ("feats:", "by must be some of upos.*'feats:'"),
        ("feats:Number", "does not have 'feats:Number'"),
    ],
)
def test_missing_labels_are_refused(encoders, by, words):
    base, tuned = encoders
    with pytest.raises(BertftError, match=words):
        words_that_moved(base, {"t": tuned}, SENTENCES, [by])
    with pytest.raises(BertftError, match="does not have 'upos'"):
        labels_of(["upos"], [Text("1", "the dogs saw them")])
    sentence = Sentence("a", ("x",), (0,), ("root",), ("X",), ("X",), ("_",), ("SpaceAfter=No",))
    with pytest.raises(BertftError, match="no word of the text has 'misc:Gloss'"):
        labels_of(["misc:Gloss"], [sentence])


def test_tables_without_rows_have_their_header(tmp_path):
    write_moved({}, tmp_path, "text")
    heads = ("layer,by,label,value,low,high,n", "layer,moved,value,word,sentence,context",
             "layer,moved,value,n,sentence,text")  # fmt: skip
    for file, head in zip(("local.csv", "words.csv", "sentences.csv"), heads, strict=True):
        assert (tmp_path / file).read_text("utf8") == f"model,data,metric,{head}\n"


def test_the_words_that_moved_show_themselves_and_are_escaped():
    means = [LabelMean(label, layer, 0.1 * layer, None, None, 3) for layer in (0, 1) for label in ("NOUN", "<i>")]
    words = [Word(layer, 0.25, "<b>", "s1", f"a [<b>] in {layer}") for layer in (0, 1)]
    moved = Moved({"upos": means}, words, [], [], [])
    lines = repr(moved).splitlines()
    assert lines[0] == "local RSA by upos at layer 1 (1 = not moved)" and lines[2].split() == ["NOUN", "0.100", "3"]
    assert "0.250  a [<b>] in 1" in lines and not any("in 0" in line for line in lines)
    html = moved._repr_html_()
    assert "<td>0.250</td><td>a [&lt;b&gt;] in 1</td>" in html and "<b>" not in html and "<td>&lt;i&gt;</td>" in html


def test_tables_have_every_field_in_its_column(tmp_path):
    word, sentence = Word(3, 0.25, "w", "s1", "a [w]"), MovedSentence(4, 0.5, "s2", 6, "a b, c")
    means = {"upos": [LabelMean("X", 1, 0.1, 0.0, 0.2, 9)], "form": [LabelMean("x", 2, 0.3, None, None, 1)]}
    moved = Moved(
        means, [word], [dataclasses.replace(word, value=0.75)], [sentence], [dataclasses.replace(sentence, n=7)]
    )
    write_moved({"cosine": {"t": moved}}, tmp_path, "toy")
    assert (tmp_path / "local.csv").read_text("utf8").splitlines() == [
        "model,data,metric,layer,by,label,value,low,high,n",
        "t,toy,cosine,1,upos,X,0.1,0.0,0.2,9",
        "t,toy,cosine,2,form,x,0.3,,,1",
    ]
    assert (tmp_path / "words.csv").read_text("utf8").splitlines() == [
        "model,data,metric,layer,moved,value,word,sentence,context",
        "t,toy,cosine,3,most,0.25,w,s1,a [w]",
        "t,toy,cosine,3,least,0.75,w,s1,a [w]",
    ]
    assert (tmp_path / "sentences.csv").read_text("utf8").splitlines() == [
        "model,data,metric,layer,moved,value,n,sentence,text",
        't,toy,cosine,4,most,0.5,6,s2,"a b, c"',
        't,toy,cosine,4,least,0.5,7,s2,"a b, c"',
    ]
