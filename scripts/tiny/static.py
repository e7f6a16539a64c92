"""Static embeddings: a table, looked up and averaged. Reference: sentence-transformers' StaticEmbedding, and model2vec itself where there is no modules.json."""

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

import vocab
from common import TEXTS, record, write

MODEL2VEC = {"model_type": "model2vec", "architectures": ["StaticModel"], "tokenizer_name": "baai/bge-base-en-v1.5", "apply_pca": 16, "apply_zipf": True,
             "sif_coefficient": 0.0001, "hidden_dim": 16, "seq_length": 1000000, "normalize": True}  # fmt: skip


def static_reference(out, folder, prompts=("",)):
    """Ids without special tokens; a text without any (or unknown to the model) has no case. `max_tokens` 0 says that nothing is cut."""
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = SentenceTransformer(str(out), device="cpu", local_files_only=True).float()
    ids_of = lambda text: raw.encode(text, add_special_tokens=False).ids
    encode = lambda text, prompt: model.encode([text], prompt=prompt, convert_to_numpy=True, show_progress_bar=False)[0]
    limit = raw.truncation["max_length"] if raw.truncation else 0
    collect(out, "sentence-transformers", limit, prompts, ids_of, encode)


def collect(out, kind, limit, prompts, ids_of, encode):
    cases, rows = [], []
    for prompt in prompts:
        for text in TEXTS:
            row = encode(text, prompt)
            if row.any():
                rows.append(row)
                cases.append({"text": text, "prompt": prompt, "ids": ids_of(prompt + text), "prompt_len": len(ids_of(prompt))})
    record(out, kind, limit, cases, rows)


def modules(out, path, normalize):
    entries = [{"idx": 0, "name": "0", "path": path, "type": "sentence_transformers.models.StaticEmbedding"}]
    if normalize:
        entries.append({"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"})
    write(out / "modules.json", entries)


def tidy(folder, truncation=None):
    """Leaves tokenizer.json alone, cut to `truncation` tokens as model2vec writes it."""
    (folder / "tokenizer_config.json").unlink()
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    if truncation:
        raw.enable_truncation(truncation)
    raw.save(str(folder / "tokenizer.json"))


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def st_subfolder(out):
    """As static-retrieval-mrl: everything in 0_StaticEmbedding, `embedding.weight`, no normalisation, no config.json."""
    folder = out / "0_StaticEmbedding"
    size = vocab.wordpiece(folder, 512)
    tidy(folder)
    save_file({"embedding.weight": noise(501, size, 32)}, folder / "model.safetensors")
    modules(out, "0_StaticEmbedding", False)
    versions = {"sentence_transformers": "3.3.0", "transformers": "4.46.0", "pytorch": "2.5.0"}
    write(out / "config_sentence_transformers.json", {"__version__": versions, "prompts": {"query": "query: "}, "default_prompt_name": None, "similarity_fn_name": "cosine"})
    static_reference(out, folder, ["", "query: "])


def potion(out):
    """As potion-base: `embeddings` f32 beside config.json, normalised, cut at 40 tokens by tokenizer.json."""
    size = vocab.wordpiece(out, 512)
    tidy(out, 40)
    save_file({"embeddings": noise(502, size, 24)}, out / "model.safetensors")
    modules(out, ".", True)
    write(out / "config.json", MODEL2VEC)
    static_reference(out, out)


def weighted(out):
    """f16 embeddings, a f64 weight per token."""
    size = vocab.unigram(out, 512, "xlmr")
    tidy(out)
    weights = np.abs(noise(504, size)).astype(np.float64) + 0.1
    save_file({"embeddings": noise(503, size, 16).astype(np.float16), "weights": weights}, out / "model.safetensors")
    modules(out, ".", True)
    write(out / "config.json", MODEL2VEC | {"embedding_dtype": "float16"})
    static_reference(out, out)


def quantised(out):
    """A vocabulary of 37 vectors in i8, an i64 row number and a f32 weight per token."""
    size = vocab.gpt_bpe(out, 512, ["<|endoftext|>"], "$A <|endoftext|>", {"eos_token": "<|endoftext|>"})
    tidy(out)
    table = np.clip(noise(505, 37, 32) * 40, -127, 127).astype(np.int8)
    mapping = np.random.default_rng(506).integers(0, 37, size).astype(np.int64)
    save_file({"embeddings": table, "mapping": mapping, "weights": (np.abs(noise(507, size)) + 0.1) * 0.02}, out / "model.safetensors")
    modules(out, ".", False)
    write(out / "config.json", MODEL2VEC | {"normalize": False, "embedding_dtype": "int8", "vocabulary_quantization": 37})
    static_reference(out, out)


def bare(out):
    """No modules.json: what model2vec itself makes of it, which leaves unknown tokens out and cuts at 512 tokens."""
    from model2vec import StaticModel

    size = vocab.wordpiece(out, 512)
    tidy(out)
    save_file({"embeddings": noise(508, size, 16)}, out / "model.safetensors")
    write(out / "config.json", MODEL2VEC)
    model = StaticModel.from_pretrained(out, force_download=False)
    collect(out, "model2vec", 512, [""], lambda text: model.tokenize([text])[0], lambda text, prompt: model.encode([prompt + text])[0])


MAKERS = {
    "static_embedding/st-subfolder": st_subfolder,
    "static_embedding/model2vec-normalised": potion,
    "static_embedding/model2vec-f16-weights-f64": weighted,
    "static_embedding/model2vec-i8-mapping": quantised,
    "static_embedding/model2vec-bare": bare,
}
