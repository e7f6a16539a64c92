"""BERT's relatives: RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, MPNet, ELECTRA, ALBERT. Reference: transformers' own classes."""

import torch
import transformers
from sentence_transformers.base.modules import Dense

import vocab
from common import TEXTS, edit_config, new_layout, old_layout, randomise, reference, save_model

E5 = {"query": "query: ", "passage": "passage: "}
LONG = TEXTS + ["z cat " * 90]


def sizes(vocabulary, **more):
    return dict(vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48) | more


def roberta_cls(out):
    """Tensors under `roberta.`, length from the tokenizer (max_seq_length null), offset of positions 2."""
    size = vocab.roberta_bpe(out, 40)
    config = transformers.RobertaConfig(**sizes(size, max_position_embeddings=42, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2))
    save_model(out, randomise(transformers.RobertaModel(config, add_pooling_layer=False), 101), prefix="roberta.")
    edit_config(out, architectures=["RobertaForMaskedLM"])
    old_layout(out, 32, ["cls_token"], None)
    reference(out)


def roberta_mean(out):
    """f16 in shards, new layout, a prompt that is not pooled, GELU's tanh form."""
    size = vocab.roberta_bpe(out, 64)
    config = transformers.RobertaConfig(
        **sizes(size, hidden_size=24, num_attention_heads=3, num_hidden_layers=3, hidden_act="gelu_new", max_position_embeddings=66, type_vocab_size=1, pad_token_id=1)
    )
    save_model(out, randomise(transformers.RobertaModel(config), 102), dtype=torch.float16, shard="12KB")
    new_layout(out, 24, "mean", normalize=False, prompts={"query": "query: "}, default="query", include_prompt=False)
    reference(out, ["", "query: "])


def xlm_roberta_e5(out):
    size = vocab.unigram(out, 50, "xlmr", kind="XLMRobertaTokenizer")
    config = transformers.XLMRobertaConfig(**sizes(size, max_position_embeddings=52, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1))
    save_model(out, randomise(transformers.XLMRobertaModel(config), 111), dtype=torch.bfloat16)
    new_layout(out, 32, "mean", prompts=E5 | {"document": "passage: "})
    reference(out, ["", "query: "])


def xlm_roberta_cls(out):
    """Dense behind, transformer in a subfolder, tensors under `roberta.`, a padding id that is not 1 and so another offset."""
    size = vocab.unigram(out / "0_Transformer", 48, "xlmr", kind="XLMRobertaTokenizer")
    inner = out / "0_Transformer"
    config = transformers.XLMRobertaConfig(**sizes(size, hidden_size=24, num_attention_heads=2, max_position_embeddings=60, type_vocab_size=2, pad_token_id=3, hidden_act="relu"))
    save_model(inner, randomise(transformers.XLMRobertaModel(config, add_pooling_layer=False), 112), prefix="roberta.", shard="16KB")
    dense = randomise(Dense(24, 10), 113)
    old_layout(out, 24, ["cls_token"], 44, normalize=False, dense=[dense], transformer_path="0_Transformer")
    reference(out, tokenizer_folder=inner)


def camembert_mean(out):
    size = vocab.unigram(out, 44, "camembert", kind="CamembertTokenizer")
    config = transformers.CamembertConfig(**sizes(size, max_position_embeddings=46, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1))
    save_model(out, randomise(transformers.CamembertModel(config), 121), prefix="roberta.")
    old_layout(out, 32, ["mean_tokens"], 44, normalize=False)
    reference(out)


def camembert_f16(out):
    size = vocab.unigram(out, 36, "camembert")
    config = transformers.CamembertConfig(**sizes(size, hidden_size=16, num_attention_heads=2, num_hidden_layers=3, max_position_embeddings=40, type_vocab_size=1, pad_token_id=1, hidden_act="silu"))
    save_model(out, randomise(transformers.CamembertModel(config, add_pooling_layer=False), 122), dtype=torch.float16)
    new_layout(out, 16, "cls")
    reference(out)


def distilbert_mean(out):
    size = vocab.wordpiece(out, 40, kind="DistilBertTokenizer")
    config = transformers.DistilBertConfig(vocab_size=size, dim=32, hidden_dim=56, n_layers=2, n_heads=4, max_position_embeddings=40)
    save_model(out, randomise(transformers.DistilBertModel(config), 131))
    old_layout(out, 32, ["mean_tokens"], 36, normalize=False)
    reference(out)


