"""A batch equals its texts alone: every small checkpoint in one server, its texts sent together and then one by one."""

import json
import time

from . import checkpoints, results
from .server import Server, cosine

# In half precision a product of another shape may be summed in another order, and random weights amplify it.
LEAST = {"f32": 0.99999, "bf16": 0.998}


def config(models: list[str]) -> str:
    """Vectors as the modules leave them, and every text taken."""
    return "".join(f'[models."{model}"]\nnormalize = "model"\ntruncate = "end"\nempty_input = "embed"\n' for model in models)


def run(args) -> results.Result:
    folders = checkpoints.small(args)
    result = results.Result(table=[["dtype", "checkpoints", "texts", "min cosine, together and alone", "where"]])
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "law.toml"
    file.write_text(config(list(folders)))
    for dtype, least in LEAST.items():
        flags = [flag for name, folder in folders.items() for flag in ("--model", f"{name}={folder}")]
        with Server(args, f"law-{dtype}", "--dtype", dtype, "--min-cosine", "0", "--config", str(file), *flags) as server:
            count, worst, where = 0, 1.0, "-"
            for name, folder in folders.items():
                cases = json.loads((folder / "reference.json").read_text())["cases"]
                texts = list(dict.fromkeys(case["text"] for case in cases if not case["prompt"] and not case.get("adapter")))
                together = server.embed(name, texts)
                for text, vector in zip(texts, together):
                    (alone,) = server.embed(name, [text])
                    count += 1
                    if cosine(vector, alone) < worst:
                        worst, where = cosine(vector, alone), f"{name}: {text[:30]!r}"
                if time.monotonic() > args.deadline:
                    raise TimeoutError(f"{name} was not reached in time")
        result.table.append([dtype, len(folders), count, f"{worst:.7f}", where])
        result.figures[dtype] = {"texts": count, "min_cosine": worst, "where": where}
        result.claim(f"{dtype}: cosine at least {least} between a text in a batch and alone", f"{worst:.7f}", worst >= least and count > 0)
    return result
