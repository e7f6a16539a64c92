"""all-MiniLM-L6-v2 with real weights (rounded to f16 for the journey, words that no golden text has left out) against the vectors that its f32 weights gave."""

from . import checkpoints, place, results
from .parity import verify

LEAST = {"f32": 0.99999, "bf16": 0.9999, "f16": 0.9999}


def run(args) -> results.Result:
    checkpoints.ensure()
    result = results.Result(table=[["dtype", "texts", "min cosine", "mean cosine", "max abs error"]])
    for dtype, least in LEAST.items():
        report = verify(args, place.MINILM, dtype)
        result.figures[dtype] = {**report, "lines": []}
        if "error" in report:
            result.claim(f"{dtype}: computed", report["error"], False)
            continue
        cells = [f"{report['min_cosine']:.7f}", f"{report['mean_cosine']:.7f}", f"{report['max_abs']:.1e}"]
        result.table.append([dtype, report["texts"], *cells])
        # On a processor bf16 is known to miss, and auto does not take it there; the claim is about the GPU.
        counts = args.cuda or dtype != "bf16"
        held = report["min_cosine"] >= least and not report["token_mismatches"] if counts else None
        result.claim(f"{dtype}: cosine at least {least} to sentence-transformers in f32", f"{report['min_cosine']:.7f}", held)
    return result
