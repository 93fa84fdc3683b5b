"""Kinds of structural probes and their names."""

from __future__ import annotations

import pytest

from bertft.errors import BertftError
from bertft.probes.structural.kind import ProbeKind, requested


def test_kinds_are_requested_in_order_without_repeats():
    kinds = requested([8, 2, 8], orthogonal=True, rbf=True)
    assert kinds == [ProbeKind("linear", 8), ProbeKind("linear", 2), ProbeKind("orthogonal"), ProbeKind("rbf", 8)]
    assert requested([4], orthogonal=False, rbf=False) == [ProbeKind("linear", 4)]


def test_a_sole_linear_kind_has_no_name():
    names = [kind.named(requested([4], True, True)) for kind in requested([4], True, True)]
    assert [str(name) if name else None for name in names] == [None, "orthogonal", "rbf"]
    both = requested([4, 2], False, False)
    assert [str(kind.named(both)) for kind in both] == ["rank4", "rank2"]


def test_kept_probes_have_the_settings_of_earlier_versions():
    assert [kind.setting for kind in requested([4], True, True)] == [4, "orthogonal", "4, RBF kernel"]


def test_an_orthogonal_probe_has_no_rank_and_others_have_one():
    with pytest.raises(BertftError, match="expected a rank unless orthogonal, found orthogonal, 3"):
        ProbeKind("orthogonal", 3)
    with pytest.raises(BertftError, match="found rbf, None"):
        ProbeKind("rbf")
