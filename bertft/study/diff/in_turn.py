"""Both models of a diff in turn: the base's vectors are kept on disk while the tuned encoders run.

Rows of similarity, nulls, words and directions are those of both at once; those of weights are, but for rounding. Noise
of the same size and exchanged blocks need both models in memory and are left out.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from bertft.data.streams import Stream
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.models.fingerprint import fingerprint
from bertft.models.logit_lens import LogitLens, logit_lens
from bertft.models.names import is_adapter
from bertft.models.weight_change import layer_of
from bertft.models.weight_files import ModelWeights, WeightFiles, files_of, paired_names
from bertft.runs.progress import Progress
from bertft.similarity.compare.recorded import Recorded, Recorder
from bertft.study.diff.models import Compared, Released, weights_digest
from bertft.study.diff.settings import DiffCommand

if TYPE_CHECKING:
    from bertft.study.diff.further import Part

FOLDER = "base_vectors"  # in the run folder while the diff runs


def released_base(
    command: DiffCommand,
    base: Encoder,
    source: Stream,
    parts: Sequence[Part],
    *,
    out: Path,
    finished: bool,
    progress: Progress,
) -> tuple[Recorded, Released]:
    """Keep the base's vectors for all ``parts`` in the run folder, and return the base without its weights.

    Nothing is kept for a diff that is ``finished``.
    """
    digest = fingerprint(base)
    files = "" if is_adapter(command.base) else str(getattr(base.model, "name_or_path", ""))
    kept = Released(digest, weights_digest(base.model), _own_lens(base), files)
    recorder = Recorder(base, out / FOLDER, {"base": digest})
    if not finished:
        inputs = Compared(command, recorder, {}, {}, source, {"": digest}, out, progress)
        for part in parts:
            part.record(inputs)
    return recorder.released(), kept


def _own_lens(base: Encoder) -> LogitLens | None:
    """Return the base's logit lens with a normalisation of its own, which outlives the model."""
    lens = logit_lens(base)
    return None if lens is None else dataclasses.replace(lens, norm=copy.deepcopy(lens.norm))


def files_of_base(released: Released) -> WeightFiles:
    """Return the base's files of weights; raise ``BertftError`` if it has none of its own, as an adapter."""
    found = files_of(released.files)
    if found is None:
        raise BertftError("weights: a base that was released needs files of its own weights")
    return found


def distance_to_files(files: WeightFiles, tuned: nn.Module) -> list[float]:
    """Return `bertft.models.weight_distance.weight_distance` of a base in files, read one weight at a time.

    Raises ``BertftError`` if a weight has another shape.
    """
    moved, size = defaultdict[int, float](float), defaultdict[int, float](float)
    own: Any = ModelWeights(tuned, "tuned")
    for name, other in paired_names(files, own):
        layer, now = layer_of(name), own.read(other)
        if layer is None:
            continue
        before = files.read(name).to(now.dtype)
        if before.shape != now.shape:
            raise BertftError(f"weight_distance: the encoders' parameters differ in shape at layer {layer}")
        moved[layer] += float((now.double().cpu() - before.double()).square().sum())
        size[layer] += float(before.double().square().sum())
    return [math.sqrt(moved[layer] / size[layer]) for layer in sorted(size)]
