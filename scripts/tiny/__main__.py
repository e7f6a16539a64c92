"""Writes the small checkpoints of tests/it/tiny and the vectors that the reference gives for them.

    python scripts/tiny tests/it/tiny [PART OF A NAME ...]

All of them, or those whose name (as in roberta/old-cls-prefix) contains one of the words. A few layers each, weights far from their usual
scale (std >= 0.2, biases and norm weights away from 0 and 1), so that a wrong sign, a forgotten bias or another GELU shows. Each folder is a model
plus reference.json (texts, prompts, ids, prompt lengths) and reference.safetensors (`embeddings` [N, dim] f32, computed one text at a
time in f32). README.md beside this file says what the reference of each family is. Needs sentence-transformers, sentencepiece, protobuf.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import adapters
import bert
import decoders
import encoders
import plain
import relative
import rotary
import static
from common import close, fresh

GROUPS = [bert, encoders, rotary, plain, decoders, relative, adapters, static]


def main(root, words):
    torch.set_num_threads(1)
    for name, make in [item for group in GROUPS for item in group.MAKERS.items()]:
        if words and not any(word in name for word in words):
            continue
        torch.manual_seed(0)
        out = fresh(root / name)
        make(out)
        close(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
