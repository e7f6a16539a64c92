"""Checkpoints of known models' shapes with random weights, made here: speed does not ask what the weights say."""

import dataclasses
import json
import pathlib
import shutil


@dataclasses.dataclass(frozen=True)
class Shape:
    kind: str
    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    kv_heads: int = 0
    head_dim: int = 64
    pooling: str = "mean"
    # Tokens that a token sees to one side in the layers that do not see all; of how many layers one sees all.
    window: int = 0
    every: int = 1

    def flops(self, sizes: list[int]) -> float:
        """Of one pass over texts of these sizes: products with weights and of attention, two for each multiply and add."""
        attention = self.heads * self.head_dim
        narrow = (self.kv_heads or self.heads) * self.head_dim
        # Gated MLPs have a third matrix.
        inner = self.inner * (2 if self.kind == "bert" else 3)
        per_token = 2 * self.layers * self.hidden * (2 * attention + 2 * narrow + inner)
        everywhere = self.layers if not self.window else -(-self.layers // self.every)
        total = 0.0
        for size in sizes:
            # Pairs of a token and one that it sees, itself among them.
            seen = size * (size + 1) // 2 if self.kind == "qwen3" else size * size
            far = min(self.window, size - 1)
            near = size * (2 * far + 1) - far * (far + 1)
            total += size * per_token + 4 * attention * (everywhere * seen + (self.layers - everywhere) * near)
        return total


SHAPES = {
    "minilm": Shape("bert", 6, 384, 12, 1536, 30522, 512, head_dim=32),
    "bert-base": Shape("bert", 12, 768, 12, 3072, 30522, 512),
    "bert-large": Shape("bert", 24, 1024, 16, 4096, 30522, 512),
    "modernbert-base": Shape("modernbert", 22, 768, 12, 1152, 50368, 8192, window=64, every=3),
    "qwen3-0.6b": Shape("qwen3", 28, 1024, 16, 3072, 151669, 32768, kv_heads=8, head_dim=128, pooling="lasttoken"),
}


def config(shape: Shape):
    """The same in transformers' words."""
    import transformers

    common = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        "max_position_embeddings": shape.positions,
    }
    if shape.kind == "bert":
        # The default, said because CTranslate2 asks for it.
        return transformers.BertConfig(**common, position_embedding_type="absolute")
    if shape.kind == "modernbert":
        ids = {"pad_token_id": 0, "cls_token_id": 101, "bos_token_id": 101, "sep_token_id": 102, "eos_token_id": 102}
        return transformers.ModernBertConfig(**common, **ids, local_attention=2 * shape.window, global_attn_every_n_layers=shape.every)
    ids = {"bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
    return transformers.Qwen3Config(**common, **ids, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, tie_word_embeddings=True)


def make(shape: Shape, target: pathlib.Path, dtype, source: pathlib.Path, longest: int) -> None:
    """A checkpoint that vecmill and sentence-transformers both load: weights, tokenizer, mean or last-token pooling, unit length.

    The tokenizer is the WordPiece of `source`, whatever the family's own is: a text has as many tokens for one shape as for the other, and the last one
    is always [SEP]. `longest` is the most tokens of a text.
    """
    import torch
    import transformers

    shutil.rmtree(target, ignore_errors=True)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config(shape)).to(dtype).save_pretrained(target)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer.update(truncation=None, padding=None)
    write = lambda name, value: (target / name).write_text(json.dumps(value))  # noqa: E731
    write("tokenizer.json", tokenizer)
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    write("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest, **names})
    write("sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    (target / "1_Pooling").mkdir()
    modes = {"pooling_mode_mean_tokens": shape.pooling == "mean", "pooling_mode_lasttoken": shape.pooling == "lasttoken"}
    write("1_Pooling/config.json", {"word_embedding_dimension": shape.hidden, "pooling_mode_cls_token": False, **modes})
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    parts = [{"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    (target / "2_Normalize").mkdir()
    write("modules.json", parts)
