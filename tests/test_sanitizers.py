"""Every own C body under the address and undefined-behaviour sanitizers, on listed problems and on drawn ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from guarded import EVERY

from sparsebench.lab import build
from sparsebench.lab.build import missing_need

GUARDED = Path(__file__).with_name("guarded.py")
SANITIZED = (
    "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
    # Checks as calls, and a trap instead of a message where behaviour is undefined: half the time to compile.
    " --param asan-instrumentation-with-call-threshold=0 -fsanitize-undefined-trap-on-error"
)
FAULTY = """
int read(int* a, int n) { return a[n]; }
int main(int count, char** words)
{
    int a[1] = {count};
    (void)words;
    return read(a, count);
}
"""


def library(name: str) -> str | None:
    """Path of one of the compiler's own libraries, or None where it has none."""
    done = subprocess.run([*build.compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=False)
    path = done.stdout.strip()
    return path if done.returncode == 0 and Path(path).is_absolute() else None


ASAN = None if missing_need("cc") else library("libasan.so")
needs_asan = pytest.mark.skipif(ASAN is None, reason="the C compiler has no address sanitizer")


@needs_asan
def test_the_sanitizer_sees_a_step_beyond_an_array(tmp_path):
    (tmp_path / "faulty.c").write_text(FAULTY)
    command = [*build.compiler(), *SANITIZED.split(), str(tmp_path / "faulty.c"), "-o", str(tmp_path / "faulty")]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "faulty"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "load of address" in done.stderr or "stack-buffer-overflow" in done.stderr


@needs_asan
@pytest.mark.slow
def test_bodies_are_clean(tmp_path):
    assert ASAN is not None
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LD_PRELOAD": ASAN, "ASAN_OPTIONS": "detect_leaks=0"}
    environment["CC"] = f"{' '.join(build.compiler())} {SANITIZED}"
    command = [sys.executable, str(GUARDED), "heap", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"in {done.stdout.splitlines()[-1:]}:\n{done.stderr[-3000:]}"
    assert {tuple(line.split()[:2]) for line in done.stdout.splitlines()} == EVERY
