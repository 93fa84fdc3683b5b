"""The page in Chromium.

Both themes, small screens, keyboard and hostile text.
"""

from __future__ import annotations

import base64
import csv
import dataclasses

import browser as chromiums
import pytest
import yaml
from browser import browser

from bertft.report import write_report
from bertft.report.page.answer import Answer, Number, Said
from bertft.report.page.figure_section import Cell
from bertft.report.write import write_report as write_with_answer
from bertft.runs.rows import Row, write_results

PANELS = 8


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def test_without_chromium_tests_are_skipped_or_fail_as_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setattr(chromiums, "CHROMIUM", None)
    for value, outcome in (("1", pytest.fail.Exception), ("", pytest.skip.Exception)):
        monkeypatch.setenv("BERTFT_REQUIRE_BROWSER", value)
        with pytest.raises(outcome, match="no Chromium"), browser(tmp_path):
            pass


def shown(chromium) -> int:
    """Return the number of visible lines in all panels."""
    return chromium.run("document.querySelectorAll('.plot .scatterlayer .trace .lines path').length")


def test_every_panel_is_drawn_without_console_messages_or_requests(chromium, page):
    chromium.open(page)
    assert chromium.run("document.documentElement.dataset.drawn") == str(PANELS)
    assert chromium.run("document.querySelectorAll('.plot svg.main-svg').length") >= PANELS
    assert chromium.errors == []
    assert [url for url in chromium.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert [url for url in chromium.requests if url.startswith("file:")] == [page.as_uri()]


def test_toggles_hide_and_show_an_encoder_in_every_figure_by_keyboard(chromium, page):
    chromium.open(page)
    before = shown(chromium)
    chromium.run("document.querySelector('.toggles input[value=dep]').focus()")
    chromium.press(" ", 32, " ")
    assert not chromium.run("document.querySelector('.toggles input[value=dep]').checked")
    without = shown(chromium)
    assert without < before
    labels = "[...document.querySelectorAll('.plot .annotation-text')].filter(n => n.textContent == 'dep').length"
    of_text = chromium.run(labels)  # labels of texts in the other encoder's panel
    chromium.press(" ", 32, " ")
    assert shown(chromium) == before and chromium.run(labels) > of_text
    assert chromium.errors == []


def test_the_keyboard_reaches_all_controls_with_visible_focus(chromium, page):
    chromium.open(page)
    seen = []
    for _ in range(12):
        chromium.press("Tab", 9)
        seen.append(chromium.run("document.activeElement.className || document.activeElement.tagName"))
    assert seen[:2] == ["skip", "theme"] and "INPUT" in seen and "A" in seen and "SUMMARY" in seen
    assert chromium.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
    chromium.run("document.querySelector('details summary').focus()")
    chromium.press("Enter", 13, "\r")
    assert chromium.run("document.querySelector('details').open")


@pytest.mark.parametrize("width", [320, 768])
def test_the_page_fits_its_window(chromium, page, width):
    chromium.open(page, width=width, height=800, phone=width < 500)
    assert chromium.run("document.documentElement.scrollWidth") <= width
    widths = chromium.run(
        "[...document.querySelectorAll('.plot')].map(n => [n.clientWidth, n.querySelector('svg').clientWidth])"
    )
    assert len(widths) == PANELS and all(200 < drawn <= room <= width for room, drawn in widths)
    chromium.run("document.querySelectorAll('details').forEach(node => { node.open = true })")
    assert chromium.run("document.documentElement.scrollWidth") <= width


def test_a_long_list_of_downloads_wraps_on_a_phone(chromium, page):
    chromium.open(page, width=320, height=800, phone=True)
    chromium.run("""document.querySelectorAll('.downloads').forEach(node => {
      for (let i = 0; i < 6; i++) {
        const link = document.createElement('a');
        link.href = '#'; link.textContent = 'wikipedia_sentences.csv'; node.append(link);
      }
    })""")
    assert chromium.run("document.querySelectorAll('.downloads a').length") > 6
    assert chromium.run("document.documentElement.scrollWidth") <= 320


def contrast(chromium, selector: str, kind: str = "color") -> float:
    """Return the WCAG contrast of the first such element's ``kind`` of colour to its background, page or mark."""
    script = """(() => {
      const page = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
      const light = (text) => {
        const found = text.match(/[\\d.]+/g).map(Number), share = found[3] ?? 1;
        const parts = found.slice(0, 3).map((v, i) => (share * v + (1 - share) * page[i]) / 255)
          .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
      };
      const node = document.querySelector(SELECTOR);
      const behind = getComputedStyle(node.closest("mark") ?? document.body).backgroundColor;
      const pair = [light(getComputedStyle(node).KIND), light(behind)];
      return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    })()"""
    return chromium.run(script.replace("SELECTOR", repr(selector)).replace("KIND", kind))


def test_both_themes_have_enough_contrast_and_figures_follow(chromium, page):
    colours = []
    for dark in (False, True):
        chromium.open(page, dark=dark)
        for selector in ("body", ".caption", "a", "summary", "td small"):
            assert contrast(chromium, selector) >= 4.5, (dark, selector)
        colours.append(chromium.run("getComputedStyle(document.querySelector('.plot .ytick text')).fill"))
    assert colours[0] != colours[1]
    chromium.theme(False)
    chromium.settle()
    assert chromium.run("getComputedStyle(document.querySelector('.plot .ytick text')).fill") == colours[0]


def test_the_theme_button_works_by_keyboard_and_stores_the_choice(chromium, page):
    ground = "getComputedStyle(document.body).backgroundColor"
    label = "document.querySelector('.theme').getAttribute('aria-label')"
    tick = "getComputedStyle(document.querySelector('.plot .ytick text')).fill"
    chromium.open(page, dark=True)
    dark, dark_tick = chromium.run(ground), chromium.run(tick)
    assert chromium.run(label) == "Colours: as the system. Press for light."
    chromium.run("document.querySelector('.theme').focus()")
    chromium.press("Enter", 13, "\r")
    assert chromium.run(label) == "Colours: light. Press for dark."
    light = chromium.run(ground)
    assert light != dark and chromium.run(tick) != dark_tick
    chromium.open(page, dark=True)
    assert chromium.run(ground) == light  # the choice is stored
    chromium.press("Tab", 9)
    chromium.press("Tab", 9)
    assert chromium.run("document.activeElement.className") == "theme"
    chromium.press(" ", 32, " ")
    chromium.theme(False)
    assert chromium.run(ground) == dark and chromium.run(tick) == dark_tick  # independent of the system
    chromium.press(" ", 32, " ")
    assert chromium.run(ground) == light and chromium.run("document.documentElement.dataset.theme") is None
    assert chromium.errors == []


def test_the_theme_button_works_without_storage(chromium, page, tmp_path):
    barred = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('barred'); } });"
    text = page.read_text(encoding="utf8").replace("<script>", f"<script>{barred}</script><script>", 1)
    (tmp_path / "page.html").write_text(text, encoding="utf8")
    chromium.open(tmp_path / "page.html")
    chromium.run("document.querySelector('.theme').click()")
    chromium.run("document.querySelector('.theme').click()")
    assert chromium.run("document.documentElement.dataset.theme") == "dark"
    assert chromium.errors == []


