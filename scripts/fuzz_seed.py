"""Writes the first corpus of the checkpoint fuzzer: the small checkpoints of the parity test, packed as fuzz/checks/checkpoint.rs reads them.

    python scripts/fuzz_seed.py tests/it/tiny/bert fuzz/corpus/checkpoint
"""

import re
import struct
import sys
from pathlib import Path

tiny, corpus = Path(sys.argv[1]), Path(sys.argv[2])
files = re.findall(r'^    "(.+)",$', Path("fuzz/checks/checkpoint.rs").read_text(), re.M)
corpus.mkdir(parents=True, exist_ok=True)
for model in sorted(path for path in tiny.iterdir() if path.is_dir()):
    packed = b""
    for index, name in enumerate(files):
        if (model / name).exists():
            content = (model / name).read_bytes()
            packed += struct.pack("<BI", index, len(content)) + content
    (corpus / model.name).write_bytes(packed)
    print(model.name, len(packed))
