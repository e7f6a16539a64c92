"""Every kernel against plain f32 operations on random input: the unit tests of src/kernels/device, in a program built for the GPU."""

import re
import subprocess

from . import place, results


def run(args) -> results.Result:
    result = results.Result()
    if not args.cuda:
        # Built without CUDA, or run where it is absent, the kernels themselves have nothing to run on.
        result.claim("every kernel equals plain f32", "needs a GPU", None)
        return result
    command = [str(place.kernels()), "kernels::device", "--include-ignored", "--test-threads", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=470)
    tests = re.findall(r"^test (\S+) \.\.\. (\w+)", done.stdout, re.MULTILINE)
    failures = re.findall(r"^---- (\S+) stdout ----\n(.*?)(?=\n---- |\nfailures:)", done.stdout, re.MULTILINE | re.DOTALL)
    failed = dict(failures)
    result.table = [["test", "result"], *[[name, outcome if name not in failed else failed[name].strip()[:200]] for name, outcome in tests]]
    result.figures = {"exit_code": done.returncode, "tests": dict(tests), "failures": failed}
    good = sum(outcome == "ok" for _, outcome in tests)
    result.claim("every kernel equals plain f32", f"{good} of {len(tests)} tests", done.returncode == 0 and good == len(tests) > 0)
    if not tests:
        print(done.stdout[-2000:], done.stderr[-2000:])
    return result
