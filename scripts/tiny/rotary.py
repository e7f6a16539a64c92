"""Encoders with other positions: ModernBERT, NomicBERT, JinaBERT v2, GTE ("new"), EuroBERT.

Reference: transformers' own classes, also for layouts that only the hub's checkpoints have (the same model, saved under their names). NomicBERT with experts and
JinaBERT v2 have no class there: plain NumPy, below.
"""

import math

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from safetensors.torch import load_file, save_file as save_torch

import vocab
from common import TEXTS, edit_config, fresh, new_layout, numpy_reference, old_layout, old_rope, randomise, reference, save_as_named, save_model, write

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


def draw(seed, dtype, shapes):
    """Tensors of those shapes, by the rules of common.randomise."""
    state = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = state.standard_normal(shape)
        if name.endswith(".weight") and len(shape) == 1:
            noise = np.clip(noise, -2, 2) * 0.2 + 0.8
        else:
            noise = noise * (0.3 if name.endswith("bias") else 0.4)
        tensors[name] = noise.astype(dtype)
    return tensors


def layer_norm(x, tensors, name, eps):
    """Ba, Kiros, Hinton 2016, https://arxiv.org/abs/1607.06450."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * tensors[name + ".weight"] + tensors[name + ".bias"]


def linear(x, tensors, name):
    y = x @ tensors[name + ".weight"].T
    return y + tensors[name + ".bias"] if name + ".bias" in tensors else y


def gelu(x):
    """Hendrycks, Gimpel 2016, https://arxiv.org/abs/1606.08415, with erf."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q, k, v, heads, bias=0.0):
    """Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; q, k, v [tokens, hidden], `bias` [heads, tokens, tokens] on the scaled scores."""
    split = lambda x: x.reshape(len(x), heads, -1).transpose(1, 0, 2)
    q, k, v = split(q), split(k), split(v)
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]) + bias
    return (softmax(scores) @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)


def rotate(x, heads, theta):
    """Su et al. 2021, https://arxiv.org/abs/2104.09864, pairs of the first and the second half of each head."""
    x = x.reshape(len(x), heads, -1)
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None, None] / theta ** (np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1).reshape(len(x), -1)


