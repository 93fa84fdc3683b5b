"""SHA-256 digests that identify encoders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertft.models.names import resolve_model
from bertft.runs.digests import bytes_of

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

# Modules that turn text into vectors, relative to the package.
SOURCES = (
    "models/encoder.py",
    "models/batching.py",
    "models/pieces.py",
    "models/tokenising.py",
    "models/skipping.py",
    "models/masks.py",
    "models/blocks.py",
    "models/hooks.py",
    "models/loading.py",
    "data/alignment.py",
    "data/examples.py",
)


def fingerprint(encoder: Encoder) -> str:
    """Return the SHA-256 of an encoder's weights, configuration and tokenizer: equal digests, equal vectors.

    Every byte of the weights counts, in their dtype. The encoder's name, its folder and the device do not, nor does the
    truncation or padding that the tokenizer was last called with. SHA-256 reads about 1 GB a second: MiniLM (91 MB)
    takes 0.1 s, BERT base 0.4 s.
    """
    from tokenizers import Tokenizer

    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(bytes_of(tensor))
    about: Any = encoder.model.config
    config = {k: v for k, v in about.to_dict().items() if k not in ("_name_or_path", "name_or_path")}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    tokenizer = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())  # a copy
    tokenizer.no_truncation()
    tokenizer.no_padding()
    digest.update(tokenizer.to_str().encode())
    return digest.hexdigest()


def sampled_fingerprint(encoder: Encoder) -> str:
    """Return the digest that ``bertft rsa`` once wrote into run folders, of about 1,024 numbers of each weight.

    It tells encoders apart by a sample of their weights only. Use it to recognise such folders, and `fingerprint` for
    everything else.
    """
    digest = hashlib.sha256()
    for name, weight in encoder.model.state_dict().items():
        sample = weight.flatten()[:: max(1, weight.numel() // 1024)]
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(bytes_of(sample))
    return digest.hexdigest()


def model_fingerprint(name: str) -> str:
    """Return the SHA-256 of the files of the model ``name``, or of its id and commit if it comes from the hub.

    The files are those of the weights, the configuration and the tokenizer; the model is not loaded. Raises
    ``BertftError`` if there is no such model.
    """
    where = resolve_model(str(name))
    folder = Path(where)
    if not folder.is_dir():
        return hashlib.sha256(where.encode()).hexdigest()
    digest = hashlib.sha256()
    files = [*sorted(folder.glob("*.safetensors")), folder / "config.json", folder / "tokenizer.json"]
    for path in files:
        if path.exists():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()


def code_digest(sources: Iterable[str] = SOURCES) -> str:
    """Return the SHA-256 of ``sources`` (paths within the package) and of the versions of torch and transformers."""
    import torch
    import transformers

    digest = hashlib.sha256(f"{torch.__version__} {transformers.__version__}".encode())
    package = Path(__file__).parents[1]
    for name in sources:
        digest.update((package / name).read_bytes())
    return digest.hexdigest()