def test_heat_maps_are_drawn_with_values_a_table_and_a_toggle(chromium, tmp_path):
    table = [
        Row(model, "heatmap", "plain", layer, f"rsa_cosine_pearson_base{other}", 1 - abs(layer - other) / 4, n=9)
        for model in ("dep", "mnli") for layer in range(3) for other in range(3)
    ]  # fmt: skip
    similar = [Row(model, "rsa", "plain", k, "rsa_cosine_pearson", 0.5) for model in ("dep", "mnli") for k in range(3)]
    write_results(tmp_path / "results.csv", [*similar, *table])
    chromium.open(write_report(tmp_path), width=400, phone=True)
    maps = "[...document.querySelectorAll('.plot')].filter(node => node.querySelector('.heatmaplayer image'))"
    assert chromium.run(f"{maps}.length") == 2
    assert chromium.run(f"[...{maps}[0].querySelectorAll('.heatmap-label')].map(n => n.textContent)").count("1.00") == 3
    section = f"{maps}[0].closest('section')"
    chromium.run(f"{section}.querySelector('details').open = true")
    assert chromium.run(f"{section}.querySelectorAll('details td').length") == 18
    assert chromium.run("document.documentElement.scrollWidth") <= 400
    chromium.run("document.querySelector('.toggles input[value=mnli]').click()")
    assert chromium.run(f"{maps}.length") == 1 and chromium.errors == []