def nomic_moe(out, seed, dtype, h, heads, i, layers, experts, top, length, layout, theta=10000.0, prompts=("",)):
    """nomic-embed-text-v2-moe: every second layer (1, 3, ...) sends each token to `top` of `experts` plain MLPs.

    Sources: the model's config.json; Nussbaum, Duderstadt 2025, https://arxiv.org/abs/2502.07972; layout of the experts from MegaBlocks,
    https://arxiv.org/abs/2211.15841. Router in f32, softmax over all experts, the top ones' weights as they are (not normalised), one bias after the sum.
    """
    size = vocab.unigram(out, length, "xlmr", kind="XLMRobertaTokenizer")
    shapes = {"embeddings.word_embeddings.weight": (size, h), "embeddings.token_type_embeddings.weight": (1, h), "emb_ln.weight": (h,), "emb_ln.bias": (h,)}
    for n in range(layers):
        at = f"encoder.layers.{n}."
        shapes |= {at + "attn.Wqkv.weight": (3 * h, h), at + "attn.Wqkv.bias": (3 * h,), at + "attn.out_proj.weight": (h, h), at + "attn.out_proj.bias": (h,)}
        for norm in ("norm1", "norm2"):
            shapes |= {at + norm + ".weight": (h,), at + norm + ".bias": (h,)}
        if n % 2 == 1:
            shapes |= {at + "mlp.router.layer.weight": (experts, h), at + "mlp.experts.mlp.w1": (experts * i, h), at + "mlp.experts.mlp.w2": (experts * i, h), at + "mlp.experts.bias": (h,)}
        else:
            shapes |= {at + "mlp.fc1.weight": (i, h), at + "mlp.fc1.bias": (i,), at + "mlp.fc2.weight": (h, i), at + "mlp.fc2.bias": (h,)}
    tensors = draw(seed, dtype, shapes)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    config = NOMIC_HUB | {
        "activation_function": "gelu", "vocab_size": size, "n_embd": h, "n_head": heads, "n_inner": i, "n_layer": layers, "n_positions": length,
        "max_trained_positions": length, "rotary_emb_base": theta, "type_vocab_size": 1, "mlp_fc1_bias": True, "mlp_fc2_bias": True, "qkv_proj_bias": True,
        "layer_norm_epsilon": 1e-5, "pad_token_id": 1, "moe_every_n_layers": 2, "moe_impl": "megablocks", "moe_normalize_expert_weights": False, "moe_resid_pdrop": 0.0,
        "moe_top_k": top, "num_experts": experts, "num_shared_experts": 0, "ffn_div": 1, "expert_choice_router": False, "router_aux_loss_coef": 0.1,
        "tokenizer_class": "XLMRobertaTokenizer", "torch_dtype": str(np.dtype(dtype)),
    }  # fmt: skip
    write(out / "config.json", config)
    layout(out)
    w = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def mlp(x, at):
        if at + "router.layer.weight" not in w:
            return linear(gelu(linear(x, w, at + "fc1")), w, at + "fc2")
        chances = softmax(linear(x, w, at + "router.layer"))
        w1, w2 = (w[at + "experts.mlp." + name].reshape(experts, i, h) for name in ("w1", "w2"))
        y = np.zeros_like(x)
        for token, row in enumerate(chances):
            order = np.argsort(-row)
            assert row[order[top - 1]] - row[order[top]] > 1e-5, "two experts as good: rounding would choose"
            for expert in order[:top]:
                y[token] += row[expert] * (gelu(x[token] @ w1[expert].T) @ w2[expert])
        return y + w[at + "experts.bias"]

    def hidden(ids):
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = layer_norm(x, w, "emb_ln", 1e-5)
        for n in range(layers):
            at = f"encoder.layers.{n}."
            q, k, v = np.split(linear(x, w, at + "attn.Wqkv"), 3, -1)
            y = linear(attention(rotate(q, heads, theta), rotate(k, heads, theta), v, heads), w, at + "attn.out_proj")
            x = layer_norm(x + y, w, at + "norm1", 1e-5)
            x = layer_norm(x + mlp(x, at + "mlp."), w, at + "norm2", 1e-5)
        return x

    return hidden


def nomic_v2(out):
    layout = lambda folder: old_layout(folder, 32, ["mean_tokens"], 50, prompts={"query": "search_query: ", "passage": "search_document: "})
    hidden = nomic_moe(out, 221, np.float32, 32, 4, 20, 4, 8, 2, 64, layout)
    numpy_reference(out, hidden, "mean", 50, prompts=["", "search_query: "])


def nomic_v2_f16(out):
    layout = lambda folder: new_layout(folder, 16, "mean", normalize=False)
    hidden = nomic_moe(out, 222, np.float16, 16, 2, 24, 2, 4, 1, 48, layout, theta=100.0)
    numpy_reference(out, hidden, "mean", 48, normalize=False)


def alibi(heads, tokens):
    """Press, Smith, Lewis 2021, https://arxiv.org/abs/2108.12409, on the distance to either side; [heads, tokens, tokens]."""
    slopes = lambda n: [2.0 ** (-8.0 * (h + 1) / n) for h in range(n)]
    power = 2 ** int(math.log2(heads))
    steps = slopes(power) + slopes(2 * power)[0::2][: heads - power]
    place = np.arange(tokens)
    return -np.array(steps)[:, None, None] * np.abs(place[:, None] - place[None, :])


JINA = {"architectures": ["JinaBertForMaskedLM"], "attention_probs_dropout_prob": 0.0, "attn_implementation": None, "classifier_dropout": None, "emb_pooler": "mean",
        "feed_forward_type": "geglu", "gradient_checkpointing": False, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
        "model_type": "bert", "pad_token_id": 0, "position_embedding_type": "alibi", "transformers_version": "4.26.0", "use_cache": True}  # fmt: skip


