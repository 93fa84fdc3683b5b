"""Vectors from files against the models that they come from, and bad files."""

from __future__ import annotations

import json
import resource

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from bertft.cli.main import run
from bertft.data import synthetic
from bertft.data.vectors.files import open_vectors
from bertft.errors import BertftError
from bertft.models.blocks import reinitialise
from bertft.models.encoder import Encoder
from bertft.runs.checkpoint import Checkpoint
from bertft.runs.rows import read_results
from bertft.similarity import CrossMoments, Plan, compare_stream, compare_vectors
from bertft.similarity import vectors as module
from bertft.similarity.influence import rsa_intervals

PLAN = Plan(metrics=("cosine",), measures=("rsa", "cka", "procrustes", "anisotropy"), sample=60, seed=3)


@pytest.fixture(scope="module")
def spaces(tiny_model):
    """Return the rows of two encoders on a text, and their vectors (L, n, D) with ids and groups."""
    base = Encoder.from_pretrained(str(tiny_model), device="cpu")
    other = Encoder(reinitialise(base.model, 3), base.tokenizer, "tuned")
    texts = [sentence.words for sentence in synthetic.sentences(20, seed=4)]
    rows = compare_stream(base, {"tuned": other}, texts, PLAN, unit="word", data="x")
    found = []
    for encoder in (base, other):
        parts = {}
        for batch in encoder.stream(texts):
            parts.update(zip(batch.index.tolist(), batch.vectors.split(batch.lengths.tolist(), 1), strict=True))
        found.append(torch.cat([parts[i] for i in range(len(texts))], 1))
    groups = [f"text {i}" for i, words in enumerate(texts) for _ in words]
    ids = [f"{group} {k}" for k, group in enumerate(groups)]
    return rows, found[0], found[1], ids, groups


def equal(found, expected, within, ends):
    """Compare rows; 1e-14 leaves the last digits, which depend on where in memory the vectors lie."""
    assert [(r.key, r.n, r.seed) for r in found] == [(r.key, r.n, r.seed) for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.value == pytest.approx(other.value, abs=within)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=ends)


def npy(path, vectors, ids, groups):
    np.save(path.with_suffix(".npy"), vectors.numpy())
    beside(path, ids, groups)
    return path.with_suffix(".npy")


def beside(path, ids, groups):
    path.with_name(f"{path.stem}.ids.txt").write_text("\n".join(ids) + "\n")
    path.with_name(f"{path.stem}.groups.txt").write_text("\n".join(groups) + "\n")


def npz(path, vectors, ids, groups):
    layers = {f"layer_{k}": np.asfortranarray(layer.numpy()) for k, layer in enumerate(vectors)}
    np.savez(path.with_suffix(".npz"), ids=np.array(ids), groups=np.array(groups), **layers)
    return path.with_suffix(".npz")


def safetensors(path, vectors, ids, groups):
    layers = {f"model.layers.{k}": layer.contiguous() for k, layer in enumerate(vectors)}
    save_file(layers, path.with_suffix(".safetensors"))
    beside(path, ids, groups)
    return path.with_suffix(".safetensors")


