"""Encoders with other positions: ModernBERT, NomicBERT, GTE ("new"), EuroBERT.

Reference: transformers' own classes, also for layouts that only the hub's checkpoints have (the same model, saved under their names).
"""

import torch
import transformers
from safetensors.torch import load_file, save_file as save_torch

import vocab
from common import TEXTS, edit_config, fresh, new_layout, old_layout, old_rope, randomise, reference, save_as_named, save_model, write

NOMIC = {"search_query": "search_query: ", "search_document": "search_document: "}
GPT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
GPT_FIRST = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|pad|>", "mask_token": "<|mask|>"}


def modernbert_old(out):
    """Five layers, every third global, window 8 + 1, two thetas, keys as the first release wrote them, under `model.` with a head that is not used."""
    size = vocab.gpt_bpe(out, 72, GPT_FIRST, "[CLS] $A [SEP]", GPT)
    config = transformers.ModernBertConfig(
        vocab_size=size, hidden_size=32, intermediate_size=40, num_hidden_layers=5, num_attention_heads=4, max_position_embeddings=80, local_attention=8,
        global_attn_every_n_layers=3, pad_token_id=None, bos_token_id=None, eos_token_id=None, cls_token_id=None, sep_token_id=None,
        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 5000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}},
    )  # fmt: skip
    model = randomise(transformers.ModernBertForMaskedLM(config), 201, std=0.3)
    save_model(out, model, drop=["decoder.weight"])
    drop = ["rope_parameters", "layer_types", "dtype"]
    edit_config(out, drop, global_attn_every_n_layers=3, global_rope_theta=5000.0, local_rope_theta=100.0, torch_dtype="float32", position_embedding_type="absolute")
    old_layout(out, 32, ["cls_token"], 70)
    reference(out)


def modernbert_new(out):
    """Biases everywhere, layer types by name, the first layer local, bf16 in shards."""
    size = vocab.gpt_bpe(out, 64, GPT_FIRST, "[CLS] $A [SEP]", GPT, kind="PreTrainedTokenizerFast")
    config = transformers.ModernBertConfig(
        vocab_size=size, hidden_size=24, intermediate_size=36, num_hidden_layers=4, num_attention_heads=3, max_position_embeddings=64, local_attention=12,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"], norm_bias=True, attention_bias=True, mlp_bias=True, norm_eps=1e-3,
        hidden_activation="gelu_pytorch_tanh", pad_token_id=None, bos_token_id=None, eos_token_id=None, cls_token_id=None, sep_token_id=None,
    )  # fmt: skip
    save_model(out, randomise(transformers.ModernBertModel(config), 202, std=0.35), dtype=torch.bfloat16, shard="12KB")
    new_layout(out, 24, "mean", normalize=False, prompts={"query": "query: "})
    reference(out, ["", "query: "])


NOMIC_HUB = {
    "activation_function": "swiglu", "architectures": ["NomicBertModel"], "attn_pdrop": 0.0, "bos_token_id": None, "causal": False, "dense_seq_output": True,
    "embd_pdrop": 0.0, "eos_token_id": None, "fused_bias_fc": True, "fused_dropout_add_ln": True, "initializer_range": 0.02, "layer_norm_epsilon": 1e-12,
    "mlp_fc1_bias": False, "mlp_fc2_bias": False, "model_type": "nomic_bert", "pad_vocab_size_multiple": 64, "parallel_block": False,
    "parallel_block_tied_norm": False, "prenorm": False, "qkv_proj_bias": False, "reorder_and_upcast_attn": False, "resid_pdrop": 0.0, "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "torch_dtype": "float32", "transformers_version": "4.34.0", "type_vocab_size": 2,
    "use_cache": True, "use_flash_attn": True, "use_rms_norm": False, "use_xentropy": True,
}  # fmt: skip