def jina_config(out, name, size, h, heads, i, layers, types, eps, length, dtype):
    auto = {"AutoConfig": f"jinaai/{name}--configuration_bert.JinaBertConfig", "AutoModel": f"jinaai/{name}--modeling_bert.JinaBertModel"}
    sizes = {"vocab_size": size, "hidden_size": h, "num_attention_heads": heads, "intermediate_size": i, "num_hidden_layers": layers, "type_vocab_size": types}
    more = {"_name_or_path": f"jinaai/{name}", "auto_map": auto, "layer_norm_eps": eps, "max_position_embeddings": length, "model_max_length": length, "torch_dtype": dtype}
    write(out / "config.json", JINA | sizes | more)


def jina_shapes(size, h, i, layers, types, code):
    shapes = {"embeddings.word_embeddings.weight": (size, h), "embeddings.token_type_embeddings.weight": (types, h)}
    norms, biased = ["embeddings.LayerNorm"], {}
    for n in range(layers):
        at = f"encoder.layer.{n}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            biased[at + name] = (h, h)
        norms.append(at + "attention.output.LayerNorm")
        if code:
            norms += [at + name for name in ("attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1", "layer_norm_2")]
            shapes[at + "mlp.up_gated_layer.weight"], biased[at + "mlp.down_layer"] = (2 * i, h), (h, i)
        else:
            norms.append(at + "mlp.layernorm")
            shapes[at + "mlp.gated_layers.weight"], biased[at + "mlp.wo"] = (2 * i, h), (h, i)
    for name in norms:
        shapes |= {name + ".weight": (h,), name + ".bias": (h,)}
    for name, shape in biased.items():
        shapes |= {name + ".weight": shape, name + ".bias": shape[:1]}
    return shapes


def jina(w, heads, i, layers, eps, code):
    """JinaBERT v2. Guenther et al. 2023, https://arxiv.org/abs/2310.19923 (ALiBi both ways, GLU with GELU, post-norm); GLU from Shazeer 2020,
    https://arxiv.org/abs/2002.05202. The code model (`code`) has norms on whole queries and keys, two residual norms after attention, and its gate in the second half.
    """

    def hidden(ids):
        x = layer_norm(w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0], w, "embeddings.LayerNorm", eps)
        bias = alibi(heads, len(ids))
        for n in range(layers):
            at = f"encoder.layer.{n}."
            q, k, v = (linear(x, w, at + "attention.self." + name) for name in ("query", "key", "value"))
            if code:
                q, k = (layer_norm(y, w, at + "attention.self.layer_norm_" + name, eps) for y, name in ((q, "q"), (k, "k")))
            y = linear(attention(q, k, v, heads, bias), w, at + "attention.output.dense")
            y = layer_norm(x + y, w, at + "attention.output.LayerNorm", eps)
            if code:
                x = layer_norm(x + y, w, at + "layer_norm_1", eps)
                both = linear(x, w, at + "mlp.up_gated_layer")
                x = layer_norm(x + linear(both[:, :i] * gelu(both[:, i:]), w, at + "mlp.down_layer"), w, at + "layer_norm_2", eps)
            else:
                both = linear(y, w, at + "mlp.gated_layers")
                x = layer_norm(y + linear(gelu(both[:, :i]) * both[:, i:], w, at + "mlp.wo"), w, at + "mlp.layernorm", eps)
        return x

    return hidden


def jina_v2(out, seed, dtype, h, heads, i, layers, types, eps, length, prefix=""):
    size = vocab.wordpiece(out, length)
    tensors = draw(seed, dtype, jina_shapes(size, h, i, layers, types, False))
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, out / "model.safetensors", {"format": "pt"})
    jina_config(out, "jina-bert-implementation", size, h, heads, i, layers, types, eps, length, str(np.dtype(dtype)))
    return jina({name: tensor.astype(np.float64) for name, tensor in tensors.items()}, heads, i, layers, eps, False)


def jina_six_heads(out):
    """Six heads: slopes of a number that is no power of two."""
    hidden = jina_v2(out, 231, np.float32, 36, 6, 40, 2, 2, 1e-12, 90)
    old_layout(out, 36, ["mean_tokens"], 80, normalize=False)
    numpy_reference(out, hidden, "mean", 80, normalize=False)


