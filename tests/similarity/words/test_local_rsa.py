"""Local RSA: rows of full matrices, means by label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from bertft.errors import BertftError
from bertft.similarity.moments import CrossMoments
from bertft.similarity.words.local_rsa import local_rsa, mean_by_label


def spaces(n: int = 50):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, n, 9, generator=g, dtype=torch.float64) + 3
    return x, x[..., :7] + torch.randn(2, n, 7, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("metric", ["cosine", "correlation", "sqeuclidean"])
def test_equals_rows_of_full_matrices(metric):
    x, y = spaces()
    moments = CrossMoments(2, 2, metric).update(x[:, :20], y[:, :20]).update(x[:, 20:], y[:, 20:])
    found = local_rsa(moments, x[:, 10:30], y[:, 10:30])
    assert found.shape == (2, 20)
    for layer in range(2):
        a, b = (squareform(pdist(t[layer].numpy(), metric)) for t in (x, y))
        for i in range(10, 30):
            others = np.arange(50) != i
            assert found[layer, i - 10].item() == pytest.approx(
                np.corrcoef(a[i, others], b[i, others])[0, 1], abs=1e-12
            )


def test_means_by_label():
    g = torch.Generator().manual_seed(0)
    groups = torch.arange(400) // 4
    values = (
        torch.randn(1, 400, generator=g, dtype=torch.float64)
        + torch.randn(100, generator=g, dtype=torch.float64)[groups]
    )
    labels = ["a"] * 300 + ["b"] * 99 + ["c"]
    table = mean_by_label(values, labels, groups)
    assert [(row.label, row.n) for row in table] == [("a", 300), ("b", 99), ("c", 1)]
    assert table[0].value == pytest.approx(values[0, :300].mean().item())
    means = values[0, :300].view(75, 4).mean(1)  # equal clusters: the interval of the cluster means
    assert table[0].high - table[0].value == pytest.approx(1.9925 * means.std().item() / 75**0.5, rel=1e-4)
    assert table[2].low is None and table[2].high is None


def test_bad_input():
    x, y = spaces()
    with pytest.raises(BertftError, match="pairs='diagonal'"):
        local_rsa(CrossMoments(2, 2, pairs="all").update(x, y), x, y)
    with pytest.raises(BertftError, match="expected x and y of shapes"):
        local_rsa(CrossMoments(2, 2).update(x, y), x, y[..., :3])
    with pytest.raises(BertftError, match="at least 3 stimuli"):
        local_rsa(CrossMoments(2, 2), x, y)
    with pytest.raises(BertftError, match="a label and a group for each of 50"):
        mean_by_label(x[..., 0], ["a"], torch.zeros(50))
