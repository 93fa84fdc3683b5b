"""The page as a reader meets it: drawn by Chromium, in both themes, on a phone, by keyboard."""

from __future__ import annotations

import base64

import pytest
import yaml
from report.browser import CHROMIUM, browser

from bertft.report import write_report
from bertft.results import Row, write_results

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on this machine")

PANELS = 8


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def shown(chromium) -> int:
    """How many lines are visible in all panels."""
    return chromium.run("document.querySelectorAll('.plot .scatterlayer .trace .lines path').length")


def test_every_panel_is_drawn_without_a_word_on_the_console_and_nothing_is_fetched(chromium, page):
    chromium.open(page)
    assert chromium.run("document.documentElement.dataset.drawn") == str(PANELS)
    assert chromium.run("document.querySelectorAll('.plot svg.main-svg').length") >= PANELS
    assert chromium.errors == []
    assert [url for url in chromium.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert [url for url in chromium.requests if url.startswith("file:")] == [page.as_uri()]


def test_toggles_take_a_model_out_of_every_figure_and_back_by_keyboard(chromium, page):
    chromium.open(page)
    before = shown(chromium)
    chromium.run("document.querySelector('.toggles input[value=dep]').focus()")
    chromium.press(" ", 32, " ")
    assert not chromium.run("document.querySelector('.toggles input[value=dep]').checked")
    without = shown(chromium)
    assert without < before
    labels = "[...document.querySelectorAll('.plot .annotation-text')].filter(n => n.textContent == 'dep').length"
    of_text = chromium.run(labels)  # in the other model's panel, where it names a text
    chromium.press(" ", 32, " ")
    assert shown(chromium) == before and chromium.run(labels) > of_text
    assert chromium.errors == []


def test_keyboard_reaches_what_can_be_used_and_sees_where_it_is(chromium, page):
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


def contrast(chromium, selector: str) -> float:
    """WCAG's contrast of the first such element's text with the page."""
    script = """(() => {
      const light = (text) => {
        const parts = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
          .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
      };
      const node = document.querySelector(SELECTOR);
      const pair = [light(getComputedStyle(node).color), light(getComputedStyle(document.body).backgroundColor)];
      return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    })()"""
    return chromium.run(script.replace("SELECTOR", repr(selector)))


def test_both_themes_can_be_read_and_figures_follow(chromium, page):
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


def test_the_button_goes_round_the_themes_by_keyboard_and_is_remembered(chromium, page):
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
    assert chromium.run(ground) == light  # of the page before
    chromium.press("Tab", 9)
    chromium.press("Tab", 9)
    assert chromium.run("document.activeElement.className") == "theme"
    chromium.press(" ", 32, " ")
    chromium.theme(False)
    assert chromium.run(ground) == dark and chromium.run(tick) == dark_tick  # whatever the system says
    chromium.press(" ", 32, " ")
    assert chromium.run(ground) == light and chromium.run("document.documentElement.dataset.theme") is None
    assert chromium.errors == []


def test_without_storage_the_button_still_works(chromium, page, tmp_path):
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


def test_the_film_of_a_training_is_stepped_by_keyboard_and_played(chromium, tmp_path):
    table = [
        Row(f"{share} %", "along", task, layer, "rsa_cosine_pearson", 1 - share * layer / 400, 0.1, 1.0, n=9)
        for task in ("dep", "mnli") for share in (0, 5, 100) for layer in range(3)
    ]  # fmt: skip
    (tmp_path / "results").mkdir()
    write_results(tmp_path / "results" / "along_training.csv", table)
    (tmp_path / "results" / "other.csv").write_text("a,b\n", encoding="utf8")
    chromium.open(write_report(tmp_path), width=400, phone=True)
    assert "no layer-by-layer results" not in chromium.run("document.body.innerText")
    assert chromium.run("document.querySelector('.toggles')") is None  # moments are no models
    label = "[...document.querySelectorAll('.plot .annotation-text')].map(node => node.textContent)"
    said = "document.querySelector('.film output').textContent"
    curves = "document.querySelectorAll('.plot .scatterlayer .trace .points').length"
    assert (chromium.run(curves), chromium.run(label), chromium.run(said)) == (6 + 2, ["100 %"] * 2, "100 %")
    chromium.run("document.querySelector('.film input').focus()")
    chromium.press("ArrowLeft", 37)
    assert (chromium.run(curves), chromium.run(label), chromium.run(said)) == (4 + 2, ["5 %"] * 2, "5 %")
    chromium.press("Home", 36)
    assert chromium.run(curves) == 2 + 2  # the moment's own band, and no other
    ended = "new Promise(done => new MutationObserver(() => said.textContent == '100 %' && done(1))"
    played = f"(said => {{ document.querySelector('.film button').click(); return {ended}"
    played += ".observe(said, {childList: true})) })(document.querySelector('.film output'))"
    assert chromium.run(played) == 1
    assert chromium.run("document.querySelector('.film button').textContent") == "Play"
    assert chromium.run("document.documentElement.scrollWidth") <= 400 and chromium.errors == []


def test_downloads_hold_what_the_folder_holds(chromium, page):
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


def test_names_that_are_markup_run_nothing(chromium, folder, config, rows):
    evil = '</script><script>window.hit=1</script><img src=x onerror="window.hit=1">'
    config |= {"name": evil, "description": evil}
    table = [
        *rows[:2],
        *(Row(evil, "rsa", evil, layer, "rsa_cosine_pearson", 0.5 + layer / 9, n=3) for layer in range(3)),
    ]
    write_results(folder / "results.csv", table)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf8")
    chromium.open(write_report(folder))
    assert chromium.run("window.hit") is None
    assert chromium.run("document.title") == evil
    assert chromium.errors == []


def test_a_partial_study_is_a_page_without_errors(chromium, tmp_path, rows):
    write_results(tmp_path / "results.csv", [row for row in rows if row.layer is None])
    chromium.open(write_report(tmp_path))
    assert "How well the tasks were learnt" in chromium.run("document.body.innerText")
    assert chromium.errors == []
