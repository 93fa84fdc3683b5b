"""Code of the core that makes no number, of which `mutations` makes no mutant.

A change here moves no value, interval, p-value or refusal of a run without a GPU beyond the last bits that an order of
additions decides. Every entry says why. What a test can notice stays out of these lists, even if it is seldom used.
"""

from __future__ import annotations

KEYWORDS = {  # of any call
    "strict": "checks lengths that agree",
    "frozen": "protects fields",
    "slots": "memory",
    "stacklevel": "the line that a warning names",
    "stable": "sorting on a CPU is stable anyway",
    "non_blocking": "copies from a GPU",
    "repr": "of `field`: what is printed",
    "ignore_errors": "leftover files",
    "op": "names a function in an error",
    "keep": "of `_exact`: matrices are kept or made again",
    "maxsize": "of a cache",
    "fast": "float16 products on a GPU; float32 on a CPU",
    "batch_tokens": "texts in a batch",
    "growth": "forecast of time",
    "drawn": "forecast of time",
}
SAYING = {"progress": ("step", "say"), "step": ("advance",), "bar": ("advance",), "warnings": ("warn",)}  # messages
NAMING = {  # functions whose strings name a function or a tensor in an error
    *("Stimuli", "check_device", "check_matrix", "check_width", "check_widths", "explain_not_finite", "first_order"),
    "_rsatoolbox",
}
SHOWN = ("__repr__", "_repr_html_", "_table", "_tables")  # tables for a reader, printed and in a notebook
FLOORS = {  # compared with `<` or `<=`: no measured number hits them exactly
    "SCALE": "distance of a null from equal spaces",
    "measures.SHAPE_FLOOR": "rounding of angles",
    "MOVED": "rounding of local RSA",
    "floor": "rounding of sums",
    "NEAR * both": "distances of rows",
    "noise * values[0].clamp(min=0)": "rounding of variances",
    "FAR * squares.median()": "distances of rows",
    "limit.to(away)[:, None]": "distances of rows",
    "limit": "distances of rows",
    "limit / DECADE": "distances of rows",
}

