"""Sources of the texts.

They are recorded in run.json or read from a configuration.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

from bertft.report import write_report
from bertft.report.page.sources import Sources

PAGE = Path(__file__).parents[3] / "bertft" / "report" / "page"


def test_the_record_of_a_run_comes_before_its_configuration():
    config = {"tasks": {"dep": {"dev": "of the config"}}}
    recorded = {"rsa/plain": "a", "along/*": "b", "plain": "c", "*": "d"}
    sources = Sources(config, {"sources": recorded})
    asked = [("rsa", "plain"), ("along", "plain"), ("heatmap", "plain"), ("rsa", "dep")]
    assert [sources.of(*pair) for pair in asked] == ["a", "b", "c", "d"]
    assert Sources(config, {}).of("rsa", "dep") == "of the config"


def test_models_texts_and_vectors_are_recorded_with_fingerprints():
    def entry(source: str) -> dict[str, str]:
        return {"source": source, "fingerprint": "f"}

    recorded = {"models": {"base": entry("b"), "dep": entry("runs/dep")}, "texts": {"wiki": entry("w.txt")}}
    sources = Sources({"text": "of the config"}, {"sources": recorded})
    asked = [("rsa", "wiki"), ("weights", "weights"), ("rsa", "other")]
    assert [sources.of(*pair) for pair in asked] == ["w.txt", "b, runs/dep", ""]
    sources = Sources({}, {"sources": {"vectors": {"base": entry("b.npy"), "t": entry("t.npy")}}})
    assert sources.of("rsa", "b") == "b.npy, t.npy"


def test_configurations_of_studies_and_commands_name_their_texts():
    study = {
        "tasks": {"dep": {"dev": "dep-dev"}, "pos": {"dev": "pos-dev"}},
        "stimuli": {"wiki": {"source": "w.txt"}},
        "probes": {"name": "trees", "train": "t", "dev": "d"},
        "edge": {"pos": {"train": "pt", "dev": "pd"}},
        "along": {"text": "wiki"},
    }
    sources = Sources(study, {})
    assert sources.of("rsa", "wiki") == "w.txt" and sources.of("structural", "trees") == "train t, measured on d"
    assert sources.of("edge", "pos") == "train pt, dev and measured on pd"
    assert sources.of("rsa", "pos") == "pos-dev"  # the edge corpus of the same name is another text
    assert sources.of("along", "dep") == "w.txt" and sources.of("rsa", "elsewhere") == ""
    command = {"command": "probe edge", "train": "t", "dev": "d", "test": "e"}
    assert Sources(command, {}).of("edge", "any") == "train t, dev d, measured on e"
    assert Sources({"command": "probe structural", "train": "t", "dev": "d"}, {}).of("x", "any") == "train t, dev d"
    assert Sources({"command": "rsa", "text": "t.txt"}, {}).of("rsa", "any") == "t.txt"


def test_the_page_shows_recorded_sources(folder):
    record = {"versions": {}, "sources": {"plain": "recorded.txt"}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf8")
    page = write_report(folder).read_text(encoding="utf8")
    table = page.partition("What was measured")[2].partition("</table>")[0]
    assert "recorded.txt" in table and "plain.txt" not in table


def test_python_holds_no_html():
    """HTML is in the templates, which escape what they show. Table 1 is Markdown, which has no other line break."""
    found = []
    for path in PAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                tags = node.value.count("</") + node.value.count("/>") + node.value.count("<br>")
                if tags and (path.name, node.value) != ("edge_table.py", "<br>"):
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []
