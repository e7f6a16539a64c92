"""Tiny tokenizers of every kind that embedding checkpoints carry, each as tokenizer.json and tokenizer_config.json.

Built by hand or trained on a few lines, always with the same result. Shapes of the pipelines as the checkpoints of each family have them.
"""

import json
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from common import write

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = "the cat sat on mat query passage hello world one two three four five six seven eight nine ten and other that hat ing ed er est un re caf end lines spaces search document".split()
CORPUS = [
    "the cat sat on the mat and the other cat sat on a hat",
    "query: hello world passage: hello other world, one two three four five",
    "six seven eight nine ten; that cat is sitting and hatting in the end",
    "search_query: two lines, search_document: more spaces and documents 42",
    "Hello, World! The caf\u00e9 of k\u00f6ln na\u00efve \u65e5\u672c",
] * 3


def save(out, tokenizer, length, special, added=(), side="right", kind="PreTrainedTokenizerFast", **config):
    """`special`: {"cls_token": "<s>", ...}; `added`: what else is an added token; `kind`: tokenizer_class."""
    names = list(dict.fromkeys(list(special.values()) + list(added)))
    tokenizer.add_special_tokens([name if isinstance(name, AddedToken) else AddedToken(name, special=True, normalized=False) for name in names])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    text = {name: str(token) if not isinstance(token, AddedToken) else token.content for name, token in special.items()}
    write(out / "tokenizer_config.json", text | {"tokenizer_class": kind, "model_max_length": length, "padding_side": side} | config)
    return tokenizer.get_vocab_size()


def template(tokenizer, single):
    tokens = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(single.split()) if token != "$A"]
    return processors.TemplateProcessing(single=single, pair=None, special_tokens=tokens)


def pieces():
    """WordPiece pieces after the special tokens."""
    letters = list(LETTERS)
    return letters + ["##" + c for c in letters] + list("0123456789.,:;!?-'_<>[]/|") + [w for w in WORDS if len(w) > 1] + ["##ing", "##ed", "\u65e5", "\u672c"]


def wordpiece(out, length, special=None, kind="BertTokenizer", lower=True, **config):
    """BERT's; MPNet's has <s> <pad> </s> [UNK] <mask>."""
    mpnet = special == "mpnet"
    first = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"] if mpnet else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: i for i, token in enumerate(first + pieces())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if mpnet:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
        names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]"}
        names["mask_token"] = AddedToken("<mask>", special=True, lstrip=True, normalized=False)
    else:
        tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP]")
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    more = {"do_lower_case": lower, "tokenize_chinese_chars": True, "strip_accents": None} if kind != "PreTrainedTokenizerFast" else {}
    return save(out, tokenizer, length, names, kind=kind, **(more | config))


def trained_bpe(pre, size, first, alphabet=()):
    """Vocabulary (the special tokens `first` in front) and merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(first), initial_alphabet=list(alphabet), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def roberta_bpe(out, length, kind="RobertaTokenizer", **config):
    """Byte-level BPE with <s> and </s>."""
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocab, merges = trained_bpe(byte, 320, ROBERTA, sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = byte, decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>"}
    special["mask_token"] = AddedToken("<mask>", special=True, lstrip=True, normalized=False)
    return save(out, tokenizer, length, special, kind=kind, add_prefix_space=False, **config)


GPT_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def gpt_bpe(out, length, first, single, special, nfc=True, kind="PreTrainedTokenizerFast", size=310, side="right", added=(), **config):
    """Byte-level BPE as Qwen, Llama 3, ModernBERT and EuroBERT have it; `single` says what stands around a text."""
    split = [pre_tokenizers.Split(Regex(GPT_SPLIT), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    vocab, merges = trained_bpe(pre_tokenizers.Sequence(split), size, (), sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(split), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in first])
    byte = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.Sequence([byte, template(tokenizer, single)])
    return save(out, tokenizer, length, special, added=list(first) + list(added), kind=kind, side=side, **config)


def fallback_bpe(out, length, single, style="llama", kind="PreTrainedTokenizerFast", side="right", **config):
    """SentencePiece BPE with byte fallback: Llama's (and Mistral's), or Gemma's."""
    first = ["<unk>", "<s>", "</s>"] if style == "llama" else ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    first = first + [f"<0x{byte:02X}>" for byte in range(256)]
    space = pre_tokenizers.Metaspace(prepend_scheme="always" if style == "llama" else "never", split=True)
    vocab, merges = trained_bpe(space, len(first) + 70, first, ())
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if style == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
        special = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = template(tokenizer, single)
    return save(out, tokenizer, length, special, kind=kind, side=side, **config)


