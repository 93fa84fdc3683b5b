"""What ``finetune`` does beyond its options, and what all commands do before and after their work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertft.cli.doctor import versions
from bertft.runs.folder import CONFIG, RESULTS, RunFolder, Stage
from bertft.runs.progress import Progress
from bertft.runs.rows import Row, write_results, write_text_atomically


def run_finetune(chosen: dict[str, Any], out: Path, progress: Progress) -> str:
    """Fine-tune into ``out``; returns the lines that say how it went and where it is."""
    import yaml

    from bertft.models.finetuning.run import FinetuneConfig, finetune

    result = finetune(FinetuneConfig(out=out, **chosen), progress=progress)
    # `finetune` made the folder and answers for what is in it; these two are its account in the common form.
    config = {"command": "finetune", **chosen}
    write_text_atomically(out / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_results(out / RESULTS, result.rows)
    scores = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    return f"{scores}\nThe encoder and its {RESULTS} are in {out.resolve()}"


def run_ablate(
    kind: str, chosen: dict[str, Any], out: Path, ks: list[int] | None, cache: Path | None, progress: Progress
) -> str:
    """Fine-tune once for every k in the run folder ``out``; returns the lines that say where the results are."""
    from bertft.models.finetuning.run import FinetuneConfig
    from bertft.study.analyses.ablation import sweep

    sweep(kind, FinetuneConfig(out=out, **chosen), depths_wanted=ks, cache=cache, progress=progress)
    page = out / "report.html"
    return f"Results are in {(out / RESULTS).resolve()}\nThe page is at {page.resolve()}"


def _vacant(out: Path, command: dict[str, Any]) -> RunFolder:
    """The run folder of a command; one that holds something else is refused before the work starts, not after."""
    import yaml

    folder = RunFolder(out, yaml.safe_dump(command, sort_keys=False, allow_unicode=True))
    folder.check()
    return folder


def _finish(folder: RunFolder, rows: list[Row], stages: Sequence[Stage], progress: Progress) -> str:
    from bertft.report import write_report

    folder.write_table(rows)
    times = {"seconds": folder.seconds(stages), "finished": folder.finished(stages)}
    folder.write_record({"versions": versions(), **times})
    page = write_report(folder.path, progress=progress)
    return f"Results are in {(folder.path / RESULTS).resolve()}\nThe page is at {page.resolve()}"
