"""Tiny random models of common families, with tokenizers."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bertft.data import synthetic

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
POSITIONS = {"max_position_embeddings": 130}
VOCABULARY = 300


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special))
    return _closed(tokenizer, "[CLS]", "[SEP]")


def byte_level(closed: bool) -> Tokenizer:
    """Return a tokenizer like RoBERTa's and ModernBERT's (``closed``: <s> ... </s>) or GPT-2's (no special tokens)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"] if closed else ["<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(
        tokenizer,
        trainers.BpeTrainer(vocab_size=VOCABULARY + 100, special_tokens=special, initial_alphabet=alphabet),
    )
    return _closed(tokenizer, "<s>", "</s>") if closed else tokenizer


def trimming() -> Tokenizer:
    """Return a tokenizer like RoBERTa's, whose offsets exclude the blank before a word."""
    tokenizer = byte_level(True)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    return tokenizer


def unigram(first: str | None, last: str | None) -> Tokenizer:
    """Return a tokenizer like Llama's (<s> first, no padding token) or DeBERTa-v3's; spaces are part of pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", "[PAD]", "[CLS]", "[SEP]"]
    _train(tokenizer, trainers.UnigramTrainer(vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>"))
    return _closed(tokenizer, first, last)


def _train(tokenizer: Tokenizer, trainer) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator((" ".join(s.words) for s in synthetic.sentences(200, seed=0)), trainer)


def _closed(tokenizer: Tokenizer, first: str | None, last: str | None) -> Tokenizer:
    names = [name for name in (first, last) if name]
    single = " ".join(filter(None, (first, "$A", last)))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=single + " " + " ".join(filter(None, ("$B", last))),
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
    )
    return tokenizer


BERT = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
ROBERTA = {"unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
DEBERTA = {"unk_token": "<unk>", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}

FAMILIES = {
    "bert": (transformers.BertConfig, SIZES | POSITIONS, wordpiece, BERT),
    "roberta": (
        transformers.RobertaConfig,
        SIZES | POSITIONS | {"type_vocab_size": 1, "pad_token_id": 1},
        trimming,
        ROBERTA,
    ),
    "distilbert": (
        transformers.DistilBertConfig,
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32} | POSITIONS,
        wordpiece,
        BERT,
    ),
    "deberta-v2": (
        transformers.DebertaV2Config,
        SIZES | POSITIONS | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
        lambda: unigram("[CLS]", "[SEP]"),
        DEBERTA,
    ),
    "deberta-v3": (
        transformers.DebertaV2Config,
        SIZES
        | POSITIONS
        | {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "type_vocab_size": 0,
            "position_buckets": 16,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
        lambda: unigram("[CLS]", "[SEP]"),
        DEBERTA,
    ),
    "modernbert": (
        transformers.ModernBertConfig,
        SIZES
        | POSITIONS
        | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2},
        lambda: byte_level(True),
        ROBERTA,
    ),
    "gpt2": (
        transformers.GPT2Config,
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 130, "bos_token_id": 0, "eos_token_id": 0},
        lambda: byte_level(False),
        {"eos_token": "<|endoftext|>", "padding_side": "left"},
    ),
    "llama": (
        transformers.LlamaConfig,
        SIZES | POSITIONS | {"num_key_value_heads": 1},
        lambda: unigram("<s>", None),
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "padding_side": "left"},
    ),
}


LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
GPT2 = {"eos_token": "<|endoftext|>"}
GROUPED = SIZES | POSITIONS | {"num_key_value_heads": 1, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
NARROW = GROUPED | {"head_dim": 8, "sliding_window": 8}

MORE = {
    "qwen2": (transformers.Qwen2Config, GROUPED, lambda: byte_level(False), GPT2),
    "qwen3": (transformers.Qwen3Config, GROUPED | {"head_dim": 8}, lambda: byte_level(False), GPT2),
    "mistral": (transformers.MistralConfig, NARROW, lambda: unigram("<s>", None), LLAMA),
    "gemma2": (transformers.Gemma2Config, NARROW, lambda: unigram("<s>", None), LLAMA),
    "gemma3": (transformers.Gemma3TextConfig, NARROW, lambda: unigram("<s>", None), LLAMA),
    "phi3": (transformers.Phi3Config, GROUPED, lambda: unigram("<s>", None), LLAMA),
    "olmo2": (transformers.Olmo2Config, GROUPED, lambda: byte_level(False), GPT2),
    "gpt-neox": (transformers.GPTNeoXConfig, SIZES | POSITIONS, lambda: byte_level(False), GPT2),
    "opt": (
        transformers.OPTConfig,
        SIZES | POSITIONS | {"ffn_dim": 32, "word_embed_proj_dim": 16, "pad_token_id": 1},
        lambda: byte_level(True),
        ROBERTA,
    ),
    "mixtral": (
        transformers.MixtralConfig,
        GROUPED | {"num_local_experts": 2, "num_experts_per_tok": 1},
        lambda: unigram("<s>", None),
        LLAMA,
    ),
    "smollm3": (transformers.SmolLM3Config, GROUPED, lambda: byte_level(False), GPT2),
    "mpnet": (transformers.MPNetConfig, SIZES | POSITIONS | {"pad_token_id": 1}, lambda: byte_level(True), ROBERTA),
    "electra": (transformers.ElectraConfig, SIZES | POSITIONS | {"embedding_size": 8}, wordpiece, BERT),
    "xlm-r": (
        transformers.XLMRobertaConfig,
        SIZES | POSITIONS | {"type_vocab_size": 1, "pad_token_id": 1},
        lambda: unigram("[CLS]", "[SEP]"),
        DEBERTA,
    ),
    "albert": (
        transformers.AlbertConfig,
        SIZES | POSITIONS | {"embedding_size": 8},
        lambda: unigram("[CLS]", "[SEP]"),
        DEBERTA,
    ),
    "t5": (
        transformers.T5Config,
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
        lambda: unigram(None, "</s>"),
        {"unk_token": "<unk>", "pad_token": "[PAD]", "eos_token": "</s>"},
    ),
}
"""Families of which only the vectors are tested."""


def save(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a model folder of ``family`` in the hub's format; return it."""
    kind, sizes, tokenizer_of, names = {**FAMILIES, **MORE}[family]
    backend = tokenizer_of()
    config = kind(vocab_size=backend.get_vocab_size(), **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(config)
        for weight in model.parameters():  # initial weights are too small to make layers differ
            weight.data.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **names)
    tokenizer.save_pretrained(folder)
    return folder