def packed(tensors, names, parts, joined):
    """Replaces the tensors `parts` of each layer by one, stacked in that order."""
    for name in [name for name in names if parts[0] in name]:
        tensors[name.replace(parts[0], joined)] = torch.cat([tensors.pop(name.replace(parts[0], part)) for part in parts])


def renamed(tensors, pairs):
    def new(name):
        for old, hub in pairs:
            name = name.replace(old, hub)
        return name

    return {new(name): tensor.contiguous() for name, tensor in tensors.items()}


def nomic_hub(out, source, dtype, **config):
    tensors = load_file(source / "model.safetensors")
    packed(tensors, list(tensors), ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "attn.Wqkv")
    pairs = [("embeddings.LayerNorm", "emb_ln"), ("layers.", "encoder.layers."), ("self_attn.o_proj", "attn.out_proj"), ("up_proj", "fc11"), ("gate_proj", "fc12")]
    pairs += [("down_proj", "fc2"), ("post_attention_layernorm", "norm1"), ("post_mlp_layernorm", "norm2")]
    save_torch({name: tensor.to(dtype) for name, tensor in renamed(tensors, pairs).items()}, out / "model.safetensors", {"format": "pt"})
    write(out / "config.json", NOMIC_HUB | config)


def through_native(out, make_hub, model, layout, prompts, texts=TEXTS, **known):
    """Saves `model` beside, takes the reference from there, and writes the hub's layout of it into `out`, whose tokenizer exists."""
    source = fresh(out.with_name("native-parts"))
    for path in out.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    save_as_named(source, model)
    layout(source)
    layout(out)
    reference(out, prompts, texts, source=source)
    make_hub(source)
    for path in sorted(source.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    source.rmdir()


def half(model, dtype):
    """Rounds the weights to what the file will hold."""
    return model.to(dtype).to(torch.float32)


def nomic_v15(out):
    """As nomic-embed-text-v1.5: the hub's keys and names."""
    size = vocab.wordpiece(out, 64)
    config = transformers.NomicBertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
    )  # fmt: skip
    keys = dict(vocab_size=size, n_embd=32, n_head=4, n_inner=48, n_layer=2, n_positions=64, max_trained_positions=64)
    layout = lambda folder: old_layout(folder, 32, ["mean_tokens"], 60, normalize=False, prompts=NOMIC)
    model = randomise(transformers.NomicBertModel(config), 211)
    through_native(out, lambda source: nomic_hub(out, source, torch.float32, **keys), model, layout, ["", "search_query: "])


def nomic_v1(out):
    """As v1: dynamic scaling beyond max_trained_positions, here 24, by the text's own length; f16, one token type more than needed."""
    size = vocab.wordpiece(out, 80)
    config = transformers.NomicBertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40, max_position_embeddings=24, layer_norm_eps=1e-6,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0},
    )  # fmt: skip
    keys = dict(vocab_size=size, n_embd=32, n_head=2, n_inner=40, n_layer=3, n_positions=80, max_trained_positions=24, rotary_scaling_factor=2, rotary_emb_base=100)
    layout = lambda folder: old_layout(folder, 32, ["mean_tokens"], 80)
    model = half(randomise(transformers.NomicBertModel(config), 212), torch.float16)
    hub = lambda source: nomic_hub(out, source, torch.float16, **keys, layer_norm_epsilon=1e-6, torch_dtype="float16")
    through_native(out, hub, model, layout, [""], TEXTS + ["z " * 22, "z cat " * 13])


def nomic_native(out, save=save_model):
    """As transformers 5 saves it: its own config.json, the hub's names."""
    size = vocab.wordpiece(out, 48)
    config = transformers.NomicBertConfig(
        vocab_size=size, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40, max_position_embeddings=48, type_vocab_size=1,
        hidden_act="gelu", rope_parameters={"rope_type": "default", "rope_theta": 50.0},
    )  # fmt: skip
    save(out, randomise(transformers.NomicBertModel(config), 213), dtype=torch.bfloat16)
    new_layout(out, 24, "mean", prompts=NOMIC, default="search_query")
    reference(out, ["", "search_query: "])


