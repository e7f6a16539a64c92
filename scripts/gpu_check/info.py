"""The machine, and the ceilings that everything else is compared with, measured by torch on random numbers."""

import time

from . import results


def run(args) -> results.Result:
    import sentence_transformers
    import torch
    import transformers

    told = results.machine()
    packages = {module.__name__: module.__version__ for module in (torch, transformers, sentence_transformers)}
    result = results.Result(figures={**told, "packages": packages, "torch_sees_cuda": torch.cuda.is_available()})
    result.table = [["what", "figure"], *[[key, value] for key, value in {**told, **packages}.items()]]
    if not args.cuda:
        result.claim("peak of bf16 matrix products", "needs a GPU", None)
        result.claim("peak of memory copies", "needs a GPU", None)
        return result
    result.figures["bf16_tflops"] = products(torch)
    result.figures["copy_tb_per_s"] = copies(torch)
    result.claim("peak of bf16 matrix products", f"{result.figures['bf16_tflops']:.0f} TFLOP/s", True)
    result.claim("peak of memory copies", f"{result.figures['copy_tb_per_s']:.2f} TB/s, read and written", True)
    return result


def timed(torch, call, times: int) -> float:
    """Seconds of one call, the best of five runs."""
    call()
    torch.cuda.synchronize()
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(times):
            call()
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / times)
    return best


def products(torch) -> float:
    """TFLOP/s of [n, n] x [n, n] in bf16; random numbers, for zeros draw less power and run faster."""
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / timed(torch, lambda: a @ b, 20) / 1e12


def copies(torch) -> float:
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / timed(torch, lambda: target.copy_(source), 20) / 1e12
