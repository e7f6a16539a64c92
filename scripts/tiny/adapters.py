"""Jina embeddings v3: XLM-RoBERTa with RoPE, and a low-rank adapter per task on every Linear and Embedding.

Reference: transformers' JinaEmbeddingsV3Model, for the hub's layout with each task's deltas added to its weights
(Hu et al. 2021, https://arxiv.org/abs/2106.09685; Sturua et al. 2024, https://arxiv.org/abs/2409.10173).
"""

import torch
import transformers
from safetensors.torch import load_file, save_file

import vocab
from common import computed, fresh, new_layout, old_layout, randomise, record, reference, save_as_named, save_model, write
from rotary import packed, renamed

TASKS = ["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"]
PROMPTS = {"retrieval.query": "Represent the query for retrieving evidence documents: ", "retrieval.passage": "Represent the document for retrieval: ",
           "separation": "", "classification": "", "text-matching": ""}  # fmt: skip
HUB = {
    "_name_or_path": "jinaai/xlm-roberta-flash-implementation", "architectures": ["XLMRobertaModel"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
    "auto_map": {"AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig",
                 "AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
    "classifier_dropout": None, "emb_pooler": "mean", "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
    "load_trained_adapters": True, "lora_dropout_p": 0.0, "lora_main_params_trainable": False, "model_type": "xlm-roberta", "output_past": True, "pad_token_id": 1,
    "position_embedding_type": "rotary", "transformers_version": "4.30.2", "truncate_dim": None, "type_vocab_size": 1, "use_cache": True, "use_flash_attn": True,
    "use_reentrant": False,
}  # fmt: skip


def config_of(size, length, theta, **more):
    rope = {"rope_type": "default", "rope_theta": theta}
    sizes = dict(vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, max_position_embeddings=length, type_vocab_size=1, rope_parameters=rope)
    return transformers.JinaEmbeddingsV3Config(**(sizes | more))


def hub_names(tensors):
    """The native tensors under the hub's names."""
    tensors = dict(tensors)
    packed(tensors, list(tensors), ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "mixer.Wqkv")
    pairs = [("embeddings.LayerNorm", "emb_ln"), ("layers.", "roberta.encoder.layers."), ("self_attn.o_proj", "mixer.out_proj"), ("post_attention_layernorm", "norm1")]
    pairs += [("post_mlp_layernorm", "norm2"), ("pooler.", "roberta.pooler.")]
    return {("roberta." + name if name.startswith("emb") else name): tensor for name, tensor in renamed(tensors, pairs).items()}


def native_names(tensors):
    """And back, the packed projection cut in three."""
    pairs = [("roberta.encoder.layers.", "layers."), ("roberta.pooler.", "pooler."), ("emb_ln", "embeddings.LayerNorm"), ("mixer.out_proj", "self_attn.o_proj"), ("norm1", "post_attention_layernorm")]
    native = {}
    for name, tensor in renamed(tensors, pairs + [("norm2", "post_mlp_layernorm")]).items():
        if "mixer.Wqkv" not in name:
            native[name] = tensor
            continue
        for part, third in zip("qkv", tensor.chunk(3)):
            native[name.replace("mixer.Wqkv", f"self_attn.{part}_proj")] = third.contiguous()
    return native


def with_adapters(base, seed, tasks, rank, dtype):
    """The file: each matrix as `.parametrizations.weight.original` with lora_A and lora_B of all tasks beside it."""
    draw = torch.Generator().manual_seed(seed)
    stored = {}
    for name, tensor in base.items():
        if not name.endswith(".weight") or tensor.dim() != 2:
            stored[name] = tensor.to(dtype)
            continue
        at, (rows, columns) = name.removesuffix("weight") + "parametrizations.weight.", tensor.shape
        a, b = (rows, rank), (rank, columns)
        if "embeddings" not in name:
            a, b = (rank, columns), (rows, rank)
        stored[at + "original"] = tensor.to(dtype)
        stored[at + "0.lora_A"] = (torch.randn(len(tasks), *a, generator=draw) * 0.5).to(dtype)
        stored[at + "0.lora_B"] = (torch.randn(len(tasks), *b, generator=draw) * 0.5).to(dtype)
    return stored


def merged(stored, task, scale):
    """The weights of one task (its number, or None), in f32, under plain names."""
    plain = {name: tensor.float() for name, tensor in stored.items() if "parametrizations" not in name}
    for name, tensor in stored.items():
        if not name.endswith(".original"):
            continue
        weight = tensor.float()
        if task is not None:
            a, b = (stored[name.replace("original", "0.lora_" + part)][task].float() for part in "AB")
            weight = weight + scale * (a @ b if "embeddings" in name else b @ a)
        plain[name.replace(".parametrizations.weight.original", ".weight")] = weight
    return plain


def hub(out, seed, tasks, prompts, rank, alpha, dtype, length, layout, theta, **config):
    size = vocab.unigram(out, length, "xlmr", kind="XLMRobertaTokenizer")
    native = config_of(size, length, theta, **config)
    model = randomise(transformers.JinaEmbeddingsV3Model(native), seed)
    stored = with_adapters(hub_names(model.state_dict()), seed + 1, tasks, rank, dtype)
    save_file(stored, out / "model.safetensors", {"format": "pt"})
    keys = {name: getattr(native, name) for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")}
    keys |= {"lora_adaptations": tasks, "lora_alpha": alpha, "lora_rank": rank, "rotary_emb_base": theta, "max_position_embeddings": length + 2, "task_instructions": prompts}
    write(out / "config.json", HUB | keys | {"matryoshka_dimensions": [8, 16, native.hidden_size], "torch_dtype": str(dtype).removeprefix("torch.")})
    source = out.with_name("native-parts")
    cases, rows = [], []
    for task in [None, *range(len(tasks))]:
        fresh(source)
        vocab.unigram(source, length, "xlmr", kind="XLMRobertaTokenizer")
        save_as_named(source, model)
        weights = {name.removeprefix("roberta."): tensor for name, tensor in native_names(merged(stored, task, alpha / rank)).items()}
        expected = load_file(source / "model.safetensors").keys()
        assert weights.keys() == expected, weights.keys() ^ expected
        save_file(weights, source / "model.safetensors", {"format": "pt"})
        layout(source)
        name = None if task is None else tasks[task]
        for prompt in dict.fromkeys(["", prompts.get(name, "")]):
            max_tokens, some, vectors = computed(source, source, [prompt])
            cases += [{"adapter": name} | case for case in some]
            rows += vectors
    fresh(source).rmdir()
    layout(out)
    custom(out)
    record(out, "sentence-transformers", max_tokens, cases, rows)


def custom(out):
    """modules.json as the hub has it: the transformer module is the repository's own class, with `task` passed on."""
    path = out / "modules.json"
    text = path.read_text().replace('"type": "sentence_transformers.models.Transformer"', '"type": "custom_st.Transformer",\n  "kwargs": [\n   "task"\n  ]')
    path.write_text(text)


def v3(out):
    """As jina-embeddings-v3: five tasks, rank 4, bf16, prompts by task."""
    layout = lambda folder: old_layout(folder, 32, ["mean_tokens"], 64, prompts=PROMPTS)
    hub(out, 601, TASKS, PROMPTS, 4, 1, torch.bfloat16, 64, layout, 20000.0)


def v3_two_tasks(out):
    """Two tasks, rank 2 with alpha 1.5, f32, no prompts. A larger alpha makes scores so large that the softmax blows up the last bits."""
    layout = lambda folder: old_layout(folder, 24, ["mean_tokens"], 48, normalize=False)
    hub(out, 611, ["retrieval.query", "separation"], {}, 2, 1.5, torch.float32, 48, layout, 100.0, hidden_size=24, num_attention_heads=3, num_hidden_layers=3)


def native(out):
    """transformers' own config.json, no adapters, names of the class."""
    size = vocab.unigram(out, 56, "xlmr", kind="XLMRobertaTokenizer")
    save_as_named(out, randomise(transformers.JinaEmbeddingsV3Model(config_of(size, 56, 50.0)), 621), dtype=torch.float16)
    new_layout(out, 32, "mean", prompts={"query": "query: "})
    reference(out, ["", "query: "])


def native_cls(out):
    """The same with the names that save_pretrained gives: the hub's, without prefix and adapters."""
    size = vocab.unigram(out, 40, "xlmr", kind="XLMRobertaTokenizer")
    model = transformers.JinaEmbeddingsV3Model(config_of(size, 40, 20000.0, hidden_size=24, num_attention_heads=3, num_hidden_layers=3, hidden_act="gelu_new", layer_norm_eps=1e-3))
    save_model(out, randomise(model, 622), shard="20KB")
    new_layout(out, 24, "cls", normalize=False)
    reference(out)


MAKERS = {
    "jina_embeddings_v3/hub-bf16-five-tasks": v3,
    "jina_embeddings_v3/hub-two-tasks": v3_two_tasks,
    "jina_embeddings_v3/native-names-mean-f16": native,
    "jina_embeddings_v3/native-cls-sharded": native_cls,
}
