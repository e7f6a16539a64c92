"""What every group of families shares: texts, random weights, layouts of the files around them, and the reference itself."""

import json
import shutil

import numpy as np
import sentence_transformers
import tokenizers
import torch
import transformers
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

TEXTS = [
    "the cat sat on the mat.",
    "a",
    "",
    "Hello, World!",
    "caf\u00e9 \u65e5\u672c 42 \u2603 na\u00efve \ufb01 \uff21\uff22",
    "z " * 60,
    "one two three four five six seven eight nine ten, and the other cat that sat on a hat; " * 3,
    "<pad> the [PAD] cat <s> [MASK] sat <mask> on </s> a [SEP] mat <|endoftext|> <unk> end",
    "  two  spaces\n\nand lines\t",
    "\U0001f600 \u0627\u0644\u0642\u0637 k\u00f6ln stra\u00dfe",
]


def fresh(out):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return out


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def is_norm(name):
    return name.endswith(".weight") and any(part in name.lower() for part in ("norm", "_ln", "ln_"))


def randomise(module, seed, std=0.4, bias_std=0.3, plus_one=False, scales=None):
    """Weights of that std (never below 0.2), biases away from 0, norm weights in +-(0.5 .. 1.1) around 0.8 (`plus_one`: stored as w - 1).

    `scales` maps a part of a name to another std.
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape, generator=draw)
            if is_norm(name):
                parameter.copy_(noise.clamp(-2, 2) * 0.2 + (-0.2 if plus_one else 0.8))
            elif name.endswith("bias"):
                parameter.copy_(noise * bias_std)
            else:
                own = [value for part, value in (scales or {}).items() if part in name]
                parameter.copy_(noise * (own[0] if own else std))
    return module


def save_model(out, model, prefix="", dtype=None, shard=None, drop=()):
    """Saves `model`, its tensors named with `prefix`, in `dtype`, in files of at most `shard` bytes."""
    if dtype is not None:
        model = model.to(dtype)
    model.save_pretrained(out, **({} if shard is None else {"max_shard_size": shard}))
    (out / "generation_config.json").unlink(missing_ok=True)
    if prefix or drop:
        rename(out, lambda name: None if name in drop else prefix + name)


def save_as_named(out, model, dtype=torch.float32):
    """Saves the tensors under the names of the class: save_pretrained gives those of NomicBERT, GTE and Jina v3 the hub's names back."""
    from safetensors.torch import save_file as save_torch

    model.config.architectures, model.config.dtype = [type(model).__name__], dtype
    model.config.save_pretrained(out)
    save_torch({name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}, out / "model.safetensors", {"format": "pt"})


def rename(out, new_name):
    """Renames tensors in place; the shards stay what they are. `None` drops a tensor."""
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    for path in sorted(out.glob("*.safetensors")):
        if path.name == "reference.safetensors":
            continue
        tensors = {new_name(name): tensor for name, tensor in load_torch(path).items()}
        tensors.pop(None, None)
        save_torch(tensors, path, {"format": "pt"})
    index = out / "model.safetensors.index.json"
    if index.exists():
        record = json.loads(index.read_text())
        record["weight_map"] = {new_name(name): file for name, file in record["weight_map"].items() if new_name(name) is not None}
        write(index, record)


def edit_config(out, drop=(), **values):
    config = json.loads((out / "config.json").read_text())
    for name in drop:
        config.pop(name, None)
    write(out / "config.json", config | values)
    return config


def old_rope(out, **more):
    """Config as releases before 5 wrote it: rope_theta and rope_scaling beside each other, torch_dtype."""
    config = edit_config(out)
    rope = dict(config.pop("rope_parameters", None) or {})
    rope.pop("partial_rotary_factor", None)
    theta, kind = rope.pop("rope_theta", None), rope.get("rope_type", "default")
    if theta is not None:
        config["rope_theta"] = theta
    config["rope_scaling"] = None if kind == "default" else rope
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.51.3"
    write(out / "config.json", config | more)


