"""Decoders used as encoders: Qwen3, Qwen2, Mistral, Llama (also both ways), Gemma 3, with every kind of rope_scaling. Reference: transformers' own classes."""

import torch
import transformers
from sentence_transformers.base.modules import Dense

import vocab
from common import edit_config, fresh, new_layout, old_layout, old_rope, randomise, reference, save_model

QWEN_FIRST = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
LLAMA3_FIRST = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|eot_id|>"}
INSTRUCT = "Instruct: find the other cat\nQuery: "
NONE = dict(pad_token_id=None, bos_token_id=None, eos_token_id=None)


def rope(theta, kind="default", **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta} | more}


def sizes(vocabulary, **more):
    return NONE | dict(vocab_size=vocabulary, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2) | more


def dense(seed, inside, outside, activation=None):
    return randomise(Dense(inside, outside, bias=False, activation_function=activation or torch.nn.Identity()), seed)


def qwen(out, length, **config):
    return vocab.gpt_bpe(out, length, QWEN_FIRST, "$A <|endoftext|>", QWEN, side="left", **config)


def qwen3_embedding(out):
    """As Qwen3-Embedding: no prefix, heads wider than hidden / heads, end token by the tokenizer, left padding, a query instruction."""
    size = qwen(out, 96, kind="Qwen2Tokenizer")
    config = transformers.Qwen3Config(**sizes(size, head_dim=16, max_position_embeddings=96, **rope(10000.0)))
    save_model(out, randomise(transformers.Qwen3Model(config), 301))
    old_rope(out, architectures=["Qwen3ForCausalLM"], use_sliding_window=False, max_window_layers=2, sliding_window=None)
    old_layout(out, 32, ["lasttoken"], None, prompts={"query": INSTRUCT, "document": ""})
    reference(out, ["", INSTRUCT])


def qwen3_yarn(out):
    """yarn, under `model.` in bf16 shards with `lm_head`, biases, one head of keys, windows in the upper layers."""
    size = qwen(out, 128)
    config = transformers.Qwen3Config(
        **sizes(size, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1, head_dim=16, max_position_embeddings=128, attention_bias=True, rms_norm_eps=1e-3),
        use_sliding_window=True, sliding_window=7, max_window_layers=1, tie_word_embeddings=False, **rope(100.0, "yarn", factor=4.0, original_max_position_embeddings=32),
    )  # fmt: skip
    save_model(out, randomise(transformers.Qwen3ForCausalLM(config), 302), dtype=torch.bfloat16, shard="16KB")
    new_layout(out, 24, "lasttoken", normalize=False, prompts={"query": INSTRUCT}, default="query")
    reference(out, ["", INSTRUCT])


def qwen2_causal(out):
    size = qwen(out, 80, kind="Qwen2Tokenizer")
    config = transformers.Qwen2Config(**sizes(size, max_position_embeddings=80, **rope(500.0)), tie_word_embeddings=True)
    save_model(out, randomise(transformers.Qwen2Model(config), 311), prefix="model.", dtype=torch.float16)
    old_rope(out, architectures=["Qwen2ForCausalLM"])
    old_layout(out, 32, ["lasttoken"], 72)
    reference(out)


def qwen2_both_ways(out):
    """As gte-Qwen2: is_causal false in the config; the last token still pooled; dynamic scaling by the text's own length."""
    size = qwen(out, 64)
    config = transformers.Qwen2Config(**sizes(size, num_key_value_heads=4, num_hidden_layers=3, max_position_embeddings=24, **rope(100.0, "dynamic", factor=2.0)), is_causal=False)
    save_model(out, randomise(transformers.Qwen2Model(config), 312, std=0.3))
    edit_config(out, is_causal=False)
    new_layout(out, 32, "lasttoken", prompts={"query": INSTRUCT}, max_seq_length=64)
    reference(out, ["", INSTRUCT])


def qwen2_both_ways_windows(out):
    """is_causal false and windows: the window then counts to both sides."""
    size = qwen(out, 64)
    config = transformers.Qwen2Config(
        **sizes(size, hidden_size=24, num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=64, **rope(50.0)), is_causal=False,
        use_sliding_window=True, sliding_window=5, max_window_layers=1,
    )  # fmt: skip
    save_model(out, randomise(transformers.Qwen2Model(config), 313), dtype=torch.bfloat16)
    edit_config(out, is_causal=False)
    new_layout(out, 24, "mean", normalize=False)
    reference(out)


