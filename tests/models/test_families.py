"""Families of models: vectors, adapters, half precision."""

from __future__ import annotations

import json

import peft
import pytest
import torch
import transformers
from families import FAMILIES, MORE, save

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models.blocks import blocks, freeze, reinitialise, truncate
from bertft.models.encoder import Encoder
from bertft.similarity import compare_encoders

SENTENCES = [s.words for s in synthetic.sentences(12, seed=3)]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    made = {}

    def get(family: str):
        if family not in made:
            made[family] = save(family, tmp_path_factory.mktemp(family))
        return made[family]

    return get


@torch.no_grad()
def alone(encoder: Encoder, ids: list[int]) -> torch.Tensor:
    """Return the hidden states (L, P, D) of one unpadded text."""
    output = encoder.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0]


@pytest.mark.parametrize("family", [*FAMILIES, *MORE])
def test_vectors_equal_those_of_the_unpadded_model(family, folder_of):
    encoder = Encoder.from_pretrained(str(folder_of(family)), device="cpu")
    assert (encoder.num_layers, encoder.dim) == (3, 16)
    texts = [" ".join(words) for words in SENTENCES]
    special = set(encoder.tokenizer.all_special_ids)
    for batch in encoder.stream(texts, unit="token", batch_tokens=400):
        for index, found in zip(batch.index.tolist(), batch.vectors.split(batch.lengths.tolist(), 1), strict=True):
            ids = encoder.tokenizer(texts[index])["input_ids"]
            kept = [i for i, piece in enumerate(ids) if piece not in special]
            torch.testing.assert_close(found, alone(encoder, ids)[:, kept], rtol=1e-4, atol=1e-5)
    lengths = {}
    for batch in encoder.stream(SENTENCES, batch_tokens=400):
        lengths.update(zip(batch.index.tolist(), batch.lengths.tolist(), strict=True))
        assert torch.isfinite(batch.vectors).all()
    below = next(encoder.stream(SENTENCES, batch_tokens=400, layers=[1, 0])).vectors
    assert torch.equal(below, next(encoder.stream(SENTENCES, batch_tokens=400)).vectors[[1, 0]])
    assert lengths == {i: len(words) for i, words in enumerate(SENTENCES)}