def test_the_film_is_stepped_by_keyboard_and_played(chromium, tmp_path):
    table = [
        Row(f"{share} %", "along", task, layer, "rsa_cosine_pearson", 1 - share * layer / 400, 0.1, 1.0, n=9)
        for task in ("dep", "mnli") for share in (0, 5, 100) for layer in range(3)
    ]  # fmt: skip
    (tmp_path / "results").mkdir()
    write_results(tmp_path / "results" / "along_training.csv", table)
    (tmp_path / "results" / "other.csv").write_text("a,b\n", encoding="utf8")
    chromium.open(write_report(tmp_path), width=400, phone=True)
    assert "no layer-by-layer results" not in chromium.run("document.body.innerText")
    assert chromium.run("document.querySelector('.toggles')") is None  # moments are not encoders
    label = "[...document.querySelectorAll('.plot .annotation-text')].map(node => node.textContent)"
    said = "document.querySelector('.film output').textContent"
    curves = "document.querySelectorAll('.plot .scatterlayer .trace .points').length"
    assert (chromium.run(curves), chromium.run(label), chromium.run(said)) == (6 + 2, ["100 %"] * 2, "100 %")
    chromium.run("document.querySelector('.film input').focus()")
    chromium.press("ArrowLeft", 37)
    assert (chromium.run(curves), chromium.run(label), chromium.run(said)) == (4 + 2, ["5 %"] * 2, "5 %")
    chromium.press("Home", 36)
    assert chromium.run(curves) == 2 + 2  # only the band of the current moment
    ended = "new Promise(done => new MutationObserver(() => said.textContent == '100 %' && done(1))"
    played = f"(said => {{ document.querySelector('.film button').click(); return {ended}"
    played += ".observe(said, {childList: true})) })(document.querySelector('.film output'))"
    assert chromium.run(played) == 1
    assert chromium.run("document.querySelector('.film button').textContent") == "Play"
    assert chromium.run("document.documentElement.scrollWidth") <= 400 and chromium.errors == []


def test_downloads_equal_the_files_of_the_folder(chromium, page):
    chromium.open(page)
    links = dict(chromium.run("[...document.querySelectorAll('.downloads a')].map(node => [node.download, node.href])"))
    files = {path.name: path.read_bytes() for path in (page.parent / "figures").iterdir()}
    assert set(links) == set(files)
    for name, link in links.items():
        assert base64.b64decode(link.partition("base64,")[2]) == files[name]


def test_every_figure_has_its_table(chromium, page):
    chromium.open(page)
    sections = "[...document.querySelectorAll('main > section')].filter(node => node.querySelector('.plot'))"
    assert chromium.run(f"{sections}.length") == 4
    tables = "node.querySelectorAll('details table').length == node.querySelectorAll('.plot').length"
    assert chromium.run(f"{sections}.every(node => {tables})")


EVIL = (
    '</script><script>window.hit=1</script>',
    '"><img src=x onerror="window.hit=1">',
    "'><svg onload='window.hit=1'></svg>",
    '" onmouseover="window.hit=1" autofocus onfocus="window.hit=1',
    "</text></svg><script>window.hit=1</script>",
    "</style></title></textarea><script>window.hit=1</script><!--",
    "javascript:window.hit=1",
    "${window.hit=1}{{window.hit=1}}",
    "&lt;script&gt;window.hit=1&lt;/script&gt;",
)  # fmt: skip
"""Names and sentences that try to run code."""


def nothing_ran(chromium) -> bool:
    """Return whether no planted code ran after unfolding, focusing and hovering over every element."""
    chromium.run("document.querySelectorAll('details').forEach(node => { node.open = true })")
    chromium.run(
        "document.querySelectorAll('body *').forEach(node => { node.dispatchEvent(new Event('mouseover'));"
        " node.dispatchEvent(new Event('focus')) })"
    )
    chromium.settle()
    return chromium.run("window.hit") is None and chromium.errors == []