def mistral_e5(out):
    """As e5-mistral: byte fallback, <s> and </s>, a window of 9 in every layer."""
    size = vocab.fallback_bpe(out, 80, "<s> $A </s>", kind="LlamaTokenizer", add_bos_token=True, add_eos_token=True)
    config = transformers.MistralConfig(**sizes(size, max_position_embeddings=80, sliding_window=9, rms_norm_eps=1e-5, **rope(10000.0)))
    save_model(out, randomise(transformers.MistralModel(config), 321, std=0.3), shard="20KB")
    old_rope(out, architectures=["MistralModel"])
    old_layout(out, 32, ["lasttoken"], 76)
    reference(out, ["", INSTRUCT])


def mistral_longrope(out):
    """No window, longrope: other factors beyond 32 tokens, and a factor on cos and sin always; left padding."""
    size = vocab.fallback_bpe(out, 128, "<s> $A </s>", side="left")
    factors = dict(short_factor=[1.0, 1.1, 1.3, 1.6], long_factor=[1.5, 2.5, 3.5, 4.0], factor=4.0, original_max_position_embeddings=32)
    config = transformers.MistralConfig(**sizes(size, num_hidden_layers=3, max_position_embeddings=128, sliding_window=None, hidden_act="gelu", **rope(30.0, "longrope", **factors)))
    save_model(out, randomise(transformers.MistralModel(config), 322), prefix="model.", dtype=torch.float16)
    edit_config(out, architectures=["MistralForCausalLM"])
    new_layout(out, 32, "mean", normalize=False)
    reference(out)


def llama3(out):
    """llama3 scaling; byte BPE with a first token only."""
    size = vocab.gpt_bpe(out, 96, LLAMA3_FIRST, "<|begin_of_text|> $A", LLAMA3, nfc=False)
    scaling = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    config = transformers.LlamaConfig(**sizes(size, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=96, **rope(500.0, "llama3", **scaling)))
    save_model(out, randomise(transformers.LlamaModel(config), 331), prefix="model.")
    old_rope(out, architectures=["LlamaForCausalLM"], pretraining_tp=1)
    old_layout(out, 32, ["lasttoken"], 90)
    reference(out)


def llama_linear(out):
    """linear scaling in the oldest form ({"type": ...}), biases, f16, weighted mean."""
    size = vocab.fallback_bpe(out, 64, "<s> $A")
    config = transformers.LlamaConfig(
        **sizes(size, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=64, **rope(100.0, "linear", factor=2.5)),
        attention_bias=True, mlp_bias=True,
    )  # fmt: skip
    save_model(out, randomise(transformers.LlamaModel(config), 332), dtype=torch.float16)
    old_rope(out, rope_scaling={"type": "linear", "factor": 2.5})
    old_layout(out, 24, ["weightedmean_tokens"], 60, normalize=False)
    reference(out)


def llama_both_ways(out):
    """transformers' own way to say it: model_type llama, is_causal false."""
    size = vocab.gpt_bpe(out, 56, LLAMA3_FIRST, "<|begin_of_text|> $A <|end_of_text|>", LLAMA3, nfc=False)
    config = transformers.LlamaConfig(**sizes(size, max_position_embeddings=56, **rope(500.0)), is_causal=False)
    save_model(out, randomise(transformers.LlamaModel(config), 333), dtype=torch.bfloat16)
    edit_config(out, is_causal=False)
    new_layout(out, 32, "mean")
    reference(out)


def bidirec(out, seed, dtype, layout, length, **config):
    """As NVIDIA's llama-nemoretriever and nv-embedqa: model_type llama_bidirec. Reference: the same Llama with is_causal false."""
    size = vocab.gpt_bpe(out, length, LLAMA3_FIRST, "<|begin_of_text|> $A", LLAMA3, nfc=False, side="left")
    source = fresh(out.with_name("native-parts"))
    vocab.gpt_bpe(source, length, LLAMA3_FIRST, "<|begin_of_text|> $A", LLAMA3, nfc=False, side="left")
    model = randomise(transformers.LlamaModel(transformers.LlamaConfig(**sizes(size, max_position_embeddings=length, **config), is_causal=False)), seed)
    for folder in (source, out):
        save_model(folder, model, dtype=dtype)
        layout(folder)
    edit_config(source, is_causal=False)
    old_rope(out, model_type="llama_bidirec", architectures=["LlamaBidirectionalModel"], pooling="avg", temperature=0.02)
    edit_config(out, drop=["is_causal"])
    reference(out, ["", "query: "], source=source)
    fresh(source).rmdir()