def nomic_names(out):
    """The same under the class's own names."""
    nomic_native(out, save_as_named)


GTE_HUB = {
    "architectures": ["NewModel"], "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
    "layer_norm_type": "layer_norm", "logn_attention_clip1": False, "logn_attention_scale": False, "model_type": "new", "pack_qkv": True,
    "position_embedding_type": "rope", "torch_dtype": "float32", "transformers_version": "4.41.2", "unpad_inputs": False, "use_memory_efficient_attention": False,
}  # fmt: skip


def gte_hub(out, source, dtype, prefix="", extra=False, **config):
    tensors = load_file(source / "model.safetensors")
    packed(tensors, list(tensors), ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "attention.qkv_proj")
    packed(tensors, list(tensors), ["mlp.up_proj", "mlp.gate_proj"], "mlp.up_gate_proj")
    pairs = [("layers.", "encoder.layer."), ("self_attn.o_proj", "attention.o_proj"), ("post_attention_layernorm", "attn_ln"), ("post_mlp_layernorm", "mlp_ln")]
    tensors = {prefix + name: tensor.to(dtype) for name, tensor in renamed(tensors, pairs).items()}
    if extra:
        tensors |= {"classifier.weight": torch.ones(1, 32, dtype=dtype), "classifier.bias": torch.ones(1, dtype=dtype)}
    save_torch(tensors, out / "model.safetensors", {"format": "pt"})
    write(out / "config.json", GTE_HUB | config)


def gte(size, h, heads, i, layers, types, theta, factor, length, **more):
    """The model, with fixed NTK scaling: theta * factor, and frequencies divided by factor^(2 / head size); Su 2023, https://kexue.fm/archives/9706."""
    rope = {"rope_type": "default", "rope_theta": theta}
    if factor != 1.0:
        rope = {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 * heads / h)}
    config = transformers.GteConfig(
        vocab_size=size, hidden_size=h, num_attention_heads=heads, intermediate_size=i, num_hidden_layers=layers, type_vocab_size=types,
        max_position_embeddings=length, rope_parameters=rope, **more,
    )  # fmt: skip
    keys = dict(vocab_size=size, hidden_size=h, num_attention_heads=heads, intermediate_size=i, num_hidden_layers=layers, type_vocab_size=types, max_position_embeddings=length)
    keys |= dict(rope_theta=theta, rope_scaling=None if factor == 1.0 else {"factor": factor, "type": "ntk"}, layer_norm_eps=config.layer_norm_eps, pad_token_id=config.pad_token_id)
    return transformers.GteModel(config), keys


def gte_large(out):
    """As gte-large-en-v1.5: WordPiece, two token types, NTK factor 2."""
    size = vocab.wordpiece(out, 72)
    model, keys = gte(size, 32, 4, 48, 2, 2, 160.0, 2.0, 72, pad_token_id=0)
    layout = lambda folder: old_layout(folder, 32, ["cls_token"], 64, normalize=False)
    through_native(out, lambda source: gte_hub(out, source, torch.float32, **keys), randomise(model, 241, std=0.3), layout, [""])


def gte_multilingual(out):
    """As gte-multilingual-base: XLM-R's tokenizer, NTK factor 8, f16 under `new.` with a classifier beside."""
    size = vocab.unigram(out, 64, "xlmr", kind="XLMRobertaTokenizer")
    model, keys = gte(size, 32, 2, 40, 3, 1, 20.0, 8.0, 64, pad_token_id=1)
    layout = lambda folder: old_layout(folder, 32, ["cls_token"], 64)
    hub = lambda source: gte_hub(out, source, torch.float16, "new.", True, **keys, architectures=["NewForTokenClassification"], torch_dtype="float16")
    through_native(out, hub, half(randomise(model, 253, std=0.3), torch.float16), layout, [""])


