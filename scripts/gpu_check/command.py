"""The command line: which steps run, with what, and where their results go."""

import argparse
import importlib
import pathlib
import signal
import sys
import time
import traceback

from . import place, results

# In the order of `all`: proof first, so that a short visit shows at least that.
STEPS = {
    "info": "what this machine is, and its ceilings: bf16 matrix products and memory copies, measured by torch",
    "ops": "every kernel against plain f32 operations on random input, then whole networks (tests/it/kernels)",
    "parity": "every small checkpoint of tests/it/tiny against its reference vectors, in f32, bf16 and f16",
    "law": "a batch equals its texts alone, for every small checkpoint, through the server",
    "minilm": "all-MiniLM-L6-v2 with its real weights against its golden vectors",
    "speed-minilm": "server, sentence-transformers and plain torch on the same weights: MiniLM's shape",
    "speed-bert-base": "the same for BERT-base",
    "speed-bert-large": "the same for BERT-large",
    "speed-modernbert-base": "the same for ModernBERT-base",
    "speed-qwen3-0.6b": "the same for Qwen3-0.6B",
    "leak": "constant load for 7 minutes: memory of process and GPU stay where they are",
    "report": "one table of all results so far",
}
# Seconds: a step that takes longer is a failure, so that a visit can be planned.
LIMIT = 480


def main(about: str) -> None:
    args = arguments(about)
    if args.steps[0] == "pack":
        from . import pack

        if len(args.steps) != 2:
            sys.exit("usage: scripts/gpu-check pack OUT_DIR")
        return pack.pack(pathlib.Path(args.steps[1]))
    steps = list(STEPS) if args.steps == ["all"] else args.steps
    unknown = [step for step in steps if step not in STEPS]
    if unknown:
        sys.exit(f"gpu-check: no step {unknown[0]!r}; there are {', '.join(STEPS)}, all and pack")
    place.find_cuda_libraries()
    failed = [step for step in steps if not run(step, args)]
    if failed:
        sys.exit(f"gpu-check: failed: {', '.join(failed)}")


def arguments(about: str) -> argparse.Namespace:
    steps = "\n".join(f"  {name:<22} {what}" for name, what in STEPS.items())
    parser = argparse.ArgumentParser(description=about, epilog=f"steps:\n{steps}", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", metavar="STEP")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--small", action="store_true", help="small shapes and short times: a rehearsal, whose figures mean nothing")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-check-results"), help="folder for the results")
    parser.add_argument("--seconds", type=float, default=5, help="length of one measurement")
    args = parser.parse_args()
    args.cuda = args.device.startswith("cuda")
    args.seconds = min(args.seconds, 1.5) if args.small else args.seconds
    return args


def too_long(*_) -> None:
    raise TimeoutError("the step took longer than it may")


def run(step: str, args: argparse.Namespace) -> bool:
    """One step: its module's `run` gives rows and figures, or raises."""
    module, _, shape = step.partition("-")
    print(f"\n=== {step}: {STEPS[step]}", flush=True)
    started = time.monotonic()
    args.deadline = started + LIMIT
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT)
    try:
        result = importlib.import_module(f"gpu_check.{module}").run(args, *([shape] if shape else []))
    except Exception as failure:  # One step's failure must not cost the visit the others.
        traceback.print_exc()
        result = results.Result(claims=[results.Claim("the step ran to its end", f"{type(failure).__name__}: {failure}"[:300], False)])
    finally:
        signal.alarm(0)
    took = time.monotonic() - started
    result.claim("within 8 minutes", f"{took:.0f} s", took <= LIMIT)
    results.write(args, step, result, took)
    return result.held()