def bidirec_llama3(out):
    scaling = dict(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=48)
    layout = lambda folder: old_layout(folder, 32, ["mean_tokens"], 64, prompts={"query": "query: ", "passage": "passage: "})
    bidirec(out, 341, torch.float32, layout, 64, **rope(500.0, "llama3", **scaling))


def bidirec_bf16(out):
    layout = lambda folder: new_layout(folder, 32, "mean", normalize=False, include_prompt=False)
    bidirec(out, 342, torch.bfloat16, layout, 56, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, **rope(50.0))


def gemma_rope(theta, local):
    return {"full_attention": {"rope_type": "default", "rope_theta": theta}, "sliding_attention": {"rope_type": "default", "rope_theta": local}}


GEMMA_PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}


def gemma_embedding(out):
    """As EmbeddingGemma: both ways, window 8, every third layer global, two thetas, query_pre_attn_scalar that is not the head's size, two Dense modules."""
    size = vocab.fallback_bpe(out, 96, "<bos> $A <eos>", style="gemma", kind="GemmaTokenizer")
    config = transformers.Gemma3TextConfig(
        **sizes(size, num_hidden_layers=4, num_key_value_heads=1, head_dim=16, max_position_embeddings=96, sliding_window=8, sliding_window_pattern=3), query_pre_attn_scalar=24,
        use_bidirectional_attention=True, rope_parameters=gemma_rope(5000.0, 100.0),
    )  # fmt: skip
    save_model(out, randomise(transformers.Gemma3TextModel(config), 351, plus_one=True))
    edit_config(out, ["rope_parameters"], rope_theta=5000.0, rope_local_base_freq=100.0, rope_scaling=None, _sliding_window_pattern=3, architectures=["Gemma3TextModel"])
    new_layout(out, 32, "mean", prompts=GEMMA_PROMPTS, dense=[dense(352, 32, 48), dense(353, 48, 32)])
    reference(out, ["", GEMMA_PROMPTS["query"]])


def gemma_causal(out):
    """Causal Gemma 3 in bf16 under `model.`, window 6, linear scaling of the global layers only."""
    size = vocab.fallback_bpe(out, 72, "<bos> $A", style="gemma", side="left")
    parameters = gemma_rope(1000.0, 50.0)
    parameters["full_attention"] |= {"rope_type": "linear", "factor": 4.0}
    config = transformers.Gemma3TextConfig(
        **sizes(size, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=3, head_dim=8, max_position_embeddings=72, sliding_window=6),
        query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention", "sliding_attention"], rope_parameters=parameters, attention_bias=True,
    )  # fmt: skip
    save_model(out, randomise(transformers.Gemma3TextModel(config), 354, plus_one=True), prefix="model.", dtype=torch.bfloat16, shard="24KB")
    edit_config(out, architectures=["Gemma3ForCausalLM"])
    old_layout(out, 24, ["lasttoken"], 72, normalize=False)
    reference(out)


MAKERS = {
    "qwen3/old-last-embedding": qwen3_embedding,
    "qwen3/new-last-bf16-yarn-windows": qwen3_yarn,
    "qwen2/old-last-f16-prefix": qwen2_causal,
    "qwen2/new-last-bidirectional-dynamic": qwen2_both_ways,
    "qwen2/new-mean-bidirectional-windows": qwen2_both_ways_windows,
    "mistral/old-last-window-sharded": mistral_e5,
    "mistral/new-mean-f16-longrope": mistral_longrope,
    "llama/old-last-llama3": llama3,
    "llama/old-weighted-f16-linear": llama_linear,
    "llama/new-mean-bf16-bidirectional": llama_both_ways,
    "llama_bidirec/old-mean-llama3": bidirec_llama3,
    "llama_bidirec/new-mean-bf16": bidirec_bf16,
    "gemma3_text/new-embedding": gemma_embedding,
    "gemma3_text/old-last-bf16-causal": gemma_causal,
}
