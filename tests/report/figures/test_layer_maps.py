"""Heat maps of all layers: cells, files and drawing."""

from __future__ import annotations

from bertft.report.draw.paper import draw
from bertft.report.figures.layer_maps import layer_maps
from bertft.runs.rows import Row


def rows(*texts: str) -> list[Row]:
    return [
        Row("dep", "heatmap", text, layer, f"{measure}_base{base}", base + layer / 10, n=9)
        for text in texts
        for measure in ("rsa_cosine_pearson", "cka_debiased")
        for base in range(2)
        for layer in range(3)
    ]


def test_a_cell_is_a_layer_of_the_base_by_a_layer_of_the_tuned_encoder():
    rsa, cka = layer_maps(rows("plain"))
    assert (rsa.name, cka.name) == ("rsa_cosine_pearson_layers", "cka_debiased_layers")
    assert rsa.title.endswith("by RSA") and cka.title.endswith("by CKA")
    (panel,) = rsa.panels
    assert panel.values == [[0.0, 0.1, 0.2], [1.0, 1.1, 1.2]]
    assert (panel.rows, panel.columns) == (["0", "1"], ["0", "1", "2"])
    assert rsa.to_csv().splitlines()[:3] == ["panel,row,column,value", "dep,0,0,0.0", "dep,0,1,0.1"]


def test_several_texts_have_files_of_their_own():
    names = [figure.name for figure in layer_maps(rows("plain", "wiki"))]
    assert names[:2] == ["rsa_cosine_pearson_layers_plain", "cka_debiased_layers_plain"] and len(set(names)) == 4


def test_heat_maps_are_drawn_byte_by_byte_the_same():
    figure = layer_maps(rows("plain"))[0]
    png, svg = draw(figure)
    assert png.startswith(b"\x89PNG") and (png, svg) == draw(figure)
    assert svg.decode().count("<!-- 1.10 -->") == 1  # the value in its cell