def old_layout(out, dim, pooling, max_seq_length, normalize=True, prompts=None, default=None, dense=(), transformer_path="", include_prompt=True):
    """What sentence-transformers before 5.4 saved. `dense`: pairs of (module, path is numbered)."""
    entries = [(transformer_path, "Transformer"), ("1_Pooling", "Pooling")]
    for module in dense:
        entries.append((f"{len(entries)}_Dense", "Dense"))
        save_dense(out / entries[-1][0], module)
    if normalize:
        entries.append((f"{len(entries)}_Normalize", "Normalize"))
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(entries)]
    write(out / "modules.json", modules)
    write(out / transformer_path / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    versions = {"sentence_transformers": "2.7.0", "transformers": "4.41.2", "pytorch": "2.3.0"}
    write(out / "config_sentence_transformers.json", {"__version__": versions, "prompts": prompts or {}, "default_prompt_name": default, "similarity_fn_name": "cosine"})
    names = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    assert set(pooling) <= set(names)
    flags = {f"pooling_mode_{name}": name in pooling for name in names}
    write(out / "1_Pooling/config.json", {"word_embedding_dimension": dim} | flags | {"include_prompt": include_prompt})


def new_layout(out, dim, pooling, normalize=True, prompts=None, default=None, dense=(), transformer_path="", include_prompt=True, max_seq_length=None):
    """What sentence-transformers from 5.4 on saves; the length is the tokenizer's unless given."""
    base = "sentence_transformers.base.modules"
    entries = [(transformer_path, f"{base}.transformer.Transformer"), ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling")]
    for module in dense:
        entries.append((f"{len(entries)}_Dense", f"{base}.dense.Dense"))
        save_dense(out / entries[-1][0], module)
    if normalize:
        entries.append((f"{len(entries)}_Normalize", f"{base}.normalize.Normalize"))
        write(out / entries[-1][0] / "config.json", {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"})
    write(out / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(entries)])
    text = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    bert = {"transformer_task": "feature-extraction", "modality_config": text, "module_output_name": "token_embeddings"}
    write(out / transformer_path / "sentence_bert_config.json", bert | ({} if max_seq_length is None else {"max_seq_length": max_seq_length}))
    versions = {"sentence_transformers": sentence_transformers.__version__, "transformers": transformers.__version__, "pytorch": torch.__version__.split("+")[0]}
    config = {"__version__": versions, "default_prompt_name": default, "model_type": "SentenceTransformer", "prompts": prompts or {}, "similarity_fn_name": "cosine"}
    write(out / "config_sentence_transformers.json", config)
    write(out / "1_Pooling/config.json", {"embedding_dimension": dim, "pooling_mode": pooling, "include_prompt": include_prompt})


def save_dense(out, module):
    out.mkdir(parents=True, exist_ok=True)
    module.save(str(out))


def raw_ids(folder, text, max_tokens):
    """What the `tokenizers` library alone makes of tokenizer.json: the ids a server without transformers has."""
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.no_padding()
    raw.enable_truncation(max_tokens)
    return raw.encode(text).ids


def reference(out, prompts=("",), texts=TEXTS, source=None, tokenizer_folder=None):
    """Vectors and ids of every prompt and text, one text at a time, from the folder itself (or `source`, the same model as transformers reads it)."""
    max_tokens, cases, rows = computed(source or out, tokenizer_folder or out, prompts, texts)
    record(out, "sentence-transformers", max_tokens, cases, rows)


def computed(source, tokenizer_folder, prompts, texts=TEXTS):
    args = {"dtype": torch.float32, "attn_implementation": "eager"}
    model = SentenceTransformer(str(source), device="cpu", model_kwargs=args, local_files_only=True)
    model.eval()
    cases, rows = [], []
    for prompt in prompts:
        for text in texts:
            features = model.preprocess([text], prompt=prompt)
            ids = features["input_ids"][0].tolist()
            if not ids:
                continue
            fresh_rope(model)
            row = model.encode([text], prompt=prompt, batch_size=1, convert_to_numpy=True, show_progress_bar=False)[0]
            if not row.any():
                continue  # Nothing is left to pool: the prompt was all, and is not pooled.
            rows.append(row)
            alone = raw_ids(tokenizer_folder, prompt + text, model.max_seq_length)
            assert ids == alone, f"{source}: {prompt + text!r}: transformers {ids}, tokenizer.json alone {alone}"
            cases.append({"text": text, "prompt": prompt, "ids": ids, "prompt_len": int(features.get("prompt_length", 0))})
    return model.max_seq_length, cases, rows


def fresh_rope(model):
    """Dynamic scaling remembers the longest text it saw; each text here starts from what the model starts with."""
    for module in model.modules():
        for name in [name for name, _ in module.named_buffers(recurse=False) if name.endswith("original_inv_freq")]:
            setattr(module, name.replace("original_", ""), getattr(module, name).clone())
            setattr(module, name.replace("original_inv_freq", "max_seq_len_cached"), module.original_max_seq_len)
            module.attention_scaling = getattr(module, "attention_scaling", 1.0)


def numpy_reference(out, hidden, pooling, max_tokens, normalize=True, prompts=("",), texts=TEXTS):
    """The same for a model that transformers lacks: `hidden(ids)` gives [tokens, hidden] in f64, the rest is done here."""
    raw = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    special = {i for i, token in raw.get_added_tokens_decoder().items() if token.special}
    cases, rows = [], []
    for prompt in prompts:
        start = raw_ids(out, prompt, max_tokens) if prompt else []
        for text in texts:
            ids = raw_ids(out, prompt + text, max_tokens)
            tokens = hidden(ids)
            vector = {"cls": tokens[0], "mean": tokens.mean(0), "lasttoken": tokens[-1]}[pooling]
            rows.append(vector / np.linalg.norm(vector) if normalize else vector)
            cases.append({"text": text, "prompt": prompt, "ids": ids, "prompt_len": len(start) - (bool(start) and start[-1] in special)})
    record(out, "numpy", max_tokens, cases, rows)


def record(out, kind, max_tokens, cases, rows):
    rows = np.stack(rows).astype(np.float32)
    assert np.isfinite(rows).all(), out
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    key = lambda case: (case["ids"], case.get("adapter"))
    pairs = [float(unit[i] @ unit[j]) for i in range(len(cases)) for j in range(i) if key(cases[i]) != key(cases[j])]
    save_file({"embeddings": rows}, out / "reference.safetensors")
    packages = {"sentence-transformers": sentence_transformers.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    if kind == "numpy":
        packages = {"numpy": np.__version__, "tokenizers": tokenizers.__version__}
    write(out / "reference.json", {"reference": kind, "packages": packages, "max_tokens": max_tokens, "dim": rows.shape[1], "cases": cases})
    longest = max(len(case["ids"]) for case in cases)
    print(f"{out}: {len(cases)} cases, longest {longest}, components up to {np.abs(rows).max():.2f}, cosines of pairs {np.median(pairs):.3f} (median) to {max(pairs):.4f}", flush=True)


def close(out):
    """Leaves only what belongs to a checkpoint, readable by all, and not too much of it."""
    for name in ("README.md", "special_tokens_map.json"):
        (out / name).unlink(missing_ok=True)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert size < 260_000, f"{out}: {size} bytes"
    print(f"{out}: {size} bytes", flush=True)