CHARSMAP = None


def charsmap():
    """SentencePiece's precompiled character map, of a few rules instead of NFKC's thousands, so that it is small."""
    global CHARSMAP
    if CHARSMAP is None:
        import sentencepiece

        rules = {"\ufb01": "fi", "\u00a0": " ", "\t": " ", "\n": " ", "\u2026": "..."} | {chr(0xFF21 + i): chr(65 + i) for i in range(26)} | {"e\u0301": "\u00e9"}
        with tempfile.TemporaryDirectory() as folder:
            tsv, text = Path(folder) / "rules.tsv", Path(folder) / "corpus.txt"
            code = lambda s: " ".join(f"{ord(c):X}" for c in s)
            tsv.write_text("".join(f"{code(a)}\t{code(b)}\n" for a, b in rules.items()))
            text.write_text("\n".join(CORPUS))
            options = dict(input=str(text), model_prefix=folder + "/m", vocab_size=60, hard_vocab_limit=False, normalization_rule_tsv=str(tsv), minloglevel=2)
            sentencepiece.SentencePieceTrainer.train(**options)
            from sentencepiece import sentencepiece_model_pb2 as pb

            proto = pb.ModelProto()
            proto.ParseFromString((Path(folder) / "m.model").read_bytes())
            CHARSMAP = proto.normalizer_spec.precompiled_charsmap
    return CHARSMAP


def scored():
    """Unigram pieces with log probabilities, falling by rank."""
    mark = "\u2581"
    words = [mark + w for w in WORDS] + WORDS + [mark] + [mark + c for c in LETTERS] + list(LETTERS) + list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?-'_<>[]/|")
    words += ["\u00e9", "caf\u00e9", "\u65e5", "\u672c", mark + "Hello", "World", "ting", "at", "...", "\u00df", "\u00f6"]
    return [(word, -2.0 - 0.045 * rank) for rank, word in enumerate(dict.fromkeys(words))]


def unigram(out, length, style, kind="PreTrainedTokenizerFast", **config):
    """`style`: xlmr, camembert, t5, deberta, albert."""
    firsts = {
        "xlmr": ["<s>", "<pad>", "</s>", "<unk>"],
        "camembert": ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"],
        "t5": ["<pad>", "</s>", "<unk>"],
        "deberta": ["[PAD]", "[CLS]", "[SEP]", "[UNK]"],
        "albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
    }
    first = firsts[style]
    unknown = "[UNK]" if style == "deberta" else "<unk>"
    last = {"xlmr": ["<mask>"], "camembert": ["<mask>"], "deberta": ["[MASK]"], "t5": ["<extra_id_1>", "<extra_id_0>"], "albert": []}[style]
    words = [(word.lower(), score) for word, score in scored()] if style == "albert" else scored()
    body = [(token, 0.0) for token in first] + [(word, score) for word, score in dict(words).items()] + [(token, 0.0) for token in last]
    tokenizer = Tokenizer(models.Unigram(body, first.index(unknown), False))
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    nfkc = normalizers.Precompiled(charsmap())
    tokenizer.normalizer, tokenizer.pre_tokenizer = nfkc, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.decoder = decoders.Metaspace()
    around, mask = "<s> $A </s>", "<mask>"
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>"}
    if style == "t5":
        around, mask = "$A </s>", None
        special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
        config |= {"extra_ids": 2}
    elif style == "deberta":
        around, mask = "[CLS] $A [SEP]", "[MASK]"
        special = {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
        tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), nfkc, normalizers.Replace(Regex(" {2,}"), " ")])
        tokenizer.pre_tokenizer = metaspace
    elif style == "albert":
        around, mask = "[CLS] $A [SEP]", "[MASK]"
        special = {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "sep_token": "[SEP]", "pad_token": "<pad>", "cls_token": "[CLS]"}
        quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), nfkc]
        tokenizer.normalizer = normalizers.Sequence(quotes + [normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.post_processor = template(tokenizer, around)
    if mask:
        special["mask_token"] = AddedToken(mask, special=True, lstrip=True, normalized=False)
    return save(out, tokenizer, length, special, added=last if style == "t5" else (), kind=kind, **config)
