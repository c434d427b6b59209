"""From a body's text to a library: g++, and a cache that several processes may share.

A file is named after all that decides its content, written under a temporary name and renamed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from sparsebench.errors import SparsebenchError
from sparsebench.lab.build import NATIVE, cpu_features

HERE = Path(__file__).parent
RUNTIME = ("switch.cpp", "block.cpp", "watch.cpp", "copies.cpp", "memory.cpp", "faults.cpp", "launch.cpp")
COMMON = ("-std=c++20", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-g1")
TLS = ("-mtls-dialect=gnu2",) if NATIVE == "-march=native" else ()  # the default on AArch64
RUNTIME_FLAGS = (*COMMON, "-O2", "-fvisibility=default", *TLS)
# What a GPU would get wrong in silence stops here: misaligned vectors, steps out of an array, shifts by 32, overflow.
CHECKS = "alignment,bounds,object-size,shift,signed-integer-overflow,integer-divide-by-zero,return,unreachable"
# CUDA code looks at one piece of memory as several types; an uninitialised register holds no zero by luck.
BODY_FLAGS = (
    *(*COMMON, "-O1", NATIVE, "-ffp-contract=off", "-fno-strict-aliasing", "-ftrivial-auto-var-init=pattern"),
    *(f"-fsanitize={CHECKS}", "-fsanitize-undefined-trap-on-error", *TLS),
    *("-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"),  # the calls that watch.cpp answers
    *("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-fno-gnu-unique"),
    *("-Wno-unknown-pragmas", "-Wno-unused-parameter", "-Wno-unused-variable", "-Wno-unused-function"),
    *("-Wno-unused-but-set-variable", "-Wno-unused-but-set-parameter", "-Wno-unused-local-typedefs"),
)


@lru_cache
def compiler() -> tuple[str, str]:
    """Path and version of g++; SparsebenchError without one."""
    path = shutil.which(os.environ.get("CXX", "g++"))
    if path is None:
        raise SparsebenchError("running CUDA bodies on the CPU needs g++: install it (Debian/Ubuntu: apt install g++)")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    return path, done.stdout.splitlines()[0]


def runtime(cache: Path) -> Path:
    """The library with fibers, barriers and launches."""
    texts = [path.read_text() for path in sorted(HERE.glob("*.[ch]*")) if path.suffix in (".h", ".cpp")]
    together = "".join(f'#include "{name}"\n' for name in RUNTIME)  # one unit: their headers are read once
    return _built(cache, "runtime", (*RUNTIME_FLAGS, f"-I{HERE}"), texts, ["-x", "c++", "-"], together)


def body_library(cache: Path, name: str, text: str) -> Path:
    """The library of one function of one body; `text` is the whole translation unit without the shim's own headers."""
    base = runtime(cache)
    # Without the default libraries the sanitizer's own is left out, which would want to own the process.
    arguments = ["-x", "c++", "-", "-x", "none", str(base), "-nodefaultlibs", "-lm", "-lc"]
    flags = (*BODY_FLAGS, f"-I{HERE}", f"-Wl,-rpath,{base.parent}")
    return _built(cache, name, flags, [text, base.name], arguments, text)


def _built(
    cache: Path, name: str, flags: Sequence[str], keys: Sequence[str], arguments: Sequence[str], text: str
) -> Path:
    about = [*compiler(), *flags, cpu_features(), *keys]
    key = hashlib.sha256("\0".join(about).encode()).hexdigest()[:20]
    library = cache / f"{name}-{key}.so"
    if library.is_file():
        return library
    cache.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{name}-", suffix=".tmp", dir=cache)
    os.close(handle)
    command = [compiler()[0], *flags, *arguments, "-o", temporary, f"-Wl,-soname,{library.name}"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        Path(temporary).unlink(missing_ok=True)
        said = "\n".join(done.stderr.strip().splitlines()[:30])
        raise SparsebenchError(f"g++ refused {name} (exit {done.returncode}); it said:\n{said}")
    Path(temporary).replace(library)
    return library
