"""Comparison of encoders on a text.

`compare_encoders` draws a sample of texts into memory; `compare_stream` reads a text of any length.

`compare_stream` keeps nothing but sums and a sample, and resumes after an interruption. Process r of N takes buffers r,
r + N, ... of the text. All sums are about the means of the text's first batch, which every process encodes, so that
they add up to the sums of a single process except for the order of float64 additions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from bertft.data.examples import inputs_of
from bertft.errors import BertftError
from bertft.ops.metrics import LINEAR
from bertft.runs.checkpoint import Checkpoint
from bertft.runs.progress import SILENT, Progress, Step
from bertft.runs.rows import Rows
from bertft.similarity.compare import all_pairs
from bertft.similarity.compare.checkpoints import asked_to_stop, checkpointed
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.plan import Plan
from bertft.similarity.compare.stimuli import check_request, choose, cut, layer_counts, side_by_side
from bertft.similarity.compare.stream import StreamRun
from bertft.similarity.compare.workers import ALONE, Team
from bertft.similarity.sinks import Place

if TYPE_CHECKING:
    from bertft.models.encoder import Batch, Encoder

TASKS = ("rsa", "heatmap", "null", "sinks")  # of the rows of `compare_encoders`
EVERY = 60.0  # least seconds between checkpoints


def compare_encoders(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    texts: Sequence[Any],
    *,
    metric: str = "cosine",
    tokens: int | None = 5000,
    unit: str = "token",
    seed: int = 0,
    draw: str = "stream",
    data: str = "wikipedia",
    reservoir: int = 5000,
    batch_tokens: int = 4096,
    window: str = "split",
    all_layers: bool = False,
    layers: Sequence[int] = (),
    null: int = 0,
    precision: str = "float32",
    progress: Progress = SILENT,
) -> Rows:
    """Compare each layer of ``base`` with the same layer of every encoder in ``tuned``, on a sample of ``texts``.

    Each encoder runs once over the same batches. Only sums and a reservoir of whole sentences are kept.

    Args:
        base: the encoder before fine-tuning.
        tuned: encoders by name.
        texts: strings, pairs of strings, word sequences, or Sentence, Pair, Question and Text of `bertft.data`.
        metric: dot, cosine, correlation or sqeuclidean, for RSA (Merchant et al. 2020: cosine).
        tokens: number of stimuli; None takes all. Whole examples are drawn in an order given by ``seed``, and the last
            one is cut. If ``texts`` hold fewer stimuli, all are used and ``progress`` gets a message.
        unit: ``token`` (pieces without special tokens), or ``word``, which encoders with different tokenizers need.
        seed: of the draw of texts and of the reservoir.
        draw: the order of texts, one of `bertft.data.sampling.DRAWS`.
        data: name of the texts in the rows.
        reservoir: stimuli in the sample behind the intervals.
        batch_tokens: tokens in a batch, padding included.
        window: how the encoder treats texts beyond its window (`bertft.models.encoder.Encoder.stream`).
        all_layers: also compare every layer with every layer of the base, in rows of the task ``heatmap``.
        layers: the layers compared; () for all. Blocks above the highest one do not run.
        null: derangements of texts for rows of the task ``null`` (`bertft.similarity.compare.nulls`); 0 for none.
        precision: of the products behind the sums (`bertft.ops.precision`).
        progress: receives the step.

    Returns:
        For each tuned encoder and layer that both have, ``rsa_<metric>_pearson`` (Pearson correlation of the upper
        triangles of both RDMs) and ``cka_debiased`` (debiased linear CKA of the raw vectors), with 95 % intervals
        clustered by example (`bertft.similarity.influence`). ``n`` is the number of stimuli.

    Raises:
        BertftError: A name is unknown, there are fewer than two examples, tokenizers differ, or vectors are not usable.
    """
    if metric not in LINEAR:
        raise BertftError(f"compare_encoders: metric must be one of {', '.join(LINEAR)}, found {metric!r}")
    check_request(base, tuned, tokens, unit)
    examples = inputs_of(texts, unit)
    chosen, counts, places = choose(base, examples, tokens=tokens, unit=unit, seed=seed, draw=draw)
    if len(chosen) < 2:
        raise BertftError(f"compare_encoders: needs at least 2 texts for an interval, found {len(chosen)} in {data}")
    _say_if_fewer(total := sum(counts), tokens, f"{unit}s", data, progress)
    size: Any = {"sample": reservoir, "seed": seed, "all_layers": all_layers, "layers": tuple(layers), "null": null}
    plan = Plan((metric,), precision=precision, **size)
    comparison = _comparison(base, tuned, plan)
    comparison.sentences = len(chosen)
    whole = [examples[place] for place in places]  # for encoders that cut texts otherwise
    settings = _settings(plan, unit, batch_tokens, window)
    streams = [e.stream(chosen if e.reads_like(base) else whole, **settings) for e in (base, *tuned.values())]
    with progress.step(f"compare on {data}", total=total, unit=f"{unit}s") as step:
        _add(streams, comparison, counts, places, step)
    return Rows(row for row in comparison.rows(data, progress=progress) if row.task in TASKS)


def _comparison(base: Encoder, tuned: Mapping[str, Encoder], plan: Plan) -> Comparison:
    """Return an empty comparison, whose sums of a layer are on the device of that layer if there are several."""
    comparison = Comparison(plan, layer_counts(base, tuned, plan.layers))
    if len(set(base.layer_devices)) > 1:
        comparison.place([base.layer_devices[plan.number(k)] for k in range(max(comparison.layers.values()))])
    return comparison


def _settings(plan: Plan, unit: str, batch_tokens: int | None, window: str) -> dict[str, Any]:
    """Return the arguments of `Encoder.stream`."""
    return {"unit": unit, "batch_tokens": batch_tokens, "window": window, "layers": plan.layers or None}


def _say_if_fewer(found: int, wanted: int | None, units: str, data: str, progress: Progress) -> None:
    if wanted is not None and found < wanted:
        progress.say(f"{data}: {found} {units} in all, fewer than the {wanted} requested")


@torch.inference_mode()
def _add(
    streams: Sequence[Iterator[Batch]],
    comparison: Comparison,
    counts: Sequence[int],
    places: Sequence[int],
    step: Step,
) -> None:
    """Add the first ``counts`` stimuli of each text to the comparison.

    ``places`` are the positions of the texts in the caller's list, for error messages.
    """
    left = torch.tensor(counts)
    for index, lengths, spaces in side_by_side(streams):
        lengths, spaces = cut(index, lengths, left, spaces)
        comparison.update(index, lengths, spaces, lambda i: f"text {places[i] + 1}")
        step.advance(int(lengths.sum()))


def compare_stream(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    texts: Iterable[Any],
    plan: Plan = Plan(),  # noqa: B008 - frozen
    *,
    tokens: int | None = None,
    unit: str = "token",
    data: str = "text",
    batch_tokens: int | None = None,
    window: str = "split",
    checkpoint: Checkpoint | None = None,
    every: float | None = None,
    team: Team = ALONE,
    texts_in_all: int | None = None,
    massive: list[Place] | None = None,
    progress: Progress = SILENT,
) -> Rows | None:
    """Compare each layer of ``base`` with the same layer of every encoder in ``tuned``, over all of ``texts``.

    Args:
        base: the encoder before fine-tuning.
        tuned: encoders by name.
        texts: examples as in `compare_encoders`, in their order; the same again when a run resumes.
        plan: the similarities to measure.
        tokens: stop after this many stimuli, within the last example if need be; None takes all.
        unit: ``token`` (pieces), or ``word`` (texts are cut at white space), which encoders with different tokenizers
            need.
        data: name of the texts in the rows.
        batch_tokens: tokens in a batch, padding included; by default 4,096 on the CPU and up to 65,536 on a GPU.
        window: how the encoder treats texts beyond its window (`bertft.models.encoder.Encoder.stream`).
        checkpoint: where to save the state, and to resume from. It is saved every ``every`` seconds, less often if that
            would take more than 2 % of the time, and on SIGINT and SIGTERM.
        every: least seconds between checkpoints, by default `EVERY`; 0 saves after every batch.
        team: the processes that share the text.
        texts_in_all: number of texts, for the estimate of the time left.
        massive: receives the places of massive activations (`bertft.similarity.sinks`).
        progress: receives steps and messages.

    Returns:
        Rows in the order of the plan; None in the processes that do not lead the team.

    Raises:
        BertftError: Stimuli are too few, tokenizers differ, vectors cannot be compared, or a process was lost.
        KeyboardInterrupt: The run was interrupted; the checkpoint is saved first.
    """
    check_request(base, tuned, tokens, unit)
    comparison = _comparison(base, tuned, plan)
    run = StreamRun(base, tuned, comparison, tokens, _settings(plan, unit, batch_tokens, window), team)
    if saved := checkpoint.load() if checkpoint else None:
        run.restore(*saved)
        progress.say(f"{data}: resuming after {len(comparison)} {unit}s")
    if plan.over_pairs and team.leads and (line := _forecast(comparison, base, tuned, tokens)):
        progress.say(f"{data}: {line}")
    total, name = (tokens, f"{unit}s") if tokens is not None else (texts_in_all, "texts")
    with progress.step(f"compare on {data}", total=total, unit=name) as step:
        _run_through(run, run.batches(texts), checkpoint, EVERY if every is None else every, step)
    if team.size > 1:
        if checkpoint:
            checkpoint.save(*run.state())
        team.add_up(comparison, str(checkpoint.folder) if checkpoint else "no checkpoint")
    if not team.leads:
        return None
    _say_if_fewer(len(comparison), tokens, f"{unit}s", data, progress)
    if massive is not None:
        massive += comparison.massive.places
    return Rows(comparison.rows(data, progress=progress))


def _run_through(
    run: StreamRun, batches: Iterator[tuple[int, int]], checkpoint: Checkpoint | None, every: float, step: Step
) -> None:
    """Take all batches, save checkpoints, and show the stimuli taken, or the texts if their number is not limited."""
    of_stimuli = run.tokens is not None
    step.advance(run.taken if of_stimuli else run.first)
    with asked_to_stop() as asked, torch.inference_mode():
        for seen, examples in checkpointed(run, batches, checkpoint, every, asked):
            step.advance((seen if of_stimuli else examples) * run.team.size)


def _forecast(comparison: Comparison, base: Encoder, tuned: Mapping[str, Encoder], tokens: int | None) -> str | None:
    """Return the slow measures over pairs as a message."""
    stimuli = comparison.plan.sample if tokens is None else min(comparison.plan.sample, tokens)
    compared = [(comparison.layers[name], (base.dim, encoder.dim)) for name, encoder in tuned.items()]
    return all_pairs.forecast_line(all_pairs.forecast(comparison.plan, stimuli, compared), stimuli)
