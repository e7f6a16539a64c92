"""Writes the small GGUF files of tests/it/gguf and the vectors that the reference gives for the same weights.

    python scripts/tiny/one_file.py tests/it/gguf [PART OF A NAME ...]

Made from checkpoints of tests/it/tiny with the `gguf` package, whose names of keys and tensors are llama.cpp's own. The reference is sentence-transformers
in f32 with every weight replaced by what the file holds of it (quantised, then dequantised by that package). Needs, beside what scripts/tiny needs, gguf.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from common import TEXTS, randomise, write

TINY = Path(__file__).resolve().parents[2] / "tests/it/tiny"
KINDS = gguf.TokenType


def held(array, kind):
    """The bytes that a file holds of a tensor, their kind, and the numbers they stand for. Rows that are not whole blocks are f16, vectors f32."""
    array = np.ascontiguousarray(array, dtype=np.float32)
    if array.ndim == 1:
        kind = Q.F32
    elif array.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = Q.F16
    data = gguf.quants.quantize(array, kind)
    return data, kind, np.ascontiguousarray(gguf.quants.dequantize(data, kind), dtype=np.float32).reshape(array.shape)


def neighbours(array, heads):
    """Rows of a query or key map so that rotated pairs are neighbours, as Llama's files have them; and the way back."""
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def halves(array, heads):
    return array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def tensors(writer, model, arch, kind, prepare):
    """Writes the weights of `model` and puts what was written back into it. `prepare(name, array)` gives the array to write and the way back."""
    config = model.config
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("pooler."):
                continue
            new = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert new, name
            there, back = prepare(name, parameter.numpy())
            data, own, numbers = held(there, kind)
            writer.add_tensor(new, data, raw_dtype=own)
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(back(numbers))).reshape(parameter.shape))


def same(name, array):
    return array, lambda numbers: numbers


def sizes(writer, config, context, rms):
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if rms:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        writer.add_key_length(head)
        writer.add_value_length(head)
    else:
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_causal_attention(False)


def vocabulary(tokenizer, size, first=None):
    """Tokens by id, and what each is. `first(token, kind)` is the token as the file has it."""
    texts = {id: token for token, id in tokenizer["model"]["vocab"].items()} if isinstance(tokenizer["model"]["vocab"], dict) else None
    texts = texts or {id: token for id, (token, _) in enumerate(tokenizer["model"]["vocab"])}
    kinds = {id: KINDS.BYTE if text.startswith("<0x") else KINDS.NORMAL for id, text in texts.items()}
    for token in tokenizer["added_tokens"]:
        texts[token["id"]] = token["content"]
        kinds[token["id"]] = KINDS.CONTROL if token["special"] else KINDS.USER_DEFINED
    unknown = tokenizer["model"].get("unk_token")
    for id, text in texts.items():
        if text == unknown and tokenizer["model"]["type"] == "BPE":
            kinds[id] = KINDS.UNKNOWN
    for id in range(size):
        texts.setdefault(id, f"[PAD{id}]")
        kinds.setdefault(id, KINDS.UNUSED)
    tokens = [texts[id] for id in range(size)]
    return ([first(token, kinds[id]) for id, token in enumerate(tokens)] if first else tokens), [kinds[id] for id in range(size)]


def word_piece(writer, tokenizer, size):
    def phantom(token, kind):
        if kind == KINDS.CONTROL or (token.startswith("[") and token.endswith("]")):
            return token
        return token[2:] if token.startswith("##") else "\u2581" + token

    tokens, kinds = vocabulary(tokenizer, size, phantom)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokens.index("[CLS]"))
    writer.add_sep_token_id(tokens.index("[SEP]"))
    writer.add_unk_token_id(tokens.index("[UNK]"))


