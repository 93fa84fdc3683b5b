"""The same results by PyTorch and by other libraries.

PyTorch is used both in its common form and at its best. Libraries are optional (``pip install '.[bench]'``); the table
omits absent ones.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks.harness import Contender


def have(module: str) -> bool:
    """Return whether a peer is installed."""
    return importlib.util.find_spec(module) is not None


# --- similarity of two representational dissimilarity matrices -------------------------------------------------


def prepare(x: torch.Tensor, metric: str) -> torch.Tensor:
    """Return rows whose inner products are the cosines or correlations."""
    if metric == "correlation":
        x = x - x.mean(-1, keepdim=True)
    return normalize(x, dim=-1) if metric in ("cosine", "correlation") else x


def full_matrix(x: torch.Tensor, metric: str) -> torch.Tensor:
    """Return all n x n entries of one space by the shortest PyTorch."""
    return torch.cdist(x, x) if metric == "euclidean" else 1 - prepare(x, metric) @ prepare(x, metric).T


def condensed(spaces: Iterable[torch.Tensor], n: int, metric: str) -> Iterator[torch.Tensor]:
    """Return the upper triangle of each space's matrix, by index."""
    i, j = torch.triu_indices(n, n, 1)
    return (full_matrix(x, metric)[i, j] for x in spaces)


def torch_as_written(x: torch.Tensor, y: torch.Tensor, metric: str) -> torch.Tensor:
    """Return Pearson from two n x n matrices, their upper triangles by index, and ``torch.corrcoef``."""
    return torch.corrcoef(torch.stack([*condensed((x, y), len(x), metric)]))[0, 1]


def torch_spearman(x: torch.Tensor, y: torch.Tensor, metric: str) -> torch.Tensor:
    """Return Spearman with ranks by sorting twice; equal entries get different ranks."""
    ranks = [triangle.argsort().argsort().float() for triangle in condensed((x, y), len(x), metric)]
    return torch.corrcoef(torch.stack(ranks))[0, 1]


def torch_at_best(x: torch.Tensor, y: torch.Tensor, metric: str) -> torch.Tensor:
    """Return Pearson from two n x n products and sums over whole matrices, without their constant diagonals."""
    a, b = full_matrix(x, metric), full_matrix(y, metric)
    n = len(x)
    a.fill_diagonal_(0)
    b.fill_diagonal_(0)
    pairs = n * (n - 1)
    mean_a, mean_b = a.sum(dtype=torch.float64) / pairs, b.sum(dtype=torch.float64) / pairs
    a.sub_(mean_a.float()).fill_diagonal_(0)
    b.sub_(mean_b.float()).fill_diagonal_(0)
    a, b = a.flatten(), b.flatten()
    return torch.dot(a, b) / (a.norm() * b.norm())


def torch_layers(x: torch.Tensor, metric: str) -> torch.Tensor:
    """Return the correlations of all layers with all layers: every triangle is stored, then one ``corrcoef``."""
    return torch.corrcoef(torch.stack([*condensed(x, x.shape[1], metric)]))


def scipy_rsa(x: np.ndarray, y: np.ndarray, metric: str, compare: str = "pearson") -> float:
    """Return the correlation by SciPy's ``pdist`` and ``pearsonr`` or ``spearmanr``."""
    from scipy.spatial.distance import pdist
    from scipy.stats import pearsonr, spearmanr

    a, b = pdist(x, metric), pdist(y, metric)
    return float((pearsonr if compare == "pearson" else spearmanr)(a, b).statistic)


def sklearn_rsa(x: np.ndarray, y: np.ndarray, metric: str) -> float:
    """Return the correlation by scikit-learn's ``pairwise_distances`` and ``np.corrcoef`` of the upper triangles."""
    from sklearn.metrics import pairwise_distances

    i, j = np.triu_indices(len(x), 1)
    return float(
        np.corrcoef(pairwise_distances(x, metric=metric)[i, j], pairwise_distances(y, metric=metric)[i, j])[0, 1]
    )


def rsatoolbox_rsa(x: np.ndarray, y: np.ndarray, metric: str, compare: str = "corr") -> float:
    """Return the correlation by rsatoolbox, which has correlation and (squared) Euclidean distances, not cosine."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm
    from rsatoolbox.rdm import compare as compare_rdms

    first, second = (calc_rdm(Dataset(z), method=metric) for z in (x, y))
    return float(np.squeeze(compare_rdms(first, second, method=compare)))


def mne_rsa_rsa(x: np.ndarray, y: np.ndarray, metric: str, compare: str = "pearson") -> float:
    """Return the correlation by mne-rsa's ``compute_rdm`` and ``rsa``."""
    import mne_rsa

    return float(
        np.squeeze(
            mne_rsa.rsa(mne_rsa.compute_rdm(x, metric=metric), mne_rsa.compute_rdm(y, metric=metric), metric=compare)
        )
    )


