"""Shared fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

# The same examples in every run, so that failures are reproducible.
hypothesis.settings.register_profile("bertft", derandomize=True)
# New examples in every run, for tests/data/test_fuzz.py; a failure prints how to reproduce it.
hypothesis.settings.register_profile("random", database=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("BERTFT_FUZZ", "bertft"))

# Set before transformers or datasets is imported, so that no test uses the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# One thread for each of pytest-xdist's processes: threads of several processes that wait for each other spin.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked ``gpu`` where no GPU is visible."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch  # takes seconds

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no GPU is visible"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tokenizer and a randomly initialised BERT: 3 blocks, 32 dimensions, a window of 128."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    from bertft.data import synthetic

    words = {word.lower() for sentence in synthetic.sentences(400, seed=0) for word in sentence.words}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-"
    # Every third word is missing and is cut into letters, so that words of several pieces are common.
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    entries += [word for i, word in enumerate(sorted(words - set(entries))) if i % 3]
    tokenizer = BertTokenizer(vocab={entry: i for i, entry in enumerate(entries)}, do_lower_case=True)
    tokenizer.model_max_length = 128
    config = BertConfig(
        vocab_size=len(entries),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
    folder = tmp_path_factory.mktemp("tiny-bert")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def disturbed(tiny_model: Path) -> Callable[..., Encoder]:
    """Return a function of (seed, blocks) for the tiny encoder with noise added to the weights of these blocks."""
    import torch

    from bertft.models.encoder import Encoder

    def make(seed: int = 0, blocks: Collection[int] = (1, 2)) -> Encoder:
        encoder, generator = Encoder.from_pretrained(str(tiny_model)), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in encoder.model.named_parameters():
                if any(f"layer.{block}." in name for block in blocks):
                    weight.add_(0.05 * torch.randn(weight.shape, generator=generator).to(weight.device))
        return encoder

    return make


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of the real corpora: ``BERTFT_DATA``, else ``../shared/data`` beside the repository."""
    root = Path(os.environ.get("BERTFT_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no real corpora at {root}; set BERTFT_DATA to their folder")
    return root
