"""A study in one resumable run folder.

```
out/config.yaml  results.csv  run.json  report.html  figures/
    models/<task>/  models/<task>.csv        fine-tuned encoder, its scores
    rsa/<text>.csv                           similarity of every tuned encoder to the base, layer by layer
    words/moved.csv  local.csv  words.csv  sentences.csv    words and sentences of a treebank that moved
    forms/<text>.csv, <text>/local.csv, ...  the same of a plain text, by form
    probes/<encoder>.csv, .safetensors       structural probes of every layer; .notes.txt notes on them
    differences/probes.csv                   every tuned encoder minus the base, paired by sentence
    edge/<task>.csv, .labels.csv, <task>/    edge probes of every encoder on one task; .notes.txt notes on them
    freeze/<task>/k<k>.csv  truncate/...     scores of a task, fine-tuned for every k
    weights/blocks.csv                       distance of the weights to the base, block by block
    weights/spectra.csv  matrices.csv        rank and intruder dimensions of the change, by block and by matrix
    directions/<text>.csv  directions.csv  direction_tokens.csv   directions of the change, their words and vocabulary
    causes/<text>.csv                        similarity of the top layer with one block exchanged
```
Each stage has a ``.csv`` and a ``.done.json``, keyed by the settings that its rows depend on. An interrupted run
resumes at the first stage without a current ``.done.json``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bertft.models.names import resolve_model
from bertft.report.write import verdict
from bertft.runs import process
from bertft.runs.extras import need
from bertft.runs.folder import RUN, RunFolder, Stage, timestamp
from bertft.runs.progress import SILENT, Progress
from bertft.runs.versions import versions
from bertft.study.analyses import ANALYSES
from bertft.study.analysis import write_page
from bertft.study.config import OLDER_DRAW, StudyConfig
from bertft.study.inputs import Inputs
from bertft.study.reader import begun_with, read_study

__all__ = ["StudyConfig", "check_study", "read_study", "run_study", "study_stages", "verdict"]


def run_study(config: StudyConfig, out: str | os.PathLike[str], *, progress: Progress = SILENT) -> Path:
    """Run or resume a study in the folder ``out`` and return the path of its ``report.html``.

    Reads and checks every corpus before it makes the folder. Raises ``BertftError`` for bad input, for a folder that
    holds another study, for a folder that another process holds, and where the page cannot be drawn.
    """
    need("report", f"{os.fspath(out)}: the page of a study")
    if (begun := begun_with(config, out)) != config:
        progress.say(f"{out}: begun with rsa.draw: {OLDER_DRAW}, and resumed with it")
    config = begun
    folder = RunFolder(out, config.to_yaml())
    folder.check()
    inputs = Inputs(config, folder.path, progress)
    stages = study_stages(inputs)
    if any(folder.done(stage) is None for stage in stages):
        check_study(inputs)
    with folder.claim():
        record: dict[str, Any] = {"versions": versions(), "stages": [s.name for s in stages], "started": timestamp()}
        before = _memory(folder.path / RUN)

        def write_record() -> None:
            record["memory"] = max(process.fullest(), before)
            folder.write_record(record)

        write_record()  # for the page of an interrupted study
        folder.run(stages, config.name, after=write_record, progress=progress)
        for analysis in ANALYSES:
            analysis.clean(inputs)
        record |= {"seconds": folder.seconds(stages), "finished": timestamp(), "disk": _size(folder.path)}
        write_record()
        return write_page(folder.path, ANALYSES, progress=progress)


def study_stages(inputs: Inputs) -> list[Stage]:
    """Return the stages of every analysis that the study asks for, in order."""
    return [stage for analysis in ANALYSES for stage in analysis.stages(inputs)]


def check_study(inputs: Inputs) -> None:
    """Read every corpus and find the model; raise ``BertftError`` for bad input before anything is written."""
    resolve_model(inputs.config.model)
    wanted = [analysis for analysis in ANALYSES if analysis.stages(inputs)]
    with inputs.progress.step("read the corpora", total=len(wanted), unit="analyses") as bar:
        for analysis in wanted:
            analysis.check(inputs)
            bar.advance()


def _size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _memory(record: Path) -> int:
    """Return the peak memory in an earlier ``run.json``, or 0: a resumed run may use less than the first."""
    try:
        return int(json.loads(record.read_text(encoding="utf8"))["memory"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