def stacked_safetensors(path, vectors, ids, groups):
    numbered = {"ids": torch.arange(len(ids)), "groups": torch.tensor([int(g.split()[1]) for g in groups])}
    save_file({"hidden_states": vectors, **numbered}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def table(vectors, ids, groups):
    columns = {
        f"layer{k}": pa.FixedSizeListArray.from_arrays(pa.array(layer.flatten().numpy()), layer.shape[1])
        for k, layer in enumerate(vectors)
    }
    return pa.table({"id": ids, "group": groups, **columns})


def parquet(path, vectors, ids, groups):
    pq.write_table(table(vectors, ids, groups), path.with_suffix(".parquet"), row_group_size=17)
    return path.with_suffix(".parquet")


def nested_parquet(path, vectors, ids, groups):
    nested = pa.table({"id": ids, "group": groups, "vectors": vectors.transpose(0, 1).tolist()})
    nested = nested.set_column(2, "vectors", nested["vectors"].cast(pa.list_(pa.list_(pa.float32()))))
    pq.write_table(nested, path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def feather(path, vectors, ids, groups):
    pyarrow.feather.write_feather(table(vectors, ids, groups), path.with_suffix(".feather"), compression="uncompressed")
    return path.with_suffix(".feather")


def dataset(path, vectors, ids, groups):
    columns = {f"layer{k}": layer.tolist() for k, layer in enumerate(vectors)}
    kinds = {name: datasets.Sequence(datasets.Value("float32")) for name in columns}
    text = {name: datasets.Value("string") for name in ("id", "group")}
    features = datasets.Features({**kinds, **text})
    datasets.Dataset.from_dict({"id": ids, "group": groups, **columns}, features=features).save_to_disk(path)
    return path


FORMS = [npy, npz, safetensors, stacked_safetensors, parquet, nested_parquet, feather, dataset]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_has_the_rows_of_the_models(form, spaces, tmp_path, monkeypatch):
    rows, base, tuned, ids, groups = spaces
    monkeypatch.setattr(module, "MOST", 30)  # several chunks
    monkeypatch.setattr(module, "LEAST", 30)
    files = [form(tmp_path / name, vectors, ids, groups) for name, vectors in (("base", base), ("tuned", tuned))]
    found = compare_vectors(*files, PLAN, data="x")
    plain = compare_vectors(base, tuned, PLAN, groups=groups, data="x")
    equal(found, plain, 1e-14, 1e-12)
    equal(found, rows, 1e-6, 1e-3)  # float32 sums about another mean; influences in float32 give three digits


def test_a_killed_comparison_resumes_to_the_same_rows(spaces, tmp_path, monkeypatch):
    _, base, tuned, _, groups = spaces
    monkeypatch.setattr(module, "MOST", 30)
    monkeypatch.setattr(module, "LEAST", 30)
    monkeypatch.setattr(module, "EVERY", 0)
    whole = compare_vectors(base, tuned, PLAN, groups=groups)
    saves = []

    def save(self, tensors, record, own=Checkpoint.save):
        own(self, tensors, record)
        saves.append(record["done"])
        if len(saves) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            compare_vectors(base, tuned, PLAN, groups=groups, checkpoint=Checkpoint(tmp_path, {}))
    said = []

    class Told(type(module.SILENT)):
        def say(self, line):
            said.append(line)

    again = compare_vectors(base, tuned, PLAN, groups=groups, checkpoint=Checkpoint(tmp_path, {}), progress=Told())
    assert saves == [30, 60] and said == ["vectors: resuming after 60 stimuli"]
    equal(again, whole, 1e-14, 1e-12)


def test_some_layers_keep_their_numbers(spaces, tmp_path):
    _, base, tuned, ids, groups = spaces
    files = [parquet(tmp_path / name, vectors, ids, groups) for name, vectors in (("base", base), ("tuned", tuned))]
    whole = {row.key: row.value for row in compare_vectors(*files, PLAN)}
    some = compare_vectors(*files, Plan(metrics=("cosine",), measures=PLAN.measures, sample=60, seed=3, layers=(1, 3)))
    assert {row.layer for row in some} == {1, 3}
    assert all(whole[row.key] == row.value for row in some)
    with pytest.raises(BertftError, match=r"expected layer 9 \(--layers\), found 0, 1, 2, 3"):
        compare_vectors(*files, Plan(layers=(1, 9)))


def swapped(ids):
    return [ids[1], ids[0], *ids[2:]]


BAD_IDS = {
    "permuted": (lambda ids: (ids, swapped(ids)), r"found 'text 0 1' instead of 'text 0 0' in row 0"),
    "duplicated": (lambda ids: ([ids[0], *ids[:-1]],) * 2, r"expected each id once, found 'text 0 0' in rows 0 and 1"),
    "another": (lambda ids: (ids, [*ids[:-1], "z"]), r"found 'z' instead of 'text 19 \d+' in row \d+"),
    "short": (lambda ids: (ids, ids[:-1]), r"expected \d+ ids, one for each stimulus, found \d+"),
}


@pytest.mark.parametrize("kind", BAD_IDS)
def test_ids_that_differ_are_refused(kind, spaces, tmp_path):
    _, base, tuned, ids, groups = spaces
    changed, message = BAD_IDS[kind]
    files = [
        npy(tmp_path / name, vectors, own, groups)
        for name, vectors, own in zip(("base", "tuned"), (base, tuned), changed(ids), strict=True)
    ]
    with pytest.raises(BertftError, match=message):
        compare_vectors(*files, PLAN)


def test_missing_ids_are_refused_unless_rows_are_paired(spaces, tmp_path):
    _, base, tuned, ids, groups = spaces
    files = [npy(tmp_path / name, vectors, ids, groups) for name, vectors in (("base", base), ("tuned", tuned))]
    (tmp_path / "tuned.ids.txt").unlink()
    with pytest.raises(BertftError, match=r"tuned\.npy: expected an id for each stimulus \(ids\), found none"):
        compare_vectors(*files, PLAN)
    assert compare_vectors(*files, PLAN, pair_by="rows") == compare_vectors(*files, PLAN, ids={"tuned": ids})


def test_groups_that_do_not_fit_are_refused(spaces):
    _, base, tuned, _, groups = spaces
    with pytest.raises(BertftError, match=r"expected \d+ groups, one for each stimulus, found 3"):
        compare_vectors(base, tuned, PLAN, groups=groups[:3])
    with pytest.raises(BertftError, match=r"stimuli in consecutive rows, found 'text 0' again in row \d+"):
        compare_vectors(base, tuned, PLAN, groups=[*groups[:-1], groups[0]])
    with pytest.raises(BertftError, match=r"tuned: expected \d+ stimuli as in base, found \d+"):
        compare_vectors(base, tuned[:, :-1], PLAN)
    with pytest.raises(BertftError, match="expected the layers 0, 1, 2, 3 of base, found 0, 1"):
        compare_vectors(base, tuned[:2], PLAN)
    with pytest.raises(BertftError, match="under names other than base"):
        compare_vectors(base, {"base": tuned}, PLAN)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])
    return path