FILES = {
    "bertft/ops/full_precision.py": "a GPU's products",
    "bertft/ops/probe_steps.py": "training steps on a GPU",
    "bertft/ops/tensor_cores.py": "asks a GPU",
    "bertft/similarity/compare/late_batches.py": "when a GPU's batches are added",
    "bertft/similarity/compare/row_checks.py": "checks of a GPU's rows",
}
CONSTANTS = {
    "bertft/ops/parts.py": {
        "MOST_COLUMNS": "which GPU takes the route",
        "LEAST_ROWS": "which GPU takes the route",
        "LEAST_COLUMNS": "which GPU takes the route",
        "WORTHWHILE": "which GPU takes the route",
        "BLOCK": "rows at a time",
        "REPAIRED": "pairs at a time",
    },
    "bertft/ops/precision.py": {"Precision": "a type"},
    "bertft/ops/rdm/products.py": {"BYTES": "memory of a block"},
    "bertft/probes/structural/scores.py": {"BLOCK": "memory of a block"},
    "bertft/runs/intervals.py": {"CHUNK": "memory; the draws of a chunk go on where the last one stopped"},
    "bertft/runs/pooling.py": {"Estimate": "a type"},
    "bertft/similarity/accumulator.py": {"SLICE": "rows at a time"},
    "bertft/similarity/compare/all_pairs.py": {
        "TRIAL": "forecast of time",
        "DRAWN": "forecast of time",
        "WORTH_SAYING": "a message",
    },
    "bertft/similarity/compare/checkpoints.py": {"SHARE": "time between checkpoints", "RATE": "time of a checkpoint"},
    "bertft/similarity/compare/encoders.py": {"EVERY": "time between checkpoints"},
    "bertft/similarity/compare/stream.py": {
        "BUFFER": "examples read at a time",
        "ON_GPU": "examples read at a time",
        "USUAL": "pieces in a batch",
        "LARGEST": "pieces in a batch on a GPU",
        "SHARE": "a GPU's memory",
    },
    "bertft/similarity/compare/workers.py": {"PATIENCE": "a limit of time"},
    "bertft/similarity/neighbours.py": {"TILE": "rows and columns at a time", "STRIP": "rows at a time"},
    "bertft/similarity/pairwise_rsa.py": {"TILE": "rows at a time"},
    "bertft/similarity/placed_sums.py": {"TOGETHER": "matrices added at a time"},
    "bertft/similarity/reservoir.py": {"START": "rows allocated at first"},
    "bertft/similarity/sinks.py": {"BLOCK": "numbers at a time"},
    "bertft/similarity/vectors.py": {
        "EVERY": "time between checkpoints",
        "CHUNK": "memory of a chunk",
        "LEAST": "stimuli of a chunk",
        "MOST": "stimuli of a chunk",
        "Vectors": "a type",
        "PairBy": "a type",
        "_Space": "a type",
    },
    "bertft/similarity/words/local_rsa.py": {"BLOCK": "rows at a time"},
}
FUNCTIONS = {
    "bertft/ops/pairwise_distance.py": {"_needs_gradient": "chooses among a GPU's routes"},
    "bertft/ops/pairwise_gradient.py": {"_on_tensor_cores": "asks a GPU"},
    "bertft/ops/parts.py": {"serve": "which GPU takes the route", "rate": "times a GPU"},
    "bertft/ops/rdm/routes.py": {
        "_on_cores": "asks a GPU",
        "_tiles_on_gpu": "a GPU's route",
        "_register_on_gpu": "a GPU's op",
    },
    "bertft/similarity/compare/all_pairs.py": {
        "forecast": "forecast of time",
        "forecast_line": "a message",
        "_seconds": "forecast of time",
        "_precision": "a message",
    },
    "bertft/similarity/compare/checkpoints.py": {"Pace": "time between checkpoints", "bytes_of": "their time"},
    "bertft/similarity/compare/encoders.py": {"_say_if_fewer": "a message", "_forecast": "forecast of time"},
    "bertft/similarity/compare/stream.py": {
        "sizes_for": "pieces in a batch",
        "_bytes_of_a_vector": "pieces in a batch on a GPU",
    },
    "bertft/similarity/compare/workers.py": {"own_device": "chooses a GPU"},
    "bertft/similarity/placed_sums.py": {
        "PlacedSums.on": "sums on GPUs",
        "PlacedSums.on_gpu": "sums on GPUs",
        "PlacedSums._fits": "a GPU's memory",
        "bytes_of_sums": "memory in an estimate",
    },
    "bertft/similarity/reservoir.py": {"Reservoir._home": "the device of the sample"},
    "bertft/similarity/vectors.py": {"_some": "a message"},
}
LINES = {  # as they stand, without indentation
    "bertft/ops/moments/layer_pairs.py": {
        "fresh = first is not second and k not in first.sums and m not in second.sums": "which sums come in one call",
    },
    "bertft/ops/pairwise_distance.py": {
        "if metric in PRODUCTS and not _needs_gradient(x3, y3) and parts.serve(x3, y3):": "a GPU's route",
    },
    "bertft/ops/pairwise_gradient.py": {
        "if metric in PRODUCTS and _on_tensor_cores(grad, x, y):": "a GPU's route",
        "if metric in PRODUCTS and grad.is_cuda and not condensed:": "a GPU's route",
    },
    "bertft/ops/probe_loss.py": {
        "op = (h, weight, rank, distances, depths, lengths, False, False, False, kind, check)": "gradients left out",
        "return eager(h, weight, rank, distances, depths, lengths, with_weight, with_h, False, kind, check)": (
            "a GPU's precision"
        ),
        "return _NOTHING[like.dtype] if like.is_cpu and not torch.compiler.is_compiling() else like.new_empty(0)": (
            "no numbers, kept or made anew"
        ),
        'loss = _loss(args, kind, rank, precision == "fast")': "a GPU's precision",
    },
    "bertft/ops/rdm/products.py": {
        "if dtype == torch.float32 and parts.serve(x, y):": "a GPU's route",
        "step = max(1, min(N, size // max(1, P * N * dtype.itemsize)))": "rows at a time",
    },
    "bertft/ops/rdm/routes.py": {
        'fast = precision == "fast" and not wide and name in ("linear", "tiles") and _on_cores(x, y, metrics, name)': (
            "a GPU's precision"
        ),
        'name, reason, linear, tiles, dtype, rsa_error(x.shape[1], linear=name == "linear") if fast else None, '
        "fast=fast": "a GPU's precision",
        "on_core = route.dtype == torch.float32 and served and tensor_cores.serve(x, y)": "a GPU's route",
        "if x.is_cuda and compare not in RANKS and rdm_products.serves(metrics) and not on_core:": "a GPU's route",
        "elif served and x.is_cuda:": "a GPU's route",
    },
    "bertft/ops/reference.py": {
        "place, step = torch.arange(N, device=x.device), max(1, numbers // max(1, P * N))": "rows at a time",
        "for some_i, some_j in zip(i.split(4096), j.split(4096), strict=True):  # to bound memory": "pairs at a time",
        "x: Tensor, y: Tensor | None, metric_x: str, metric_y: str, *, numbers: int = 1 << 21": "rows at a time",
    },
    "bertft/probes/edge/control.py": {
        "nothing = np.random.default_rng(0)  # coding draws nothing": "nothing is drawn",
    },
    "bertft/probes/structural/columns.py": {
        "if len(chosen) < self.layers:": "a short cut where all layers are chosen",
    },
    "bertft/probes/structural/scores.py": {
        "step = max(1, BLOCK // max(1, layers * int(size) * max(int(size), rank)))": "sentences at a time",
    },
    "bertft/runs/intervals.py": {"size = max(1, CHUNK // n)": "resamples at a time"},
    "bertft/similarity/accumulator.py": {
        "where = x.device if self._devices is None else self._devices[k]": "sums on GPUs",
        'if total["cross"].device != where:': "sums on GPUs",
        'by_gpu = dist.get_backend(group) == "nccl"  # which takes no tensors of the CPU': "a GPU's exchange",
        "there = tensor.cuda() if by_gpu else tensor.clone()  # not in place: it may be an inference tensor": (
            "a GPU's exchange"
        ),
    },
    "bertft/similarity/compare/comparison.py": {
        'other = layer if m.pairs == "diagonal" else 0  # the other space\'s layer makes no difference': (
            "one side is read, whichever layer stands beside it"
        ),
    },
    "bertft/similarity/compare/encoders.py": {
        "if len(set(base.layer_devices)) > 1:": "sums on GPUs",
        'team.add_up(comparison, str(checkpoint.folder) if checkpoint else "no checkpoint")': "a message",
        "of_stimuli = run.tokens is not None": "progress",
        'total, name = (tokens, f"{unit}s") if tokens is not None else (texts_in_all, "texts")': "progress",
    },
    "bertft/similarity/compare/null_values.py": {
        "small = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT": "the same singular values",
    },
    "bertft/similarity/compare/recorded.py": {
        'tensors["pieces"] = batch.pieces': "a name in a digest",
        'tensors["offsets"] = batch.offsets': "a name in a digest",
        'return Artefact(encoder.folder / f"{key[:32]}.safetensors", encoder.settings, format=FORMAT)': "a file's name",
    },
    "bertft/similarity/compare/stimuli.py": {
        "if (used <= left).all():": "a short cut to what follows",
        "while room > 0 and (block := list(itertools.islice(source, 256))):": "texts at a time",
    },
    "bertft/similarity/compare/stream.py": {
        "left_out = skip if self.kinship.batch else 0": "batches that are encoded and not used",
    },
    "bertft/similarity/compare/workers.py": {'reason = " ".join(str(error).split())[:120]': "a message"},
    "bertft/similarity/pairwise_rsa.py": {
        "resamples: np.ndarray | None = field(default=None, repr=False, compare=False)": "equality of two results",
    },
    "bertft/similarity/placed_sums.py": {
        '"mean_x": (first, d),': "a name that nothing reads",
        '"mean_y": (second, e),': "a name that nothing reads",
        "room = max(1, TOGETHER // (8 * max(widths) ** 2)) if where == CPU else 1": "matrices added at a time",
        "self._ahead[name] = [layer.to(own[min(k, len(own) - 1)]) for k, layer in enumerate(layers)]": "sums on GPUs",
    },
    "bertft/similarity/reservoir.py": {
        "if self._used + count <= rows:": "which of the free rows are used",
        "if len(taken) < count:": "rows allocated",
        "self._enlarge(max(2 * rows, min(self.capacity, START), rows + count - len(taken)))": "rows allocated",
        "self._enlarge(max(min(self.capacity, START), self._used))": "rows allocated",
    },
    "bertft/similarity/sinks.py": {
        "if self.copied is not None:": "copies from a GPU",
        'if space.device.type != "cpu":': "distances on a GPU",
        "return torch.stack([torch.linalg.vector_norm(layer - mean, dim=1) for layer, mean in each])": (
            "distances on a GPU"
        ),
        'flag = flag.to("cpu", non_blocking=True)': "copies from a GPU",
        "rows = max(1, BLOCK // (layers * dim))": "rows at a time",
        'other = layer if moments.pairs == "diagonal" else 0': "one side is read, whichever layer stands beside it",
    },
    "bertft/similarity/vectors.py": {
        "self.size = min(MOST, max(LEAST, CHUNK // (4 * len(numbers) * widest)))": "stimuli of a chunk",
    },
    "bertft/similarity/words/agreement.py": {
        'both = {"first": first, "second": second}': "keys that nothing reads",
    },
}


def unknown(path: str, text: str, defined: set[str]) -> list[str]:
    """Return the entries of this file that the file at ``path`` no longer has; ``defined`` are its qualified names."""
    lines = {line.strip() for line in text.splitlines()}
    names = [name for table in (CONSTANTS, FUNCTIONS) for name in table.get(path, ()) if name not in defined]
    return names + [line for line in LINES.get(path, ()) if line not in lines]