def library_contenders(x: torch.Tensor, y: torch.Tensor, metric: str, compare: str = "pearson") -> list[Contender]:
    """Return every installed library that computes this RSA, timed once or twice because a run takes seconds."""
    a, b = x.numpy(), y.numpy()
    found: list[tuple[str, str, Callable[[], object]]] = [
        ("scipy", "SciPy", lambda: scipy_rsa(a, b, metric, compare)),
        ("mne_rsa", "mne-rsa", lambda: mne_rsa_rsa(a, b, metric, compare)),
    ]
    if compare == "pearson":
        found.append(("sklearn", "scikit-learn", lambda: sklearn_rsa(a, b, metric)))
    if metric == "correlation":
        name = "corr" if compare == "pearson" else "spearman"
        found.append(("rsatoolbox", "rsatoolbox", lambda: rsatoolbox_rsa(a, b, metric, name)))
    rounds = 2 if compare == "pearson" else 1
    return [
        Contender(name, run, rounds, one_core=name != "scikit-learn") for module, name, run in found if have(module)
    ]


def feature_space_cka(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return debiased linear CKA by plain PyTorch without n x n matrices (Song et al. 2012 in the feature space)."""
    n = len(x)

    def hsic(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        p, q, cross = (a * a).sum(1), (b * b).sum(1), a.T @ b
        s, t = a.sum(0), b.sum(0)
        trace = (cross * cross).sum() - p @ q
        rows = (a @ s - p) @ (b @ t - q)
        return trace + (s @ s - p.sum()) * (t @ t - q.sum()) / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)

    return hsic(x, y) / torch.sqrt(hsic(x, x) * hsic(y, y))


def pytorch_cka(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return debiased linear CKA by pytorch-cka, from two n x n Gram matrices."""
    from cka import cka_from_features

    return cka_from_features(x, y)


def dense_knn(x: torch.Tensor, y: torch.Tensor, k: int) -> torch.Tensor:
    """Return the shares of common nearest neighbours (n,), from two n x n matrices of cosines and ``topk``."""
    nearest = [
        (prepare(z, "cosine") @ prepare(z, "cosine").T).fill_diagonal_(-2).topk(k, dim=1).indices for z in (x, y)
    ]
    return (nearest[0][:, :, None] == nearest[1][:, None, :]).any(2).double().mean(1)


def sklearn_knn(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Return the shares of common nearest neighbours (n,), by scikit-learn's ``NearestNeighbors``."""
    from sklearn.neighbors import NearestNeighbors

    a, b = (NearestNeighbors(n_neighbors=k, metric="cosine").fit(z).kneighbors(return_distance=False) for z in (x, y))
    return (a[:, :, None] == b[:, None, :]).any(2).mean(1)


# --- pairwise distances -------------------------------------------------------------------------------------------


def keops_row_sums(x: torch.Tensor) -> torch.Tensor:
    """Return row sums of the Euclidean distance matrix by KeOps, which never stores the matrix."""
    from pykeops.torch import LazyTensor

    return ((LazyTensor(x[:, None, :]) - LazyTensor(x[None, :, :])) ** 2).sum(-1).sqrt().sum(1)


# --- structural probes -----------------------------------------------------------------------------------------------


def pad(h: torch.Tensor, distances: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad packed vectors (T, D) to (S, n, D) and packed distances to (S, n, n), with -1 outside the sentence."""
    size = int(lengths.max())
    vectors = h.new_zeros(len(lengths), size, h.shape[-1])
    gold = h.new_full((len(lengths), size, size), -1.0)
    word = pair = 0
    for s, n in enumerate(lengths.tolist()):
        vectors[s, :n] = h[word : word + n]
        gold[s, :n, :n] = distances[pair : pair + n * n].view(n, n)
        word, pair = word + n, pair + n * n
    return vectors, gold


def _padded_loss(predicted: torch.Tensor, gold: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    mask = (gold >= 0).to(predicted.dtype)
    error = (predicted - gold).abs() * mask
    return (error.sum((1, 2)) / lengths.to(predicted.dtype) ** 2).mean()


def expand_loss(vectors: torch.Tensor, gold: torch.Tensor, lengths: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the loss as the published code does: transform, expand to (S, n, n, R), subtract, square, sum."""
    p = vectors @ weight
    size = p.shape[1]
    p = p.unsqueeze(2).expand(-1, -1, size, -1)
    return _padded_loss((p - p.transpose(1, 2)).pow(2).sum(-1), gold, lengths)


def padded_gram_loss(
    vectors: torch.Tensor, gold: torch.Tensor, lengths: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Return the loss by the fastest plain PyTorch, a padded batched Gram matrix."""
    p = vectors @ weight
    gram = p @ p.transpose(1, 2)
    norms = gram.diagonal(dim1=1, dim2=2)
    return _padded_loss(norms[:, :, None] + norms[:, None, :] - 2 * gram, gold, lengths)