def distilbert_cls(out):
    """Under `distilbert.`, bf16, cased, ReLU; a sinusoidal table is stored like a learned one."""
    size = vocab.wordpiece(out, 48, kind="DistilBertTokenizer", lower=False)
    config = transformers.DistilBertConfig(vocab_size=size, dim=24, hidden_dim=40, n_layers=3, n_heads=2, max_position_embeddings=48, activation="relu", sinusoidal_pos_embds=True)
    save_model(out, randomise(transformers.DistilBertModel(config), 132), prefix="distilbert.", dtype=torch.bfloat16)
    new_layout(out, 24, "cls", prompts={"query": "query: "})
    reference(out, ["", "query: "])


def mpnet_mean(out):
    """Texts longer than 128 tokens: the last bucket of distance."""
    size = vocab.wordpiece(out, 150, special="mpnet", kind="MPNetTokenizer")
    config = transformers.MPNetConfig(**sizes(size, max_position_embeddings=152, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2))
    save_model(out, randomise(transformers.MPNetModel(config, add_pooling_layer=False), 141))
    old_layout(out, 32, ["mean_tokens"], 148)
    reference(out, texts=LONG)


def mpnet_cls(out):
    size = vocab.wordpiece(out, 60, special="mpnet", kind="MPNetTokenizer")
    config = transformers.MPNetConfig(
        **sizes(size, hidden_size=24, num_attention_heads=2, num_hidden_layers=3, max_position_embeddings=70, pad_token_id=1, hidden_act="gelu_new")
    )
    save_model(out, randomise(transformers.MPNetModel(config), 142), prefix="mpnet.", dtype=torch.float16, shard="12KB")
    new_layout(out, 24, "cls", normalize=False)
    reference(out)


def electra_mean(out):
    """Embeddings narrower than the layers."""
    size = vocab.wordpiece(out, 40, kind="ElectraTokenizer")
    config = transformers.ElectraConfig(**sizes(size, embedding_size=20, max_position_embeddings=40))
    save_model(out, randomise(transformers.ElectraModel(config), 151), prefix="electra.")
    old_layout(out, 32, ["mean_tokens"], 40)
    reference(out)


def electra_cls(out):
    """Embeddings as wide as the layers: no projection."""
    size = vocab.wordpiece(out, 44)
    config = transformers.ElectraConfig(**sizes(size, hidden_size=24, embedding_size=24, num_attention_heads=2, num_hidden_layers=3, max_position_embeddings=50, type_vocab_size=1, layer_norm_eps=1e-6))
    save_model(out, randomise(transformers.ElectraModel(config), 152), dtype=torch.bfloat16)
    new_layout(out, 24, "cls", normalize=False, prompts={"query": "query: the "}, include_prompt=False)
    reference(out, ["", "query: the "])


def albert_mean(out):
    """One group: every layer has the same weights."""
    size = vocab.unigram(out, 40, "albert", kind="AlbertTokenizer")
    config = transformers.AlbertConfig(**sizes(size, embedding_size=16, num_hidden_layers=4, max_position_embeddings=40, pad_token_id=0, bos_token_id=2, eos_token_id=3))
    save_model(out, randomise(transformers.AlbertModel(config, add_pooling_layer=False), 161))
    old_layout(out, 32, ["mean_tokens"], 38)
    reference(out)


def albert_groups(out):
    """Two groups of two layers each, four hidden layers: layer i uses group i / 2, and both its inner layers."""
    size = vocab.unigram(out, 44, "albert")
    config = transformers.AlbertConfig(
        **sizes(size, hidden_size=24, embedding_size=24, num_attention_heads=2, num_hidden_layers=4, num_hidden_groups=2, inner_group_num=2, max_position_embeddings=48, hidden_act="gelu", pad_token_id=0)
    )
    # Small steps: eight blocks would otherwise make all tokens of a text one, and hide what the last ones do.
    scales = {"query": 0.6, "key": 0.6, "value": 0.25, "attention.dense": 0.25, "ffn": 0.25}
    save_model(out, randomise(transformers.AlbertModel(config), 164, scales=scales), prefix="albert.", dtype=torch.float16)
    new_layout(out, 24, "cls", normalize=False)
    reference(out)


MAKERS = {
    "roberta/old-cls-prefix": roberta_cls,
    "roberta/new-mean-f16-sharded": roberta_mean,
    "xlm-roberta/new-mean-bf16": xlm_roberta_e5,
    "xlm-roberta/old-cls-dense-subfolder": xlm_roberta_cls,
    "camembert/old-mean-prefix": camembert_mean,
    "camembert/new-cls-f16": camembert_f16,
    "distilbert/old-mean": distilbert_mean,
    "distilbert/new-cls-bf16": distilbert_cls,
    "mpnet/old-mean": mpnet_mean,
    "mpnet/new-cls-f16-sharded": mpnet_cls,
    "electra/old-mean-projected": electra_mean,
    "electra/new-cls-bf16": electra_cls,
    "albert/old-mean-shared": albert_mean,
    "albert/new-cls-f16-groups": albert_groups,
}