def compressed(path):
    np.savez_compressed(path.with_suffix(".npz"), vectors=np.ones((2, 3, 4), np.float32))
    return path.with_suffix(".npz")


def made(path, suffix, write):
    write(path.with_suffix(suffix))
    return path.with_suffix(suffix)


ONES = np.ones((2, 9, 4), np.float32)
BAD_FILES = {
    "npy that ends early": (lambda p: cut(made(p, ".npy", lambda f: np.save(f, ONES))), "cannot be read as vectors"),
    "npz that ends early": (lambda p: cut(made(p, ".npz", lambda f: np.savez(f, ONES))), "cannot be read as vectors"),
    "safetensors that ends early": (
        lambda p: cut(made(p, ".safetensors", lambda f: save_file({"vectors": torch.ones(2, 9, 4)}, f))),
        "cannot be read as vectors",
    ),
    "parquet that ends early": (
        lambda p: cut(made(p, ".parquet", lambda f: pq.write_table(pa.table({"layer0": [[1.0]]}), f))),
        "cannot be read as vectors",
    ),
    "feather that ends early": (
        lambda p: cut(made(p, ".feather", lambda f: pyarrow.feather.write_feather(pa.table({"layer0": [[1.0]]}), f))),
        "cannot be read as vectors",
    ),
    "compressed npz": (compressed, r"expected arrays as numpy\.savez writes them, found vectors\.npy compressed"),
    "whole numbers": (
        lambda p: made(p, ".npy", lambda f: np.save(f, ONES.astype(int))),
        "expected floating-point vectors, found int64 in 'vectors'",
    ),
    "whole numbers in a table": (
        lambda p: made(p, ".parquet", lambda f: pq.write_table(pa.table({"layer0": [[1], [2]]}), f)),
        "expected floating-point vectors, found int64 in 'layer0'",
    ),
    "Python objects": (
        lambda p: made(p, ".npy", lambda f: np.save(f, np.array([{}], dtype=object), allow_pickle=True)),
        "found Python objects, which are not read",
    ),
    "one dimension": (lambda p: made(p, ".npy", lambda f: np.save(f, ONES[0, 0])), r"found \(4,\)"),
    "no number in a name": (
        lambda p: made(p, ".npz", lambda f: np.savez(f, other=ONES[0])),
        "under a name with its number, found 'other' of shape",
    ),
    "layers of two widths": (
        lambda p: made(p, ".npz", lambda f: np.savez(f, layer0=ONES[0], layer1=ONES[0, :, :2])),
        r"expected layers of one shape, found \(9, 4\) and \(9, 2\) in 'layer1'",
    ),
    "lists of two lengths": (
        lambda p: made(p, ".parquet", lambda f: pq.write_table(pa.table({"layer0": [[1.0, 2.0], [1.0]]}), f)),
        "expected lists of 2 in 'layer0', found another in row 1",
    ),
    "an empty list among them": (
        lambda p: made(p, ".parquet", lambda f: pq.write_table(pa.table({"layer0": [[1.0, 2.0], None]}), f)),
        "expected lists of 2 in 'layer0', found another in row 1",
    ),
    "a missing number": (
        lambda p: made(p, ".parquet", lambda f: pq.write_table(pa.table({"layer0": [[1.0, 2.0], [1.0, None]]}), f)),
        "expected numbers in 'layer0', found none in rows 0 to 1",
    ),
    "another form": (lambda p: made(p, ".csv", lambda f: f.write_text("1,2")), r"expected vectors in \.npy, \.npz"),
    "no file": (lambda p: p.with_suffix(".npy"), "no such file of vectors"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_in_one_sentence(kind, tmp_path):
    make, message = BAD_FILES[kind]
    path = make(tmp_path / "x")
    with pytest.raises(BertftError, match=message) as error:
        compare_vectors(path, path, PLAN, pair_by="rows")
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_nan_is_named_by_its_place(spaces):
    _, base, tuned, _, groups = spaces
    broken = tuned.clone()
    broken[2, 5] = torch.nan
    with pytest.raises(BertftError, match=r"row 5 of group 'text 0' \(from row 0\), in layer 2 of tuned, holds NaN"):
        compare_vectors(base, broken, PLAN, groups=groups)
    with pytest.raises(BertftError, match=r"row 0 of stimulus 5, in layer 2 of tuned, holds NaN"):
        compare_vectors(base, broken, PLAN)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float16, 1e-2), (torch.bfloat16, 5e-2), (torch.float64, 1e-6)])
