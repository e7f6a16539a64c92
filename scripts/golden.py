"""Writes the golden vectors of a model: what sentence-transformers gives, in f32 on the CPU, for fixed texts.

    python scripts/golden.py MODEL_DIR models/all-MiniLM-L6-v2

Writes golden.json (the texts, their token counts, `max_tokens` (0: nothing is cut), package versions, the weights' sha256) and golden.safetensors (`embeddings` [N, dim] f32;
`ids` [sum of tokens] i32 and `offsets` [N + 1] i32: each text's ids, special tokens included, cut at the end to the model's length).
Needs sentence-transformers; run it again only to change the texts or to follow a new release of the reference.
"""

import hashlib
import json
import math
import platform
import random
import sys
from pathlib import Path

import numpy as np
import sentence_transformers
import tokenizers
import torch
import transformers
from safetensors.numpy import save_file

ENGLISH = [
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "the quick brown fox jumps over the lazy dog",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "What is the capital of France?",
    "Paris is the capital and largest city of France.",
    "How do I reset my password?",
    "To reset your password, open Settings, choose Account, and press Reset.",
    "He didn't say 'no'; he said \"not yet\" -- twice.",
    "It's 5 o'clock somewhere; we'll've been there by 17:00.",
    "Prices rose 3.7% to $1,234.56 in Q3/2024 (vs. 2.1% in Q2).",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo",
    "e-mail: jane.doe+test@example.com, tel. +49 (0)30 901820",
    "https://example.com/path?query=1&lang=en#fragment",
    "1 2 3 4 5 6 7 8 9 10",
    "3.14159265358979323846264338327950288419716939937510",
    "I", "?", "...", "!!!", "--", "_",
    "under_score CamelCase kebab-case dotted.name",
    "A sentence. Another sentence! A third? Yes; and: more, still.",
    "to be or not to be that is the question",
    "We propose a new simple network architecture based solely on attention mechanisms.",
    "A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby.", "A monkey is playing drums.",
    "Two men pushed carts through the woods.", "A cheetah is running behind its prey.",
]
WHITE_SPACE_AND_CONTROL = [
    "", " ", "\n", "\t\t", "   \r\n  ", "\u00a0\u2003\u3000", "  leading and trailing  ", "tabs\tand\nnewlines\r\nin  between",
    "\x00", "nul\x00inside", "bell\x07 and escape\x1b[31mred\x1b[0m", "next\x85line and\u2028separators\u2029here",
    "zero\u200bwidth\u200cjoiner\u200dmarks\ufeff", "soft\u00adhyphen", "right\u200f-to-left\u200emarks", "replacement \ufffd character",
    "private use \ue000 \uf8ff", "unassigned \u0378 \U000e0fff", "noncharacter \ufdd0 \uffff", "\u202ereversed\u202c",
]
ACCENTS = [
    "caf\u00e9", "cafe\u0301", "na\u00efve co\u00f6peration", "\u0130stanbul'da \u0131l\u0131k bir g\u00fcn", "Stra\u00dfe, STRASSE, stra\u1e9ee",
    "\u01c5 \u01c4 \u01c6 digraphs", "a\u0300\u0301\u0302\u0303\u0304 stacked marks", "q\u0307\u0323 and q\u0323\u0307 (order)",
    "\ufb01 ligature \ufb03", "\uff26\uff55\uff4c\uff4c\uff57\uff49\uff44\uff54\uff48 \uff11\uff12\uff13", "\u2460\u2461\u2462 \u00bd \u00b2 \u2167",
    "Z\u0351\u036b\u0343a\u0321l\u0362g\u030do\u0305", "\u1e69\u0323\u0307", "\u00c5ngstr\u00f6m \u212b", "e\u0301\u0323 \u1eb9\u0301",
    "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u039f\u03b4\u03c5\u03c3\u03c3\u03b5\u03cd\u03c2", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0451\u0436\u0438\u043a \u0439\u043e\u0434",
    "Ti\u1ebfng Vi\u1ec7t c\u00f3 d\u1ea5u", "\u0141\u00f3d\u017a, Krak\u00f3w, Gda\u0144sk", "\u10e1\u10d0\u10e5\u10d0\u10e0\u10d7\u10d5\u10d4\u10da\u10dd",
]
SCRIPTS = [
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002", "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u5427\u3002", "\u7e41\u9ad4\u4e2d\u6587\u8207\u7b80\u4f53\u4e2d\u6587",
    "mixed\u6f22\u5b57and\u304b\u306aand\u30ab\u30bf\u30ab\u30ca", "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4.", "\u1112\u1161\u11ab\u1100\u1173\u11af jamo",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0627\u0644\u0644\u0651\u064f\u063a\u064e\u0629\u064f \u0627\u0644\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u0651\u064e\u0629",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "English and \u05e2\u05d1\u05e8\u05d9\u05ea and \u0639\u0631\u0628\u064a mixed",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u0bb5\u0ba3\u0b95\u0bcd\u0b95\u0bae\u0bcd", "\u1230\u120b\u121d \u12d3\u1208\u121d",
    "\U00020000\U0002a6d6 beyond the basic plane", "\uf900\uf901 compatibility ideographs", "\u3042\u3099 combining dakuten",
]
SYMBOLS = [
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family", "\U0001f44d\U0001f3fd thumbs \U0001f1e9\U0001f1ea flag", "I \u2764\ufe0f NY",
    "\u2200x\u2208\u211d: x\u00b2 \u2265 0 \u2192 \u222b f(x) dx = \u221e", "\u00a9 \u00ae \u2122 \u20ac \u00a3 \u00a5 \u20bf", "\u201csmart\u201d \u2018quotes\u2019 \u2014 en\u2013dash\u2026",
    "C\u266f B\u266d \u266b", "\u2554\u2550\u2557\u2551\u255a\u255d", "$100 ^caret `tick` |pipe| ~tilde <tag>", "x=[1,2]; y={'a':(3,)}",
]
CODE = [
    "fn main() { println!(\"{}\", (0..10).filter(|n| n % 2 == 0).sum::<i32>()); }",
    "def f(x: int) -> int:\n    return x ** 2 if x > 0 else -x  # comment",
    "SELECT u.id, COUNT(*) FROM users AS u WHERE u.created_at >= '2024-01-01' GROUP BY u.id HAVING COUNT(*) > 1;",
    "{\"key\": [1, 2.5, null, true], \"nested\": {\"a\": \"b\\n\"}}",
    "<html><body><p class=\"x\">Hi &amp; bye</p></body></html>",
    "for (int i=0;i<n;++i){a[i]^=b[i]<<3;}", "#!/bin/sh\nset -e\nls -la | grep '^d' > out.txt 2>&1",
    "0xDEADBEEF 0b1010 1e-12 6.022e23", "550e8400-e29b-41d4-a716-446655440000", "C:\\Users\\name\\file.txt /usr/local/bin",
]
TOKENS_AS_TEXT = ["[CLS]", "[SEP] in the middle [SEP] twice", "[MASK][PAD][UNK]", "[cls] lower, [ SEP ] spaced", "##ing ##ed un##able", "a[MASK]b [CLS", "[unused1]"]
WORDS = "river market silent orange theory engine window collect bright paper travel simple number garden music answer winter moment village science".split()


