"""Makes static stand-ins for the CUDA libraries, so that one binary starts with and without CUDA: `stand_ins.py CUDARC_SOURCE OUT_DIR`.

Candle links its programs to libcuda, cuBLAS, cuRAND and NVRTC, and such a program ends before `main` where one of them is absent. A stand-in has a
function for every one that cudarc declares. It jumps through a slot; the slot first holds code that looks the real function up in the real
library (bind.c), and from then on that function itself. Where library or function are absent, the answer is an error code that says so.

x86-64 Linux with glibc. Needs cc and ar. Arguments are passed on untouched, however many: only the registers that a lookup may spoil are saved.
"""

import pathlib
import re
import subprocess
import sys
from typing import NamedTuple


class Library(NamedTuple):
    name: str
    # Module of cudarc that declares it.
    module: str
    soname: str
    # What its functions return where it is absent: a status of its own list.
    absent: int


LIBRARIES = [
    Library("cuda", "driver", "libcuda.so.1", 34),  # CUDA_ERROR_STUB_LIBRARY
    Library("cublas", "cublas", "libcublas.so.13", 1),  # CUBLAS_STATUS_NOT_INITIALIZED
    Library("cublasLt", "cublaslt", "libcublasLt.so.13", 1),
    Library("curand", "curand", "libcurand.so.10", 203),  # CURAND_STATUS_INITIALIZATION_FAILED
    Library("nvrtc", "nvrtc", "libnvrtc.so.13", 7),  # NVRTC_ERROR_BUILTIN_OPERATION_FAILURE
]

HEAD = """
    .text
bind:
    /* On the stack: the function's number, then the caller's return address. */
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %r8
    push %r9
    push %rax
    sub $136, %rsp
    {save}
    mov 192(%rsp), %rdi
    call {resolve}
    mov %rax, %r11
    {restore}
    add $136, %rsp
    pop %rax
    pop %r9
    pop %r8
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $8, %rsp
    jmp *%r11
"""

FUNCTION = """
    .globl {function}
    .type {function}, @function
{function}:
    endbr64
    mov {slots}+{offset}(%rip), %r11
    jmp *%r11
first_{index}:
    endbr64
    push ${index}
    jmp bind
"""


def declared(source: str) -> dict[str, str]:
    """The functions that a module of cudarc declares, with what they return ('' = nothing)."""
    blocks = re.findall(r'extern "C" \{(.*?)\n\s*\}', source, re.S)
    found = {}
    for block in blocks:
        for name, returns in re.findall(r"\bfn (\w+)\s*\(.*?\)\s*(?:->\s*([^;]+))?;", block, re.S):
            found[name] = returns.strip()
    return found


def assembly(library: Library, functions: dict[str, str]) -> str:
    slots, names, texts, resolve = symbols(library)
    registers = range(8)
    save = "\n    ".join(f"movups %xmm{i}, {16 * i}(%rsp)" for i in registers)
    restore = "\n    ".join(f"movups {16 * i}(%rsp), %xmm{i}" for i in registers)
    out = [HEAD.format(save=save, restore=restore, resolve=resolve)]
    for index, function in enumerate(functions):
        out.append(FUNCTION.format(function=function, index=index, slots=slots, offset=8 * index))

    def table(section: str, name: str, lines: list[str]) -> None:
        out.append(f"    .section {section}\n    .balign 8\n    .globl {name}\n    .hidden {name}\n{name}:\n" + "\n".join(lines))

    count = range(len(functions))
    table(".data.rel", slots, [f"    .quad first_{index}" for index in count])
    table(".data.rel.ro", names, [f"    .quad name_{index}" for index in count])
    table(".rodata", texts, [f"    .byte {int('c_char' in returns)}" for returns in functions.values()])
    out.append("\n".join(f'name_{index}: .asciz "{function}"' for index, function in enumerate(functions)))
    out.append("    .section .note.GNU-stack,\"\",@progbits\n")
    return "\n".join(out)


def symbols(library: Library) -> tuple[str, str, str, str]:
    return tuple(f"vecmill_{library.name}_{part}" for part in ("slots", "names", "texts", "resolve"))


def make(library: Library, cudarc: pathlib.Path, out: pathlib.Path) -> None:
    functions = declared((cudarc / "src" / library.module / "sys" / "mod.rs").read_text())
    if not functions:
        sys.exit(f"stand_ins.py: no declarations of {library.name} found in {cudarc}; its bindings have another form now")
    source = out / f"stand_in_{library.name}.s"
    source.write_text(assembly(library, functions))
    objects = [source.with_suffix(".o"), source.with_suffix(".bind.o")]
    given = dict(zip(("SLOTS", "NAMES", "TEXTS", "RESOLVE"), symbols(library)), ABSENT=library.absent, SONAME=f'"{library.soname}"')
    bind = pathlib.Path(__file__).with_name("bind.c")
    subprocess.run(["cc", "-c", str(source), "-o", str(objects[0])], check=True)
    flags = [f"-D{name}={value}" for name, value in given.items()]
    subprocess.run(["cc", "-O2", "-fPIC", "-Wall", "-Werror", *flags, "-c", str(bind), "-o", str(objects[1])], check=True)
    archive = out / f"lib{library.name}.a"
    archive.unlink(missing_ok=True)
    subprocess.run(["ar", "rcs", str(archive), *map(str, objects)], check=True)
    for file in (source, *objects):
        file.unlink()
    print(f"{archive.name}: {len(functions)} functions")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: stand_ins.py CUDARC_SOURCE OUT_DIR")
    cudarc, out = map(pathlib.Path, sys.argv[1:])
    for library in LIBRARIES:
        make(library, cudarc, out)


if __name__ == "__main__":
    main()