def jina_four_heads(out):
    hidden = jina_v2(out, 232, np.float16, 24, 4, 32, 3, 1, 1e-6, 64, prefix="bert.")
    new_layout(out, 24, "mean")
    numpy_reference(out, hidden, "mean", 64)


def jina_code(out, seed, dtype, h, heads, i, layers, layout, length):
    size = vocab.roberta_bpe(out, length)
    tensors = draw(seed, dtype, jina_shapes(size, h, i, layers, 2, True))
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    jina_config(out, "jina-bert-v2-qk-post-norm", size, h, heads, i, layers, 2, 1e-12, 128, str(np.dtype(dtype)))
    layout(out)
    hidden = jina({name: tensor.astype(np.float64) for name, tensor in tensors.items()}, heads, i, layers, 1e-12, True)
    numpy_reference(out, hidden, "mean", length)


def jina_code_f32(out):
    jina_code(out, 233, np.float32, 32, 4, 40, 2, lambda folder: old_layout(folder, 32, ["mean_tokens"], 70), 70)


def jina_code_f16(out):
    jina_code(out, 234, np.float16, 36, 3, 24, 3, lambda folder: new_layout(folder, 36, "mean"), 64)


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
    through_native(out, lambda source: gte_hub(out, source, torch.float32, **keys), randomise(model, 241), layout, [""])


def gte_multilingual(out):
    """As gte-multilingual-base: XLM-R's tokenizer, NTK factor 8, f16 under `new.` with a classifier beside."""
    size = vocab.unigram(out, 64, "xlmr", kind="XLMRobertaTokenizer")
    model, keys = gte(size, 32, 2, 40, 3, 1, 20.0, 8.0, 64, pad_token_id=1)
    layout = lambda folder: old_layout(folder, 32, ["cls_token"], 64)
    hub = lambda source: gte_hub(out, source, torch.float16, "new.", True, **keys, architectures=["NewForTokenClassification"], torch_dtype="float16")
    through_native(out, hub, half(randomise(model, 242), torch.float16), layout, [""])


def gte_base(out):
    """As gte-base-en-v1.5 without scaling: no token types at all."""
    size = vocab.wordpiece(out, 50)
    model, keys = gte(size, 24, 3, 32, 3, 0, 500.0, 1.0, 50, pad_token_id=0, layer_norm_eps=1e-5)
    layout = lambda folder: new_layout(folder, 24, "cls", normalize=False)
    through_native(out, lambda source: gte_hub(out, source, torch.float32, **keys), randomise(model, 243), layout, [""])


def gte_native(out):
    """As transformers 5 saves it: its own config.json, the hub's names; the other one has the class's own names."""
    size = vocab.unigram(out, 56, "xlmr", kind="XLMRobertaTokenizer")
    model, _ = gte(size, 32, 4, 40, 2, 1, 20.0, 8.0, 56, pad_token_id=1)
    save_model(out, randomise(model, 244))
    new_layout(out, 32, "cls")
    reference(out)


def gte_native_bf16(out):
    size = vocab.wordpiece(out, 48)
    model, _ = gte(size, 24, 3, 32, 3, 0, 100.0, 1.0, 48, pad_token_id=0)
    save_as_named(out, randomise(model, 245), dtype=torch.bfloat16)
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
    "nomic_bert/hub-v2-moe": nomic_v2,
    "nomic_bert/hub-v2-moe-f16-top1": nomic_v2_f16,
    "jina_bert/old-mean-six-heads": jina_six_heads,
    "jina_bert/new-mean-f16-prefix": jina_four_heads,
    "jina_bert/code-old-mean": jina_code_f32,
    "jina_bert/code-new-f16": jina_code_f16,
    "new/large-old-cls-ntk": gte_large,
    "new/multilingual-f16-prefix-ntk": gte_multilingual,
    "new/base-new-cls-no-types": gte_base,
    "gte/native-ntk": gte_native,
    "gte/native-names-bf16": gte_native_bf16,
    "eurobert/old-mean-prefix-gqa": eurobert_old,
    "eurobert/new-cls-bf16-biases": eurobert_new,
}