def long_texts():
    """From near the limit to far over it, in words of one or several tokens."""
    draw = random.Random(20240229)
    sentence = lambda words: " ".join(draw.choice(WORDS) for _ in range(words))
    yield from (sentence(words) for words in (30, 60, 120, 200, 252, 253, 254, 255, 256, 257, 300, 511, 600, 2000))
    yield "x" * 99
    yield "x" * 100
    yield "x" * 101
    yield "y" * 5000
    yield "a" * 100 + " " + "b" * 101 + " c"
    yield "." * 400
    yield "\u6587" * 300
    yield "no-break " * 150
    yield "\U0001f600 " * 300
    yield "Gda\u0144sk \u0141\u00f3d\u017a " * 90
    yield " ".join(str(number) for number in range(400))


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def ids_of(model, text, cut):
    """The ids that the model computes, or (without `cut`) those of the whole text."""
    if not isinstance(model.tokenizer, tokenizers.Tokenizer):
        return model.preprocess([text])["input_ids"][0].tolist() if cut else model.tokenizer(text, truncation=False)["input_ids"]
    if cut:
        return model.preprocess([text])["input_ids"].tolist()
    whole = tokenizers.Tokenizer.from_str(model.tokenizer.to_str())  # A StaticEmbedding has the bare tokenizer.
    whole.no_truncation()
    return whole.encode(text, add_special_tokens=False).ids


def main(model_dir, out_dir):
    texts = ENGLISH + WHITE_SPACE_AND_CONTROL + ACCENTS + SCRIPTS + SYMBOLS + CODE + TOKENS_AS_TEXT + list(long_texts())
    assert len(set(texts)) == len(texts), "a text is there twice"
    torch.manual_seed(0)
    model = sentence_transformers.SentenceTransformer(str(model_dir), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
    # One text at a time: no padding anywhere near the reference.
    embeddings = model.encode(texts, batch_size=1, convert_to_numpy=True, show_progress_bar=False).astype(np.float32)
    ids = [ids_of(model, text, True) for text in texts]
    whole = [len(ids_of(model, text, False)) for text in texts]
    offsets = np.cumsum([0] + [len(row) for row in ids]).astype(np.int32)
    flat = np.array([id for row in ids for id in row], dtype=np.int32)
    save_file({"embeddings": embeddings, "ids": flat, "offsets": offsets}, out_dir / "golden.safetensors")
    record = {
        "about": "Vectors and ids in golden.safetensors, in this order; written by scripts/golden.py.",
        "weights_sha256": sha256(model_dir / "model.safetensors"),
        "max_tokens": 0 if math.isinf(model.max_seq_length) else model.max_seq_length,
        "packages": {
            "python": platform.python_version(),
            "sentence-transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "torch": torch.__version__,
        },
        "items": [{"text": text, "tokens": len(row), "original_tokens": full} for text, row, full in zip(texts, ids, whole)],
    }
    (out_dir / "golden.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{len(texts)} texts, {len(flat)} tokens, {sum(full > len(row) for row, full in zip(ids, whole))} cut")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
