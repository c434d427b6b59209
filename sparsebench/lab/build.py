"""From a C source to a loaded library: the machine's own compiler, and a cache of what it made.

The cache is keyed by all that decides the machine code: the source and its headers, the compiler and its version, the
flags, and the processor's model and instruction sets, because -march=native means another thing on another machine and
a home folder may be shared by many. A library is written under a temporary name and renamed, so a reader never sees
half of one; its file name carries the hash of its content, because loading a torn one may kill the process (SIGBUS)
instead of failing.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

# platformdirs: each system has its own place for caches.
import platformdirs

from sparsebench.case import NUMPY_DTYPES
from sparsebench.errors import MissingNeed, SparsebenchError

COMPILERS = ("cc", "gcc", "clang")
INSTALL_COMPILER = "install gcc (Debian/Ubuntu: apt install gcc; macOS: xcode-select --install)"
# x86 compilers say -march=native, those for ARM and POWER -mcpu=native.
NATIVE = "-march=native" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
# The contraction to FMA is off in -std=c11 unless asked for; errno keeps sqrtf and its like from being one instruction.
FLAGS = ("-O3", NATIVE, "-std=c11", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=fast")
THREADED = ("-fopenmp",)  # where more than one thread is asked for: the library then needs an OpenMP runtime
SHOWN_LINES = 12  # of the compiler's complaint
CPUINFO = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # lines of /proc/cpuinfo on x86 and ARM


class CpuToolchain:
    """What a CPU face builds its body with (kernel.Toolchain): each body is compiled once a machine."""

    def __init__(self, threads: int = 1, cache: Path | None = None) -> None:
        self.threads = threads
        self.cache = cache or platformdirs.user_cache_path("sparsebench") / "bodies"
        self._loaded: dict[tuple[Path, tuple[str, ...]], ctypes.CDLL] = {}

    def c(self, body: Path, **macros: int) -> ctypes.CDLL:
        """The C source `body` compiled for this machine, these macros defined, and loaded.

        MissingNeed without a compiler; SparsebenchError with the compiler's own words when it refuses the source.
        """
        key = body.resolve(), defined(macros)
        if key not in self._loaded:
            self._loaded[key] = self._load(*key)
        return self._loaded[key]

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """A fresh buffer of this shape, filled with NaN so that an entry never written shows."""
        return np.full(shape, np.nan, NUMPY_DTYPES[dtype])

    def _load(self, body: Path, definitions: tuple[str, ...]) -> ctypes.CDLL:
        command = compiler()
        flags = (*FLAGS, *(THREADED if self.threads > 1 else ()), *definitions)
        name = f"{body.parent.name}-{body.stem}-{_key(body, command, flags)}"
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            kept = next(_intact(self.cache, name), None)
            return ctypes.CDLL(str(kept or _compiled(body, command, flags, self.cache, name)))
        except OSError:
            # The cache cannot be written, or nothing in it loads (a noexec mount). A loaded library outlives its file.
            with tempfile.TemporaryDirectory(prefix="sparsebench-") as folder:
                return ctypes.CDLL(str(_compiled(body, command, flags, Path(folder), name)))


def defined(macros: Mapping[str, int]) -> tuple[str, ...]:
    """Compiler flags that define `macros`.

    >>> defined({"LANES": 4})
    ('-DLANES=4',)
    """
    return tuple(f"-D{name}={value}" for name, value in sorted(macros.items()))


def compiler() -> tuple[str, ...]:
    """The machine's C compiler as a command line: $CC, else cc, gcc or clang; MissingNeed when none runs."""
    asked = os.environ.get("CC", "").strip()
    for command in [shlex.split(asked)] if asked else [[name] for name in COMPILERS]:
        path = shutil.which(command[0])
        if path and _version((path, *command[1:])):
            return (path, *command[1:])
    looked_for = f"$CC = {asked!r}, which does not run" if asked else f"none of {', '.join(COMPILERS)} was found"
    raise MissingNeed(f"needs a C compiler ({looked_for}): {INSTALL_COMPILER}")


def compiler_version() -> str | None:
    """First line of the compiler's --version, or None without a compiler."""
    try:
        return _version(compiler())
    except MissingNeed:
        return None


@lru_cache
def _version(command: tuple[str, ...]) -> str | None:
    """First line of `command --version`, or None when it fails: macOS keeps a cc that only says what to install."""
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace", check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def missing_need(need: str) -> str | None:
    """What is missing for `need` ("cc", or the name of a module) and what to install, or None when it is there."""
    if need == "cc":
        try:
            compiler()
        except MissingNeed as missing:
            return str(missing)
        return None
    try:
        found = importlib.util.find_spec(need) is not None
    except (ImportError, ValueError):
        found = False
    return None if found else f"needs the Python module {need}, which is not installed: pip install {need}"


def include_folder() -> Path:
    """Where the headers of all bodies are."""
    return Path(str(files("sparsebench.kernels"))) / "include"


@lru_cache
def cpu_features() -> str:
    """Model and instruction sets of this processor, as the system names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    about = [line for line in lines if line.partition(":")[0].strip() in CPUINFO]
    return "\n".join(dict.fromkeys(about)) or platform.machine()


def _key(body: Path, command: Sequence[str], flags: Sequence[str]) -> str:
    """Hash of all that decides the machine code of `body`: 24 hex digits."""
    headers = sorted([*include_folder().glob("*.h"), *body.parent.glob("*.h")])
    about = [*command, _version(tuple(command)), *flags, cpu_features()]
    parts = [repr(about).encode(), *(path.read_bytes() for path in (body, *headers))]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:24]


def _content_hash(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()[:16]


def _intact(folder: Path, name: str) -> Iterator[Path]:
    """Libraries called `name` whose content is what their file name says."""
    return (path for path in sorted(folder.glob(f"{name}-*.so")) if path.stem == f"{name}-{_content_hash(path)}")


def _compiled(body: Path, command: Sequence[str], flags: Sequence[str], folder: Path, name: str) -> Path:
    """Compile `body` into `folder`; SparsebenchError when the compiler refuses it."""
    handle, temporary = tempfile.mkstemp(prefix=f".{name}-", suffix=".tmp", dir=folder)
    os.close(handle)
    try:
        asked = [*command, *flags, "-I", str(include_folder()), str(body), "-o", temporary, "-lm"]
        done = subprocess.run(asked, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            said = "\n".join(done.stderr.strip().splitlines()[:SHOWN_LINES])
            raise SparsebenchError(
                f"the C compiler refused {body.name} (exit {done.returncode}); it said:\n{said}\n"
                f"to see all of it, run: {shlex.join(asked)}"
            )
        library = folder / f"{name}-{_content_hash(Path(temporary))}.so"
        Path(temporary).replace(library)
        return library
    finally:
        Path(temporary).unlink(missing_ok=True)
