"""Checks of rows one batch later: the flag against the rows' own checks, and when its error is raised."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bertft.errors import BadRow, BertftError
from bertft.ops.rows import check_rows
from bertft.similarity.compare import row_checks
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.plan import Plan
from bertft.similarity.compare.row_checks import RowChecks, may_be_bad


@pytest.mark.parametrize("metric", ["dot", "cosine", "correlation", "sqeuclidean"])
@pytest.mark.parametrize("row", [0.0, 2.0, 1e30, 1e-30, torch.nan, torch.inf, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_no_bad_row_passes_unseen(metric, row, dtype):
    spaces = [torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(2)]
    if row is not None:
        spaces[1][1, 4] = row
    bad = False
    for space in spaces:
        try:
            check_rows(space, metric, op="test")
        except BadRow:
            bad = True
    found = bool(may_be_bad(spaces, {metric, "dot"}))
    assert found or not bad
    if row in (0.0, None):  # nothing that is rare
        assert found is bad
    assert not may_be_bad([space[:, :0] for space in spaces], {metric})


class Rows(torch.Tensor):
    """Rows that say they are on a GPU."""

    is_cuda = True


def gpu(monkeypatch):
    """Make `RowChecks` record when the host waits."""
    waits = []
    event = lambda: SimpleNamespace(record=lambda stream: None, synchronize=lambda: waits.append(1))
    monkeypatch.setattr(row_checks.torch, "cuda", SimpleNamespace(Event=event, current_stream=lambda device: None))
    return waits


def test_a_bad_row_is_reported_when_the_next_batch_begins(monkeypatch):
    waits = gpu(monkeypatch)
    comparison = Comparison(Plan(), {"t": (1, 1)})
    checks = RowChecks(comparison)
    good, bad = torch.randn(1, 5, 8), torch.zeros(1, 5, 8)
    index, lengths = torch.tensor([0]), torch.tensor([5])

    def begin(space):
        spaces = [good.as_subclass(Rows), space.as_subclass(Rows)]
        fresh = lambda: Comparison(comparison.plan, {"t": (1, 1)}).update(index, lengths, [good, space])
        checks.begin(spaces, fresh)
        comparison.update(index, lengths, [good, space])

    begin(good)
    assert not waits
    begin(bad)  # added unchecked
    assert len(waits) == 1 and len(comparison) == 10
    with pytest.raises(BertftError, match=r"row 0 of text 1 of the stream, in layer 0 of t, has norm 0"):
        begin(good)
    assert len(waits) == 2 and len(comparison) == 10
    checks.settle()  # an error is reported once
    assert len(waits) == 2


def test_rows_on_the_cpu_are_checked_by_the_kernels():
    comparison = Comparison(Plan(), {"t": (1, 1)})
    checks = RowChecks(comparison)
    checks.begin([torch.zeros(1, 5, 8)] * 2, lambda: pytest.fail("called"))
    checks.settle()
    with pytest.raises(BertftError, match="norm 0"):
        comparison.update(torch.tensor([0]), torch.tensor([5]), [torch.zeros(1, 5, 8)] * 2)