def test_another_precision_is_read_as_it_is(dtype, within, spaces, tmp_path):
    _, base, tuned, ids, groups = spaces
    files = [
        stacked_safetensors(tmp_path / name, vectors.to(dtype), ids, groups)
        for name, vectors in (("base", base), ("tuned", tuned))
    ]
    plain = compare_vectors(base, tuned, PLAN, groups=groups)
    for one, other in zip(compare_vectors(*files, PLAN), plain, strict=True):
        assert one.value == pytest.approx(other.value, rel=within, abs=within)


def test_a_sparse_file_of_100_gb_takes_little_memory(tmp_path):
    """All zeros: rows without direction, or a layer without variance."""
    path = tmp_path / "sparse.npy"
    shape = (2, 12_500_000, 1000)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 4 * int(np.prod(shape, dtype=np.int64)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BertftError, match="row 0 of stimulus 0, in layer 0 of the base, has norm 0"):
        compare_vectors(path, path, PLAN, pair_by="rows")
    assert path.stat().st_size > 1e11 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kB


def test_the_command_compares_files_and_resumes(spaces, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, base, tuned, ids, groups = spaces
    files = [npz(tmp_path / name, vectors, ids, groups) for name, vectors in (("base", base), ("tuned", tuned))]
    command = ["rsa", "--base-vectors", "base.npz", "--tuned-vectors", "tuned.npz", "--sample", "60", "--seed", "3"]
    assert run([*command, "--out", "run", "--quiet"]) == 0
    rows = read_results(tmp_path / "run" / "results.csv")
    assert {row.measure for row in rows} == {"rsa_cosine_pearson", "cka_debiased"} and {r.model for r in rows} == {
        "tuned"
    }
    plain = compare_vectors(*files, Plan(sample=60, seed=3))
    assert [row.value for row in rows] == pytest.approx([row.value for row in plain], abs=1e-12)
    assert (tmp_path / "run" / "report.html").exists() and not (tmp_path / "run" / "checkpoint").exists()
    capsys.readouterr()
    assert run(["rsa", "--config", "run/config.yaml", "--out", "run"]) == 0
    assert "done before with the same settings" in capsys.readouterr().err
    assert read_results(tmp_path / "run" / "results.csv") == rows
    marker = json.loads(next((tmp_path / "run" / "rsa").glob("*.done.json")).read_text())
    assert set(marker["settings"]["files"]) == {"", "tuned"}
    sources = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf8"))["sources"]
    pairs = zip(("base", "tuned"), ("base.npz", "tuned.npz"), strict=True)
    assert sources == {
        "vectors": {name: {"source": file, "fingerprint": open_vectors(file).digest()} for name, file in pairs}
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base-vectors", "x.npy"], "--tuned-vectors: missing"),
        (["--tuned-vectors", "x.npy"], "--base-vectors: missing"),
        (["--base", "b", "--tuned", "t"], "--text: missing"),
        (["--tuned", "t", "--text", "x"], "--base: missing"),
        (["--base-vectors", "x.npy", "--tuned-vectors", "y.npy", "--text", "z"], "--text: has no meaning for files"),
        (["--base-vectors", "x.npy", "--tuned-vectors", "base=y.npy"], "'base' is reserved"),
        (["--base-vectors", "x.npy", "--tuned-vectors", "y.npy"], "x.npy: no such file of vectors"),
        (["--base-vectors", "x.npy", "--tuned-vectors", "y.npy", "--pair-by", "luck"], "--pair-by: expected"),
    ],
)
def test_a_bad_command_leaves_nothing(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["rsa", *options, "--out", "run", "--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_last_group_of_one_stimulus_counts_in_the_intervals():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1, 12, 5, generator=g, dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3])
    row, *_ = compare_vectors(x, y, Plan(metrics=("cosine",), measures=("rsa",)), groups=groups.tolist())
    (expected,) = rsa_intervals(CrossMoments(1, 1, "cosine").update(x, y), groups, x, y, sentences=4)
    assert (row.value, row.low, row.high, row.n) == pytest.approx((*expected[:3], 12), abs=1e-9)