@torch.inference_mode()
@pytest.mark.parametrize(("family", "norm"), [("llama", "norm"), ("gemma2", "norm"), ("gpt-neox", "final_layer_norm")])
def test_last_layer_of_a_decoder_is_after_the_final_norm(family, norm, folder_of):
    encoder = Encoder.from_pretrained(str(folder_of(family)), device="cpu")
    before = []
    encoder.model.get_submodule(norm).register_forward_pre_hook(lambda _, args: before.append(args[0]))
    batch = next(encoder.stream([SENTENCES[0]], unit="token"))
    whole = encoder.model.get_submodule(norm)(before[0])[0, -batch.vectors.shape[1] :]
    torch.testing.assert_close(batch.vectors[-1], whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(batch.vectors[-1], before[0][0, -batch.vectors.shape[1] :], atol=1e-2)


def test_reinitialised_t5_encoder_is_an_encoder(folder_of):
    encoder = Encoder.from_pretrained(str(folder_of("t5")), device="cpu")
    fresh = reinitialise(encoder.model, seed=1)
    assert type(fresh) is type(encoder.model) is transformers.T5EncoderModel
    assert blocks(fresh)[0] is not blocks(encoder.model)[0]


def test_albert_can_lose_layers_but_not_freeze_some(folder_of):
    encoder = Encoder.from_pretrained(str(folder_of("albert")), device="cpu")
    whole = next(encoder.stream(SENTENCES)).vectors
    with pytest.raises(BertftError, match="k must be -1 or 0 for AlbertModel, where one block serves several layers"):
        freeze(encoder.model, 1)
    freeze(encoder.model, 0)
    frozen = {name for name, weight in encoder.model.named_parameters() if not weight.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"embeddings", "encoder"}
    assert not any("albert_layer_groups" in name for name in frozen)
    truncate(encoder.model, 1)
    assert torch.equal(next(encoder.stream(SENTENCES)).vectors, whole[:2])


def test_t5_blocks_cannot_be_frozen(folder_of):
    model = Encoder.from_pretrained(str(folder_of("t5")), device="cpu").model
    with pytest.raises(BertftError, match="T5EncoderModel, where the first block serves all others"):
        freeze(model, 1)


OTHER_KINDS = {
    "vit": (transformers.ViTConfig(), "found ViTModel, which reads images"),
    "wav2vec2": (transformers.Wav2Vec2Config(), "found Wav2Vec2Model, which reads audio"),
    "clip": (transformers.CLIPConfig(), "found CLIPModel, which reads images and text"),
    "whisper": (transformers.WhisperConfig(), "found WhisperModel, which reads audio and text"),
    "bart": (transformers.BartConfig(), "expected an encoder or a decoder, found BartModel, which is both"),
    "opt-350m": (
        transformers.OPTConfig(hidden_size=16, word_embed_proj_dim=8),
        "found OPTModel, whose last layer has 8 dimensions and the others 16",
    ),
    "decoder": (transformers.BertConfig(is_decoder=True), "found BertModel with is_decoder in its config"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_of_models_are_refused_in_one_sentence(kind, tmp_path):
    config, message = OTHER_KINDS[kind]
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")  # its weights are not reached
    with pytest.raises(BertftError) as error:
        Encoder.from_pretrained(str(tmp_path))
    assert str(error.value).startswith(f"model {tmp_path}: expected ") and message in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_tokenised_as_in_running_text(family, folder_of):
    encoder = Encoder.from_pretrained(str(folder_of(family)), device="cpu")
    words = ("the", "dogs", "saw", "them")
    (found,) = encoder.stream([words])
    ids = encoder.tokenizer(
        " the dogs saw them" if family in ("roberta", "modernbert", "gpt2") else "the dogs saw them"
    )
    hidden, owner = alone(encoder, ids["input_ids"]), ids.word_ids(0)
    runs = sorted({w for w in owner if w is not None})
    assert len(runs) == 4
    expected = torch.stack([hidden[:, [i for i, w in enumerate(owner) if w == run]].mean(1) for run in runs], 1)
    torch.testing.assert_close(found.vectors, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_vectors_are_similar_to_float32(family, dtype, folder_of):
    full = Encoder.from_pretrained(str(folder_of(family)), device="cpu")
    half = Encoder.from_pretrained(str(folder_of(family)), device="cpu", dtype=dtype)
    assert next(half.stream(SENTENCES)).vectors.dtype == dtype
    rows = compare_encoders(full, {"half": half}, SENTENCES, unit="word", tokens=100)
    assert all(row.value > 0.99 for row in rows)


def adapter(folder_of, family: str, folder, head: bool, **settings):
    """Save a LoRA adapter with random weights for ``family``, made with or without a classification head."""
    kind = transformers.AutoModelForSequenceClassification if head else transformers.AutoModel
    base = kind.from_pretrained(folder_of(family))
    target = {"bert": ["query", "value"], "gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"]}[family]
    task = "SEQ_CLS" if head else None
    model = peft.get_peft_model(
        base, peft.LoraConfig(task_type=task, r=2, lora_alpha=8, target_modules=target, fan_in_fan_out=family == "gpt2")
    )
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(0.5 * torch.randn(weight.shape, generator=g))
    model.save_pretrained(folder)
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning")  # from peft, while the test makes its adapter
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_adapter_folder_loads_as_its_base_with_the_adapter_merged(family, head, folder_of, tmp_path):
    model = adapter(folder_of, family, tmp_path, head).eval()
    base = Encoder.from_pretrained(str(folder_of(family)), device="cpu")
    tuned = Encoder.from_pretrained(str(tmp_path), device="cpu")
    ids = base.tokenizer("the dogs saw them")["input_ids"]
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    expected = torch.stack(output.hidden_states)[:, 0]
    torch.testing.assert_close(alone(tuned, ids), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone(tuned, ids)[-1], alone(base, ids)[-1], atol=1e-2)
    rows = compare_encoders(base, {"lora": tuned}, SENTENCES, unit="word", tokens=100)
    assert rows[0].value == pytest.approx(1) and rows[2].value < 0.999


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_unusable_adapter_is_refused(folder_of, tmp_path):
    adapter(folder_of, "bert", tmp_path / "a", head=False)
    path = tmp_path / "a" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(folder_of("llama"))}))
    with pytest.raises(BertftError, match="does not fit its base"):
        Encoder.from_pretrained(str(tmp_path / "a"))
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(folder_of("distilbert"))}))
    with pytest.raises(BertftError, match="does not fit its base"):
        Encoder.from_pretrained(str(tmp_path / "a"))
    path.write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(BertftError, match="names no base model"):
        Encoder.from_pretrained(str(tmp_path / "a"))
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    with pytest.raises(BertftError, match="not a usable adapter"):
        Encoder.from_pretrained(str(tmp_path / "a"))
    prompts = peft.PromptEncoderConfig(num_virtual_tokens=2, token_dim=16, encoder_hidden_size=16)
    prompts.base_model_name_or_path = str(folder_of("bert"))
    prompts.save_pretrained(tmp_path / "p")
    (tmp_path / "p" / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(BertftError, match=r"that can be merged, as LoRA|does not fit its base"):
        Encoder.from_pretrained(str(tmp_path / "p"))
