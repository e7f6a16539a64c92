"""Families that transformers has no class for, in plain NumPy and f64: NomicBERT with experts, JinaBERT v2 and its code variant.

Written from their config.json and the papers cited at each function; attention, RoPE and norms are written out here and used by both.
"""

import math

import numpy as np
from safetensors.numpy import save_file

import vocab
from common import new_layout, numpy_reference, old_layout, write
from rotary import NOMIC_HUB


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


MAKERS = {
    "nomic_bert/hub-v2-moe": nomic_v2,
    "nomic_bert/hub-v2-moe-f16-top1": nomic_v2_f16,
    "jina_bert/old-mean-six-heads": jina_six_heads,
    "jina_bert/new-mean-f16-prefix": jina_four_heads,
    "jina_bert/code-old-mean": jina_code_f32,
    "jina_bert/code-new-f16": jina_code_f16,
}
