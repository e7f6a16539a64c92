"""BERT, in every form in which sentence-transformers saves its modules."""

import json
import shutil

import numpy as np
import sentence_transformers
import torch
import transformers
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling

from common import fresh

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = ["the", "cat", "sat", "on", "mat", "query", "passage", "hello", "world", "##ing", "##ed", "caf", "\u65e5", "\u672c"]
VOCABULARY = SPECIAL + LETTERS + ["##" + letter for letter in LETTERS] + list("0123456789.,:;!?-'") + WORDS
TEXTS = [
    "the cat sat on the mat.",
    "a",
    "",
    "Hello, World!",
    "sitting hatted abc",
    "caf\u00e9 \u65e5\u672c 42",
    "z " * 60,
    "one two three four five six seven eight nine ten",
    "[MASK] cat [SEP] mat",
    "unknown \u2603 snow",
]


def randomise(module, seed):
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            norm = any(part in name for part in ("LayerNorm.weight", "norm.weight"))
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3 + (0.8 if norm else 0.0))


def bert(out, seed, **config):
    sizes = dict(vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, max_position_embeddings=40)
    model = transformers.BertModel(transformers.BertConfig(**(sizes | config)), add_pooling_layer=False)
    randomise(model, seed)
    model.save_pretrained(out)
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    transformers.BertTokenizer(vocabulary, model_max_length=32).save_pretrained(out)
    return Transformer(str(out))


def reference(out, prompts=("",)):
    model = SentenceTransformer(str(out), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
    model.eval()
    cases, rows = [], []
    for prompt in prompts:
        for text in TEXTS:
            features = model.preprocess([text], prompt=prompt)
            rows.append(model.encode([text], prompt=prompt, batch_size=1, convert_to_numpy=True, show_progress_bar=False)[0])
            ids = features["input_ids"][0].tolist()
            cases.append({"text": text, "prompt": prompt, "ids": ids, "prompt_len": int(features.get("prompt_length", 0))})
    save_file({"embeddings": np.stack(rows).astype(np.float32)}, out / "reference.safetensors")
    packages = {"sentence-transformers": sentence_transformers.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    record = {"packages": packages, "max_tokens": model.max_seq_length, "dim": len(rows[0]), "cases": cases}
    write(out / "reference.json", record)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def old_layout(out, modules, max_seq_length, prompts=None, default=None):
    """What releases before 5.4 saved."""
    entries = [("", "Transformer")] + [(f"{index + 1}_{kind}", kind) for index, kind in enumerate(modules)]
    write(out / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(entries)])
    write(out / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    versions = {"sentence_transformers": "2.2.2", "transformers": "4.30.0", "pytorch": "2.0.1"}
    write(out / "config_sentence_transformers.json", {"__version__": versions, "prompts": prompts or {}, "default_prompt_name": default})


def old_pooling(out, *on, **more):
    names = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    write(out / "config.json", {"word_embedding_dimension": 16} | {f"pooling_mode_{name}": name in on for name in names} | more)


def old_mean(out):
    bert(out, 1)
    old_layout(out, ["Pooling", "Normalize"], 24, {"query": "query: ", "passage": "passage: "}, "passage")
    old_pooling(out / "1_Pooling", "mean_tokens")
    reference(out, ["", "query: "])


def new_cls_dense(out):
    parts = fresh(out.with_name("parts"))
    pooling, dense = Pooling(16, "cls"), Dense(16, 12)
    randomise(dense, 22)
    SentenceTransformer(modules=[bert(parts, 2, hidden_act="gelu_new"), pooling, dense, Normalize()], device="cpu").save_pretrained(str(out), create_model_card=False)
    shutil.rmtree(parts)
    reference(out)


def old_concat(out):
    bert(out, 3, hidden_act="relu", num_attention_heads=2, layer_norm_eps=1e-5)
    old_layout(out, ["Pooling", "LayerNorm", "Dropout"], 40)
    old_pooling(out / "1_Pooling", "cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    norm = LayerNorm(96)
    randomise(norm, 33)
    for module, path in ((norm, "2_LayerNorm"), (Dropout(0.1), "3_Dropout")):
        (out / path).mkdir()
        module.save(str(out / path))
    reference(out)


def f16_gamma_beta(out):
    """A task model converted from TensorFlow long ago: prefix, old norm names, f16, and no tokenizer.json."""
    bert(out, 4)
    tensors = load_file(out / "model.safetensors")
    old = lambda name: "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    tensors = {old(name): tensor.half() for name, tensor in tensors.items()}
    tensors["bert.pooler.dense.bias"] = torch.zeros(16).half()
    save_torch(tensors, out / "model.safetensors", {"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    write(out / "config.json", config | {"architectures": ["BertForMaskedLM"], "dtype": "float16"})
    (out / "tokenizer.json").unlink()
    (out / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    old_layout(out, ["Pooling"], 28, {"instruct": "query: the cat, "})
    old_pooling(out / "1_Pooling", "weightedmean_tokens", include_prompt=False)
    reference(out, ["", "query: the cat, "])


def new_bf16_residual(out):
    parts = fresh(out.with_name("parts"))
    pooling = Pooling(16, ["lasttoken", "mean"], include_prompt=False)
    wide = Dense(32, 8, bias=False, activation_function=torch.nn.Identity(), use_residual=True)
    same = Dense(8, 8, activation_function=torch.nn.GELU(), use_residual=True)
    for seed, module in ((55, wide), (56, same)):
        randomise(module, seed)
    transformer = bert(parts, 5, hidden_act="silu", type_vocab_size=1)
    transformer.model.to(torch.bfloat16)
    model = SentenceTransformer(modules=[transformer, pooling, wide, same], device="cpu", prompts={"query": "query: ", "document": ""}, default_prompt_name="query")
    model.save_pretrained(str(out), create_model_card=False)
    shutil.rmtree(parts)
    reference(out, ["", "query: "])


MAKERS = {
    "bert/old-mean": old_mean,
    "bert/new-cls-dense": new_cls_dense,
    "bert/old-concat": old_concat,
    "bert/f16-gamma-beta": f16_gamma_beta,
    "bert/new-bf16-residual": new_bf16_residual,
}
