"""Scores and written parses of finished folders.

The official evaluation is the reference.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from udtools import udeval

from bertft.data.readers.conllu import read_conllu
from bertft.errors import BertftError
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.evaluation import evaluate, load_finetuned, predict_conllu
from bertft.models.finetuning.run import finetune

EWT = """\
# sent_id = s1
# text = I don't know.
1\tI\tI\tPRON\tPRP\t_\t4\tnsubj\t4:nsubj\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t4:aux\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t4:advmod\t_
4\tknow\tknow\tVERB\tVB\t_\t0\troot\t0:root\tSpaceAfter=No
5\t.\t.\tPUNCT\t.\t_\t4\tpunct\t4:punct\t_

# sent_id = s2
# text = Gonna be seen today
1-2\tGonna\t_\t_\t_\t_\t_\t_\t_\t_
1\tGoing\tgo\tVERB\tVBG\t_\t0\troot\t0:root\t_
2\tto\tto\tPART\tTO\t_\t4\tmark\t4:mark\t_
3\tbe\tbe\tAUX\tVB\t_\t4\taux:pass\t4:aux:pass\t_
4\tseen\tsee\tVERB\tVBN\t_\t1\txcomp\t1:xcomp\t_
4.1\tseen\tsee\tVERB\tVBN\t_\t_\t_\t1:conj\t_
5\ttoday\ttoday\tNOUN\tNN\t_\t4\tobl:tmod\t4:obl:tmod\t_

"""


@pytest.fixture(scope="module")
def parser_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parser") / "dep"
    source = "builtin:synthetic?split=train&size=64&seed=1"
    finetune(FinetuneConfig("dep", str(tiny_model), source, source, out, epochs=1, learning_rate=1e-3, max_length=128))
    return out


def official(gold: str, system: str) -> dict[str, float]:
    loaded = [udeval.load_conllu(io.StringIO(text), "x", _types()) for text in (gold, system)]
    scores = udeval.evaluate(*loaded)
    return {"las_conll18": 100 * scores["LAS"].f1, "uas_conll18": 100 * scores["UAS"].f1}


def _types() -> dict[str, int]:
    return dict.fromkeys(
        (
            "no_gapping",
            "no_shared_parents_in_coordination",
            "no_shared_dependents_in_coordination",
            "no_control",
            "no_external_arguments_of_relative_clauses",
            "no_case_info",
            "no_empty_nodes",
            "multiple_roots_okay",
        ),
        0,
    )


def test_scores_equal_the_official_evaluation(parser_folder, tmp_path):
    gold = tmp_path / "gold.conllu"
    gold.write_text(EWT, encoding="utf8")
    system = tmp_path / "system.conllu"
    predict_conllu(parser_folder, gold, system)
    expected = official(EWT, system.read_text(encoding="utf8"))
    measures, rows = evaluate(parser_folder, gold)
    for name, value in expected.items():
        assert measures[name] == pytest.approx(value, abs=1e-9)
    assert {row.data for row in rows} == {"gold"} and {row.n for row in rows} == {2}


def test_parsed_file_keeps_tokens_and_drops_unpredicted_columns(parser_folder, tmp_path):
    packed = tmp_path / "gold.conllu.gz"
    packed.write_bytes(gzip.compress(EWT.encode()))
    predict_conllu(parser_folder, packed, tmp_path / "system.conllu")
    lines = (tmp_path / "system.conllu").read_text(encoding="utf8").split("\n")
    gold = [line for line in EWT.split("\n") if not line.startswith("4.1")]
    assert len(lines) == len(gold)
    for found, expected in zip(lines, gold, strict=True):
        assert found.split("\t")[:6] == expected.split("\t")[:6]
    assert all(line.split("\t")[8] == "_" for line in lines if "\t" in line)
    parses = load_finetuned(parser_folder).predict(read_conllu(packed))
    assert [s.heads for s in read_conllu(tmp_path / "system.conllu")] == [parse.heads for parse in parses]


def test_synthetic_corpus_is_parsed_to_a_file(parser_folder, tmp_path):
    predict_conllu(parser_folder, "builtin:synthetic?size=5&seed=2", tmp_path / "parsed.conllu")
    assert len(read_conllu(tmp_path / "parsed.conllu")) == 5


def test_folder_that_is_not_fine_tuned_is_refused(tiny_model, tmp_path):
    with pytest.raises(BertftError, match=r"expected a folder made by finetune, found none with bertft\.json"):
        load_finetuned(tiny_model)