def gte_base(out):
    """As gte-base-en-v1.5 without scaling: no token types at all."""
    size = vocab.wordpiece(out, 50)
    model, keys = gte(size, 24, 3, 32, 3, 0, 500.0, 1.0, 50, pad_token_id=0, layer_norm_eps=1e-5)
    layout = lambda folder: new_layout(folder, 24, "cls", normalize=False)
    through_native(out, lambda source: gte_hub(out, source, torch.float32, **keys), randomise(model, 243, std=0.3), layout, [""])


def gte_native(out):
    """As transformers 5 saves it: its own config.json, the hub's names; the other one has the class's own names."""
    size = vocab.unigram(out, 56, "xlmr", kind="XLMRobertaTokenizer")
    model, _ = gte(size, 32, 4, 40, 2, 1, 20.0, 8.0, 56, pad_token_id=1)
    save_model(out, randomise(model, 244, std=0.3))
    new_layout(out, 32, "cls")
    reference(out)


def gte_native_bf16(out):
    size = vocab.wordpiece(out, 48)
    model, _ = gte(size, 24, 3, 32, 3, 0, 100.0, 1.0, 48, pad_token_id=0)
    save_as_named(out, randomise(model, 246, std=0.3), dtype=torch.bfloat16)
    new_layout(out, 24, "cls", normalize=False)
    reference(out)


def eurobert_old(out):
    """Grouped queries, old keys, under `model.` with the language model's head beside."""
    size = vocab.gpt_bpe(out, 64, ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|mask|>"], "<|begin_of_text|> $A <|end_of_text|>", LLAMA3, nfc=False)
    config = transformers.EuroBertConfig(
        vocab_size=size, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        mask_token_id=size - 1, pad_token_id=None, bos_token_id=None, eos_token_id=None, rope_parameters={"rope_type": "default", "rope_theta": 2500.0},
    )  # fmt: skip
    save_model(out, randomise(transformers.EuroBertForMaskedLM(config), 251))
    old_rope(out, architectures=["EuroBertForMaskedLM"])
    old_layout(out, 32, ["mean_tokens"], 60)
    reference(out)


def eurobert_new(out):
    """Every head its own keys, biases, bf16, heads wider than hidden / heads."""
    size = vocab.gpt_bpe(out, 56, ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|mask|>"], "<|begin_of_text|> $A <|end_of_text|>", LLAMA3, nfc=False)
    config = transformers.EuroBertConfig(
        vocab_size=size, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, head_dim=16, max_position_embeddings=56, attention_bias=True, mlp_bias=True,
        hidden_act="gelu_pytorch_tanh", rms_norm_eps=1e-3, mask_token_id=size - 1, pad_token_id=None, bos_token_id=None, eos_token_id=None, rope_parameters={"rope_type": "default", "rope_theta": 50.0},
    )  # fmt: skip
    save_model(out, randomise(transformers.EuroBertModel(config), 252), dtype=torch.bfloat16)
    new_layout(out, 24, "cls", normalize=False, prompts={"query": "query: "})
    reference(out, ["", "query: "])


MAKERS = {
    "modernbert/old-cls-prefix": modernbert_old,
    "modernbert/new-mean-bf16-sharded-biases": modernbert_new,
    "nomic_bert/hub-v1.5": nomic_v15,
    "nomic_bert/hub-v1-f16-dynamic": nomic_v1,
    "nomic_bert/native-bf16": nomic_native,
    "nomic_bert/native-names-bf16": nomic_names,
    "new/large-old-cls-ntk": gte_large,
    "new/multilingual-f16-prefix-ntk": gte_multilingual,
    "new/base-new-cls-no-types": gte_base,
    "gte/native-ntk": gte_native,
    "gte/native-names-bf16": gte_native_bf16,
    "eurobert/old-mean-prefix-gqa": eurobert_old,
    "eurobert/new-cls-bf16-biases": eurobert_new,
}