def test_markup_in_names_is_not_executed(chromium, folder, config, rows):
    evil = "".join(EVIL)
    config |= {"name": evil, "description": evil}
    table = [
        *rows[:2],
        *(Row(evil, "rsa", evil, layer, "rsa_cosine_pearson", 0.5 + layer / 9, n=3) for layer in range(3)),
    ]
    write_results(folder / "results.csv", table)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf8")
    chromium.open(write_report(folder))
    assert nothing_ran(chromium)
    assert chromium.run("document.title") == evil


def test_markup_in_words_and_sentences_is_not_executed(chromium, folder, rows):
    words = [text.replace("\t", " ") for text in EVIL]
    evil = " ".join(words)
    means = [["model", "data", "layer", "by", "label", "value", "low", "high", "n"]]
    means += [[model, evil, 0, by, label, 0.5, "", "", 9] for model in ("dep", evil) for by in ("upos", evil)
              for label in words]  # fmt: skip
    moved = [["model", "data", "layer", "moved", "value", "word", "sentence", "context"]]
    moved += [[m, evil, 0, which, 0.5, word, evil, f"{evil} [{word}] {evil}"] for m in ("dep", evil)
              for which in ("most", "least") for word in words]  # fmt: skip
    for name, table in (("local.csv", means), ("words.csv", moved)):
        with (folder / name).open("w", encoding="utf8", newline="") as file:
            csv.writer(file).writerows(table)
    lines = ["# layer = 1"]
    lines += ["\t".join((str(i), word, "_", "X", "X", "_", str(i - 1), evil, "_", f"GoldHead={max(i - 2, 0)}"))
              for i, word in enumerate(words, 1)]  # fmt: skip
    (folder / "probes").mkdir()
    for model in ("base", "dep"):
        (folder / "probes" / f"{model}.conllu").write_text("\n".join([*lines, "", ""]), encoding="utf8")
    chromium.open(write_report(folder))
    assert nothing_ran(chromium)
    drawn = "[...document.querySelectorAll('figure.tree svg')].map(n => [...n.querySelectorAll('text')].map(t => "
    drawn += "t.textContent))"
    assert [texts[1:] for texts in chromium.run(drawn)] == [words, words]
    marked = chromium.run("[...document.querySelectorAll('mark')].map(node => node.textContent)")
    assert set(marked) <= set(words) and len(marked) == 4 * 5
    assert chromium.run("document.querySelectorAll('section.trees a[download]').length") == 3
    assert [url for url in chromium.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_trees_and_shaded_words_can_be_read_in_both_themes(chromium, folder, rows):
    (folder / "local.csv").write_text(
        "model,data,layer,by,label,value,low,high,n\ndep,trees,0,upos,NOUN,0.1,0.0,0.3,9\n", encoding="utf8"
    )
    (folder / "words.csv").write_text(
        "model,data,layer,moved,value,word,sentence,context\ndep,trees,0,most,-0.9,owl,s1,an [owl] saw\n",
        encoding="utf8",
    )
    (folder / "probes").mkdir()
    lines = ["# layer = 1"]
    lines += [f"{i}\tword{i}\t_\tX\tX\t_\t{i - 1}\tdep\t_\tGoldHead={i - 1}" for i in range(1, 8)]
    (folder / "probes" / "base.conllu").write_text("\n".join([*lines, "", ""]), encoding="utf8")
    page, grounds = write_report(folder), []
    for dark in (False, True):
        chromium.open(page, dark=dark)
        chromium.run("document.querySelectorAll('details').forEach(node => { node.open = true })")
        grounds.append(chromium.run("getComputedStyle(document.querySelector('figure.tree rect')).fill"))
        assert grounds[-1] == chromium.run("getComputedStyle(document.body).backgroundColor")
        for node, kind in (("figure.tree text + text", "fill"), ("mark strong", "color")):
            assert contrast(chromium, node, kind) >= 4.5, (dark, node)
        assert chromium.run("getComputedStyle(document.querySelector('mark strong')).fontWeight") >= "600"
    assert grounds[0] != grounds[1] and chromium.errors == []
    chromium.open(page, width=320, height=800, phone=True)
    chromium.run("document.querySelectorAll('details').forEach(node => { node.open = true })")
    assert chromium.run("document.documentElement.scrollWidth") <= 320
    assert chromium.run("document.querySelector('figure.tree').clientWidth") <= 320
    assert chromium.run("document.querySelector('figure.tree div').scrollWidth") > 320  # scrolls within its own box


def test_a_study_has_its_answer_on_the_first_screen(chromium, page):
    chromium.open(page, width=1280, height=900)
    for part in (".sentence", ".plot", "dl", "table"):
        assert chromium.run(f"document.querySelector('.answer {part}').getBoundingClientRect().bottom") < 900, part
    assert chromium.run("[...document.querySelectorAll('.findings details')].every(node => !node.open)")


def test_print_unfolds_everything_and_folds_it_again(chromium, page):
    chromium.open(page)
    state = "[...document.querySelectorAll('details')].map(node => node.open)"
    before = chromium.run(state)
    chromium.run("dispatchEvent(new Event('beforeprint'))")
    assert False in before and all(chromium.run(state))
    chromium.run("dispatchEvent(new Event('afterprint'))")
    assert chromium.run(state) == before


def test_a_browser_that_cannot_unpack_shows_the_pictures(chromium, page, tmp_path):
    text = page.read_text(encoding="utf8").replace(
        "<script>", "<script>delete window.DecompressionStream;</script><script>", 1
    )
    (tmp_path / "page.html").write_text(text, encoding="utf8")
    chromium.open(tmp_path / "page.html")
    shown = "[...document.querySelectorAll('main img')].map(node => node.complete && node.naturalWidth > 100)"
    assert chromium.run(shown) == [True] * 4
    assert chromium.run("document.querySelectorAll('.plot').length") == 0 and chromium.errors == []


def test_the_panels_of_other_texts_follow_the_first_screen(chromium, rows, tmp_path):
    own = [row for row in rows if row.task == "rsa" and row.data == "plain"]
    write_results(tmp_path / "results.csv", [*own, *(dataclasses.replace(row, data="wiki") for row in own)])
    chromium.open(write_report(tmp_path), width=1280, height=900)
    drawn = "[...document.querySelectorAll('.answer .plot')].map(node => node.ariaLabel.split(', ')[1].split(';')[0])"
    assert chromium.run(drawn) == ["on plain", "on wiki"]
    assert chromium.run("document.querySelectorAll('.answer .plot .main-svg').length") >= 2 and chromium.errors == []


def test_a_partial_study_is_a_page_without_errors(chromium, tmp_path, rows):
    write_results(tmp_path / "results.csv", [row for row in rows if row.layer is None])
    chromium.open(write_report(tmp_path))
    assert "How well the tasks were learnt" in chromium.run("document.body.innerText")
    assert chromium.errors == []


def test_an_answer_fills_the_first_screen_and_fits_a_phone(chromium, rows, tmp_path):
    write_results(tmp_path / "results.csv", rows)
    (tmp_path / "config.yaml").write_text("command: diff", encoding="utf8")
    said = [
        Said("where", "layer 3"),
        Said("moved", "0.1 [x] a [word] <b>", word="word"),
        Said("moved", "0.2 " + "long" * 40),
    ]
    numbers = [Number(f"RSA, layer {layer}", Cell("0.412", "[0.380, 0.444]")) for layer in range(6)]
    answer = Answer("What changed", "dep changed: its similarity falls to 0.4.", said, numbers, "rsa_by_layer")
    page = write_with_answer(tmp_path, answer=lambda *_: answer)
    chromium.open(page, width=1280, height=900)
    assert chromium.run("document.querySelectorAll('.answer .plot svg.main-svg').length") >= 1
    assert chromium.run("document.querySelector('.answer dl').getBoundingClientRect().bottom") < 900
    assert chromium.run("[...document.querySelectorAll('.answer dt')].map(n => n.innerText)") == ["where", "moved"]
    assert chromium.run("[...document.querySelectorAll('.answer dd')].map(n => n.innerText)")[1] == "0.1 [x] a word <b>"
    assert chromium.run("document.querySelector('.answer dd mark').innerText") == "word"
    panels = "[...document.querySelectorAll('[data-figure=rsa_by_layer]')].map(node => node.dataset.panel)"
    assert chromium.run(panels) == ["0", "1", "2"]  # each text once
    chromium.open(page, width=320, height=800, phone=True)
    assert chromium.run("document.documentElement.scrollWidth") <= 320
    assert chromium.errors == []