def byte_bpe(writer, tokenizer, size, pre, begin=None, end=None):
    tokens, kinds = vocabulary(tokenizer, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    ends(writer, tokens, begin, end)


def sentence_piece_bpe(writer, tokenizer, size, begin, end, prefix):
    tokens, kinds = vocabulary(tokenizer, size)
    scores = [0.0] * size
    for rank, (left, right) in enumerate(tokenizer["model"]["merges"]):
        scores[tokens.index(left + right)] = -1.0 - rank
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([score or -1e6 for score in scores])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_add_space_prefix(prefix)
    ends(writer, tokens, begin, end)


def unigram(writer, tokenizer, size):
    import base64

    tokens, kinds = vocabulary(tokenizer, size)
    writer.add_tokenizer_model("t5")
    writer.add_token_list(tokens)
    writer.add_token_scores([score for _, score in tokenizer["model"]["vocab"]] + [0.0] * (size - len(tokenizer["model"]["vocab"])))
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(base64.b64decode(tokenizer["normalizer"]["precompiled_charsmap"]))
    writer.add_unk_token_id(tokenizer["model"]["unk_id"])
    writer.add_mask_token_id(tokens.index("<mask>"))
    ends(writer, tokens, "<s>", "</s>")


def ends(writer, tokens, begin, end):
    writer.add_add_bos_token(begin is not None)
    writer.add_add_eos_token(end is not None)
    if begin:
        writer.add_bos_token_id(tokens.index(begin))
    if end:
        writer.add_eos_token_id(tokens.index(end))


class Source:
    """A copy of a committed checkpoint, opened by sentence-transformers."""

    def __init__(self, name, tokenizer=lambda value: None, config=None, modules=None):
        self.folder = Path(tempfile.mkdtemp()) / "model"
        shutil.copytree(TINY / name, self.folder)
        path = next(self.folder.rglob("tokenizer.json"))
        self.tokenizer = json.loads(path.read_text())
        tokenizer(self.tokenizer)
        write(path, self.tokenizer)
        if config:
            config(self.folder)
        args = {"dtype": torch.float32, "attn_implementation": "eager"}
        self.model = SentenceTransformer(str(self.folder), device="cpu", model_kwargs=args, local_files_only=True).eval()
        self.auto = self.model[0].auto_model
        self.context = self.model.max_seq_length

    def finish(self, out, writer, pooling="", without=None):
        """Closes the file and asks the reference, but not for texts that hold `without`."""
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        cases, rows = [], []
        for text in TEXTS:
            ids = self.model.preprocess([text], prompt="")["input_ids"][0].tolist()
            if ids and not (without and without in text):
                rows.append(self.model.encode([text], prompt="", normalize_embeddings=True)[0])
                cases.append({"text": text, "ids": ids})
        write(out.with_suffix(".json"), {"max_tokens": self.context, "dim": len(rows[0]), "pooling": pooling, "cases": cases})
        save_file({"embeddings": np.stack(rows).astype(np.float32)}, out.with_suffix(".safetensors"))
        shutil.rmtree(self.folder.parent)


def bert(out):
    source = Source("bert/old-mean")
    writer = gguf.GGUFWriter(out, "bert")
    sizes(writer, source.auto.config, source.context, rms=False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    word_piece(writer, source.tokenizer, source.auto.config.vocab_size)
    tensors(writer, source.auto, gguf.MODEL_ARCH.BERT, Q.F32, same)
    source.finish(out, writer)


def xlm_roberta(out):
    """As bge-m3: a BERT whose table of positions has lost its first two rows, a Unigram tokenizer, the first token pooled.

    With those rows the file has lost what RoBERTa does at a literal <pad>, so no such text is asked for.
    """
    source = Source("xlm-roberta/new-mean-bf16")
    source.model[1].pooling_mode = ("cls",)
    writer = gguf.GGUFWriter(out, "bert")
    sizes(writer, source.auto.config, source.context, rms=False)
    writer.add_pooling_type(gguf.PoolingType.CLS)
    unigram(writer, source.tokenizer, source.auto.config.vocab_size)

    def prepare(name, array):
        if "position_embeddings" not in name:
            return array, lambda numbers: numbers
        return array[2:], lambda numbers: np.concatenate([array[:2], numbers])

    tensors(writer, source.auto, gguf.MODEL_ARCH.BERT, Q.F16, prepare)
    source.finish(out, writer, without="<pad>")


# transformers' names, and the hub's, which the package knows.
NOMIC_NAMES = {
    "embeddings.LayerNorm": "emb_ln",
    "layers.": "encoder.layers.",
    "self_attn.o_proj": "attn.out_proj",
    "post_attention_layernorm": "norm1",
    "post_mlp_layernorm": "norm2",
    "mlp.up_proj": "mlp.fc11",
    "mlp.gate_proj": "mlp.fc12",
    "mlp.down_proj": "mlp.fc2",
}


def native(folder):
    """The hub's keys of a NomicBERT as transformers' own; it reads the hub's names of tensors itself."""
    old = json.loads((folder / "config.json").read_text())
    keys = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_inner": "intermediate_size", "n_layer": "num_hidden_layers", "n_positions": "max_position_embeddings", "layer_norm_epsilon": "layer_norm_eps"}
    new = {keys.get(key, key): value for key, value in old.items() if key in keys or key in ("vocab_size", "type_vocab_size")}
    theta = {"rope_type": "default", "rope_theta": float(old["rotary_emb_base"])}
    write(folder / "config.json", new | {"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "hidden_act": "silu", "rope_parameters": theta})


def nomic(out):
    """As nomic-embed-text-v1.5: one map for queries, keys and values, in Q8_0; the gated MLP."""
    source = Source("nomic_bert/hub-v1.5", config=native)
    config = source.auto.config
    writer = gguf.GGUFWriter(out, "nomic-bert")
    sizes(writer, config, source.context, rms=False)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    word_piece(writer, source.tokenizer, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.NOMIC_BERT, config.num_hidden_layers)
    weights = dict(source.auto.named_parameters())
    with torch.no_grad():
        for layer in range(config.num_hidden_layers):
            parts = [weights.pop(f"layers.{layer}.self_attn.{part}_proj.weight") for part in "qkv"]
            data, kind, numbers = held(torch.cat(parts).numpy(), Q.Q8_0)
            writer.add_tensor(f"blk.{layer}.attn_qkv.weight", data, raw_dtype=kind)
            for part, rows in zip(parts, np.split(numbers, 3)):
                part.copy_(torch.from_numpy(rows))
        for name, parameter in weights.items():
            for native_name, hub_name in NOMIC_NAMES.items():
                name = name.replace(native_name, hub_name)
            new = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert new, name
            data, kind, numbers = held(parameter.numpy(), Q.Q8_0)
            writer.add_tensor(new, data, raw_dtype=kind)
            parameter.copy_(torch.from_numpy(numbers))
    source.finish(out, writer)


def qwen3(out):
    source = Source("qwen3/old-last-embedding")
    config = source.auto.config
    writer = gguf.GGUFWriter(out, "qwen3")
    sizes(writer, config, source.context, rms=True)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_pooling_type(gguf.PoolingType.LAST)
    byte_bpe(writer, source.tokenizer, config.vocab_size, "qwen2", end="<|endoftext|>")
    tensors(writer, source.auto, gguf.MODEL_ARCH.QWEN3, Q.Q8_0, same)
    source.finish(out, writer)


def qwen2(out):
    source = Source("qwen2/old-last-f16-prefix")
    config = source.auto.config
    writer = gguf.GGUFWriter(out, "qwen2")
    sizes(writer, config, source.context, rms=True)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_pooling_type(gguf.PoolingType.LAST)
    byte_bpe(writer, source.tokenizer, config.vocab_size, "qwen2", end="<|endoftext|>")
    tensors(writer, source.auto, gguf.MODEL_ARCH.QWEN2, Q.F16, same)
    source.finish(out, writer)


def pairs(config):
    """Query and key maps as Llama's files have them."""

    def prepare(name, array):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads if "k_proj" in name else None
        return (array, lambda numbers: numbers) if heads is None else (neighbours(array, heads), lambda numbers: halves(numbers, heads))

    return prepare


def llama3(out):
    """Llama 3.1: factors on the frequencies in a tensor of their own; texts split as `llama-bpe` says."""

    def tokenizer(value):
        value["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = value["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"].replace("|\\p{N}|", "|\\p{N}{1,3}|")
        value["model"]["ignore_merges"] = True

    source = Source("llama/old-last-llama3", tokenizer)
    config = source.auto.config
    writer = gguf.GGUFWriter(out, "llama")
    sizes(writer, config, source.context, rms=True)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_pooling_type(gguf.PoolingType.LAST)
    byte_bpe(writer, source.tokenizer, config.vocab_size, "llama-bpe", begin="<|begin_of_text|>")
    plain = config.rope_parameters["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    writer.add_tensor("rope_freqs.weight", (plain / source.auto.rotary_emb.inv_freq.numpy()).astype(np.float32), raw_dtype=Q.F32)
    tensors(writer, source.auto, gguf.MODEL_ARCH.LLAMA, Q.Q8_0, pairs(config))
    source.finish(out, writer)


def llama_linear(out):
    """SentencePiece's BPE, biases, linear scaling in bf16, and no pooling: the operator names it."""
    source = Source("llama/old-weighted-f16-linear")
    config = source.auto.config
    writer = gguf.GGUFWriter(out, "llama")
    sizes(writer, config, source.context, rms=True)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(config.rope_parameters["factor"])
    writer.add_pooling_type(gguf.PoolingType.NONE)
    sentence_piece_bpe(writer, source.tokenizer, config.vocab_size, "<s>", None, prefix=True)
    tensors(writer, source.auto, gguf.MODEL_ARCH.LLAMA, Q.BF16, pairs(config))
    source.finish(out, writer, "weightedmean")


def gemma_embedding(out):
    """EmbeddingGemma as llama.cpp has it: every sixth layer without a window, a local theta of 10,000, its two maps after pooling."""

    def config(folder):
        theta = {"full_attention": {"rope_type": "default", "rope_theta": 5000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
        config = transformers.Gemma3TextConfig.from_pretrained(folder)
        sizes = {name: getattr(config, name) for name in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings")}
        config = transformers.Gemma3TextConfig(
            **sizes, num_hidden_layers=7, sliding_window=8, query_pre_attn_scalar=16, use_bidirectional_attention=True, rope_parameters=theta, pad_token_id=0, bos_token_id=2, eos_token_id=1
        )
        randomise(transformers.Gemma3TextModel(config), 361, plus_one=True).save_pretrained(folder)

    source = Source("gemma3_text/new-embedding", config=config)
    config = source.auto.config
    writer = gguf.GGUFWriter(out, "gemma-embedding")
    sizes(writer, config, source.context, rms=True)
    writer.add_rope_freq_base(5000.0)
    writer.add_sliding_window(8)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    sentence_piece_bpe(writer, source.tokenizer, config.vocab_size, "<bos>", "<eos>", prefix=False)
    one_more = lambda name, array: (array + 1, lambda numbers: numbers - 1) if "norm" in name else (array, lambda numbers: numbers)
    tensors(writer, source.auto, gguf.MODEL_ARCH.GEMMA_EMBEDDING, Q.Q8_0, one_more)
    with torch.no_grad():
        for index, name in [(2, "dense_2.weight"), (3, "dense_3.weight")]:
            parameter = source.model[index].linear.weight
            data, kind, numbers = held(parameter.numpy(), Q.F32)
            writer.add_tensor(name, data, raw_dtype=kind)
            parameter.copy_(torch.from_numpy(numbers))
    source.finish(out, writer)


def blocks(path):
    """One block of each format, drawn, and the numbers that the package finds in it."""
    draw, record = np.random.default_rng(371), {}
    for kind in (Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K):
        size, numbers = gguf.GGML_QUANT_SIZES[kind][1], np.array([np.inf])
        # Scales are half floats anywhere in a block: drawn until they are neither infinite nor huge.
        while not (np.isfinite(numbers).all() and 0.1 < abs(numbers).max() < 1e4):
            data = draw.integers(0, 256, size, dtype=np.uint8)
            numbers = gguf.quants.dequantize(data[None], kind)[0].astype(np.float32)
        record[kind.name] = {"bytes": data.tolist(), "numbers": [float(number) for number in numbers]}
    path.write_text(json.dumps(record) + "\n")


MAKERS = {
    "bert-f32": bert,
    "bert-unigram-f16": xlm_roberta,
    "nomic-q8_0": nomic,
    "qwen3-q8_0": qwen3,
    "qwen2-f16": qwen2,
    "llama3-q8_0": llama3,
    "llama-linear-bf16": llama_linear,
    "gemma-embedding-q8_0": gemma_embedding,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    blocks(root / "blocks.json")
    for name, make in MAKERS.items():
        if len(sys.argv) == 2 or any(word in name for word in sys.argv[2:]):
            make(root / f"{name}.gguf")
            print(name, (root / f"{name}.gguf").stat().st_size)
