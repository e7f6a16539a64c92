"""Encoders whose attention knows relative positions: T5's encoder, DeBERTa v2 and v3. Reference: transformers' own classes."""

import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Dense

import vocab
from common import TEXTS, edit_config, new_layout, old_layout, randomise, reference, save_model

LONG = TEXTS + ["z cat " * 90]
SOFT = {".q.": 0.2, ".k.": 0.2}


def t5(out, length, seed, **config):
    """T5 does not scale its scores: queries and keys stay small, so that the softmax has something to choose."""
    size = vocab.unigram(out, length, "t5", kind="T5Tokenizer")
    sizes = dict(vocab_size=size, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, is_encoder_decoder=True)
    return randomise(transformers.T5EncoderModel(transformers.T5Config(**(sizes | config))), seed, scales=SOFT)


def sentence_t5(out):
    """As sentence-t5 and GTR: ReLU, mean, Dense without bias, Normalize; texts longer than 128 tokens."""
    save_model(out, t5(out, 160, 401, feed_forward_proj="relu"))
    edit_config(out, architectures=["T5EncoderModel"])
    dense = randomise(Dense(32, 24, bias=False, activation_function=torch.nn.Identity()), 402)
    old_layout(out, 32, ["mean_tokens"], 150, dense=[dense])
    reference(out, texts=LONG)


def t5_gated(out):
    """As T5 1.1: gated GELU, heads wider than d_model / heads, other buckets, the table stored twice; bf16."""
    model = t5(out, 64, 403, feed_forward_proj="gated-gelu", d_model=24, d_kv=12, num_heads=3, num_layers=3, relative_attention_num_buckets=12, relative_attention_max_distance=30, layer_norm_epsilon=1e-3)
    save_model(out, model, dtype=torch.bfloat16)
    tensors = load_file(out / "model.safetensors")
    save_file(tensors | {"encoder.embed_tokens.weight": tensors["shared.weight"].clone()}, out / "model.safetensors", {"format": "pt"})
    edit_config(out, architectures=["T5EncoderModel"])
    new_layout(out, 24, "mean", normalize=False, prompts={"query": "query: "})
    reference(out, ["", "query: "])


def deberta(out, length, seed, prefix="", dtype=None, shard=None, layers=2, **config):
    size = vocab.unigram(out, length, "deberta")
    sizes = dict(vocab_size=size, hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=40, max_position_embeddings=64, relative_attention=True, pad_token_id=0)
    model = randomise(transformers.DebertaV2Model(transformers.DebertaV2Config(**(sizes | config))), seed)
    save_model(out, model, prefix=prefix, dtype=dtype, shard=shard)


def deberta_v3(out):
    """As deberta-v3: keys shared, 16 buckets (8 exact to either side), the table normalised, no absolute positions, no types; under `deberta.`."""
    deberta(out, 64, 411, "deberta.", position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p", position_biased_input=False, type_vocab_size=0, layer_norm_eps=1e-7)
    edit_config(out, pos_att_type="p2c|c2p", legacy=True)
    old_layout(out, 32, ["mean_tokens"], 62)
    reference(out)


def deberta_v2(out):
    """As deberta-v2-xlarge: a convolution after the first layer; f16 in shards."""
    deberta(
        out, 60, 412, dtype=torch.float16, shard="16KB", layers=3, position_buckets=20, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, type_vocab_size=0, conv_kernel_size=3, conv_act="gelu", layer_norm_eps=1e-7,
    )  # fmt: skip
    new_layout(out, 32, "cls", normalize=False)
    reference(out)


def deberta_own_keys(out):
    """Own projections of the positions, no buckets but clamping at 24, absolute positions and types too, embeddings narrower than the layers."""
    deberta(
        out, 60, 413, hidden_size=24, num_attention_heads=2, embedding_size=16, share_att_key=False, pos_att_type=["p2c", "c2p"], position_biased_input=True,
        type_vocab_size=2, max_relative_positions=24, hidden_act="gelu_new",
    )  # fmt: skip
    new_layout(out, 24, "mean")
    reference(out)


def deberta_content_only(out):
    """One direction only (c2p), own keys, a wider convolution in groups."""
    deberta(
        out, 56, 414, dtype=torch.bfloat16, position_buckets=8, norm_rel_ebd="none", share_att_key=False, pos_att_type=["c2p"], position_biased_input=False, type_vocab_size=0,
        conv_kernel_size=5, conv_groups=4, conv_act="tanh",
    )  # fmt: skip
    new_layout(out, 32, "mean", normalize=False, prompts={"query": "query: "}, include_prompt=False)
    reference(out, ["", "query: "])


MAKERS = {
    "t5/old-mean-dense": sentence_t5,
    "t5/new-mean-bf16-gated": t5_gated,
    "deberta-v2/old-mean-v3": deberta_v3,
    "deberta-v2/new-cls-f16-sharded-conv": deberta_v2,
    "deberta-v2/new-mean-own-keys": deberta_own_keys,
    "deberta-v2/new-mean-bf16-c2p": deberta_content_only,
}
