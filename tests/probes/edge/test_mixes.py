"""Probes of the mix of all layers alone, beside those of every mix."""

from __future__ import annotations

import pytest

from bertft.data.sources import load
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.probes.edge import driver
from bertft.probes.edge.driver import edge_probes
from bertft.probes.edge.head import Input, all_inputs
from bertft.probes.edge.training import EdgeTraining

FAST = EdgeTraining(learning_rate=1e-3, batch=8, interval=2, steps=4)


def test_the_top_mix_leaves_out_the_lower_ones():
    assert all_inputs(4) == [
        *(Input("layer", k) for k in range(4)),
        *(Input("cat", 3), Input("mix", 1), Input("mix", 2), Input("mix", 3)),
    ]
    assert all_inputs(4, "top") == [i for i in all_inputs(4) if i.kind != "mix" or i.layer == 3]
    assert all_inputs(2, "top") == all_inputs(2) and all_inputs(1, "top") == [Input("layer", 0)]
    with pytest.raises(BertftError, match="mixes must be all or top, found lowest"):
        all_inputs(4, "lowest")


def test_scores_of_the_other_inputs_stay(tiny_model, tmp_path, monkeypatch):
    encoders = {"base": Encoder.from_pretrained(str(tiny_model))}
    corpora = [load("spans", "builtin:synthetic?size=12", split=split) for split in ("train", "dev")]
    settings = {"training": FAST, "control": False, "resamples": 20, "out": tmp_path}
    every = {(row.measure, row.layer): row.value for row in edge_probes(encoders, *corpora, **settings).rows}
    top = {(row.measure, row.layer): row.value for row in edge_probes(encoders, *corpora, mixes="top", **settings).rows}
    layers = encoders["base"].num_layers - 1
    lower = {key for key in every if key[0].startswith("mix_") and key[1] != layers} | {("expected_layer", None)}
    assert set(top) == set(every) - lower and ("mix_micro_f1", layers) in top
    assert {key: value for key, value in every.items() if key in top} == pytest.approx(top, abs=0.03)

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(driver, "train_heads", never)  # finished probes are of all mixes or of the top one
    assert edge_probes(encoders, *corpora, mixes="top", **settings).rows
    with pytest.raises(AssertionError, match="trained again"):
        edge_probes(encoders, *corpora, **settings)
