"""From source to library: what is cached, what makes it new, and every sentence when it cannot be done."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_cases import NARROWER_VECTORS

from sparsebench.case import NUMPY_DTYPES
from sparsebench.errors import MissingNeed, SparsebenchError
from sparsebench.lab import build
from sparsebench.lab.build import CpuToolchain, compiler_version, missing_need
from sparsebench.record import MISSING_NEED

pytestmark = pytest.mark.skipif(missing_need("cc") is not None, reason="needs a C compiler")

ASKED_FOR = os.environ.get("CC")  # before conftest.py has warnings made errors
SOURCE = "int answer(void) { return 42; }\n"


@pytest.fixture(autouse=True)
def _plain_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own: the sources here leave most of a header unused."""
    if ASKED_FOR is None:
        monkeypatch.delenv("CC", raising=False)
    else:
        monkeypatch.setenv("CC", ASKED_FOR)


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "body.c"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def libraries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.is_dir() else []


def answer_of(body: Path, cache: Path) -> int:
    """What a process without loaded libraries gets."""
    return CpuToolchain(cache=cache).c(body).answer()


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every body that is really compiled from here on."""
    made: list[Path] = []
    compiled = build._compiled

    def counted(body, *rest):
        made.append(body)
        return compiled(body, *rest)

    monkeypatch.setattr(build, "_compiled", counted)
    return made


def test_a_body_is_compiled_once_and_loaded_once(body, cache, compilations):
    toolchain = CpuToolchain(cache=cache)
    assert toolchain.c(body) is toolchain.c(body.parent / ".." / "source" / "body.c")
    assert answer_of(body, cache) == 42
    assert len(compilations) == 1
    (library,) = libraries(cache)
    assert library.name.startswith("source-body-")
    assert library.suffix == ".so"


def changed_source(body, monkeypatch):
    body.write_text(SOURCE.replace("42", "43"))


def changed_header(body, monkeypatch):
    (body.parent / "beside.h").write_text("// new\n")


def other_cpu(body, monkeypatch):
    monkeypatch.setattr(build, "cpu_features", lambda: "another machine")


def other_flags(body, monkeypatch):
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DNEW"))


def other_compiler(body, monkeypatch):
    wrapper = body.parent / "mycc"
    wrapper.write_text(f'#!/bin/sh\nexec {build.compiler()[0]} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CC", str(wrapper))


def other_version(body, monkeypatch):
    monkeypatch.setattr(build, "_version", lambda command: "cc 99.0")


CHANGES = (changed_source, changed_header, other_cpu, other_flags, other_compiler, other_version)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_decides_the_machine_code_makes_it_new(change, body, cache, compilations, monkeypatch):
    assert answer_of(body, cache) == 42
    change(body, monkeypatch)
    assert answer_of(body, cache) == (43 if change is changed_source else 42)
    assert len(compilations) == 2
    assert len(libraries(cache)) == 2


def test_a_shared_header_makes_it_new(body, cache, compilations, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "include_folder", lambda: tmp_path)
    (tmp_path / "number.h").write_text("#define NUMBER 1\n")
    body.write_text('#include "number.h"\nint answer(void) { return NUMBER; }\n')
    assert answer_of(body, cache) == 1
    (tmp_path / "number.h").write_text("#define NUMBER 2\n")
    assert answer_of(body, cache) == 2
    assert len(compilations) == 2


@pytest.mark.parametrize("keep_bytes", [0, 100, 5000])
def test_a_torn_library_is_built_again(keep_bytes, body, cache, compilations):
    assert answer_of(body, cache) == 42
    (library,) = libraries(cache)
    whole = library.read_bytes()
    library.unlink()  # this process has it mapped: writing into it would crash us instead of the test
    library.write_bytes(whole[:keep_bytes])
    assert answer_of(body, cache) == 42
    assert len(compilations) == 2
    assert libraries(cache)[0].read_bytes()[:keep_bytes] == whole[:keep_bytes]


def test_a_library_that_will_not_load_is_built_elsewhere(body, cache, compilations):
    command = build.compiler()
    cache.mkdir()
    text = cache / "text"
    text.write_text("not a library")
    name = f"source-body-{build._key(body, command, build.FLAGS)}"
    text.rename(cache / f"{name}-{build._content_hash(text)}.so")
    assert answer_of(body, cache) == 42
    assert len(compilations) == 1


def test_a_cache_that_cannot_be_written_is_done_without(body, tmp_path, compilations):
    (tmp_path / "file").write_text("in the way")
    assert answer_of(body, tmp_path / "file" / "bodies") == 42
    assert len(compilations) == 1


def test_nothing_is_left_behind_by_a_refused_body(body, cache):
    body.write_text("int answer(void) { return forty_two; }\n")
    with pytest.raises(SparsebenchError) as refused:
        CpuToolchain(cache=cache).c(body)
    assert str(refused.value).startswith("the C compiler refused body.c (exit 1); it said:\n")
    assert "forty_two" in str(refused.value)
    assert f"to see all of it, run: {build.compiler()[0]} -O3" in str(refused.value)
    assert libraries(cache) == []


def test_only_the_first_lines_of_a_long_complaint_are_shown(body, cache):
    body.write_text("".join(f"int f{i}(void) {{ return nothing{i}; }}\n" for i in range(50)))
    with pytest.raises(SparsebenchError) as refused:
        CpuToolchain(cache=cache).c(body)
    assert len(str(refused.value).splitlines()) == build.SHOWN_LINES + 2


def test_two_processes_may_build_the_same_body(body, cache):
    script = (
        "import sys; from pathlib import Path; from sparsebench.lab.build import CpuToolchain;"
        "print(CpuToolchain(cache=Path(sys.argv[1])).c(Path(sys.argv[2])).answer())"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(cache), str(body)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in both] == ["42", "42"]
    assert all(path.suffix == ".so" for path in libraries(cache))


def test_output_is_a_fresh_buffer_of_nan():
    toolchain = CpuToolchain(threads=2)
    first, second = toolchain.output((2, 3)), toolchain.output((2, 3))
    assert first.shape == (2, 3)
    assert first.dtype == np.float32
    assert np.isnan(first).all()
    assert not np.shares_memory(first, second)
    assert toolchain.output((2, 3), "bfloat16").dtype == NUMPY_DTYPES["bfloat16"]
    assert toolchain.threads == 2


# ------------------------------------------------------------------------------------------------------ the compiler


def test_the_default_cache_is_the_users():
    assert CpuToolchain().cache.parts[-2:] == ("sparsebench", "bodies")


def test_version_is_one_line():
    version = compiler_version()
    assert version
    assert "\n" not in version


def test_cc_may_carry_options(body, cache, monkeypatch):
    body.write_text("int answer(void) { return FROM_CC; }\n")
    monkeypatch.setenv("CC", f"{build.compiler()[0]} -DFROM_CC=7")
    assert answer_of(body, cache) == 7


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


INSTALL = "install gcc (Debian/Ubuntu: apt install gcc; macOS: xcode-select --install)"


def test_without_a_compiler_the_need_says_what_to_install(no_compiler, body, cache):
    sentence = f"needs a C compiler (none of cc, gcc, clang was found): {INSTALL}"
    assert missing_need("cc") == sentence
    assert compiler_version() is None
    with pytest.raises(MissingNeed) as missing:
        CpuToolchain(cache=cache).c(body)
    assert str(missing.value) == sentence
    assert sentence.startswith(MISSING_NEED)


@pytest.mark.parametrize("exists", [False, True])
def test_a_cc_that_does_not_run_is_named(exists, monkeypatch, tmp_path):
    asked = tmp_path / "broken-cc"
    if exists:  # as macOS has it before its tools are installed
        asked.write_text("#!/bin/sh\nexit 1\n")
        asked.chmod(0o755)
    monkeypatch.setenv("CC", str(asked))
    assert missing_need("cc") == f"needs a C compiler ($CC = {str(asked)!r}, which does not run): {INSTALL}"


def test_needs_that_are_met_and_not(monkeypatch):
    assert missing_need("cc") is None
    assert missing_need("numpy") is None
    sentence = missing_need("no_such_module")
    assert sentence == "needs the Python module no_such_module, which is not installed: pip install no_such_module"
    assert missing_need("no_such.module").startswith(MISSING_NEED)
    monkeypatch.setitem(sys.modules, "half_loaded", None)
    assert missing_need("half_loaded") is not None


def test_without_proc_the_platform_stands_in(monkeypatch):
    def missing(self, **how):
        raise FileNotFoundError

    build.cpu_features.cache_clear()
    monkeypatch.setattr(Path, "read_text", missing)
    try:
        assert build.cpu_features().startswith(build.platform.machine())
    finally:
        build.cpu_features.cache_clear()


# ------------------------------------------------------------------------------------------------ include/vector.h

VECTOR_TEST = """
#include "strips.h"
void copy(int count, const float* from, float* to) { store_some(to, load_some(from, count), count); }
int lanes(void) { return LANES; }
int64_t strips(int64_t n, int64_t widest, int64_t* first, int64_t* columns)
{
    float x[1];
    Product p = {.n = n, .widest = widest, .x = x, .y = x};
    for (int64_t s = 0; s < strips_of(&p); ++s) {
        Columns strip = columns_of(&p, s);
        first[s] = strip.x - x;
        columns[s] = (strip.vectors - 1) * LANES + strip.last;
        if (strip.vectors > widest || strip.y - x != first[s]) return -1;
    }
    return strips_of(&p);
}
void packed(int64_t k, int64_t n, const float* x, float* slab)
{
    Product p = {.n = n, .widest = WIDEST, .x = x};
    pack(columns_of(&p, 0), 0, k, slab);
}
"""


@pytest.fixture(params=NARROWER_VECTORS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's vectors and the narrower ones that other machines have."""
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, *NARROWER_VECTORS[request.param]))


@pytest.mark.usefixtures("isa")
def test_vectors_of_every_width(body, cache):
    body.write_text(VECTOR_TEST)
    library = CpuToolchain(cache=cache).c(body)
    lanes = library.lanes()
    x = np.arange(1, lanes + 1, dtype=np.float32)
    pointer = ctypes.c_void_p(x.ctypes.data)
    for count in range(1, lanes + 1):
        y = np.full(lanes, -1, np.float32)
        library.copy(count, pointer, ctypes.c_void_p(y.ctypes.data))
        assert y.tolist() == [*x[:count], *[-1] * (lanes - count)]


@pytest.mark.usefixtures("isa")
def test_strips_cover_every_column_once(body, cache):
    body.write_text(VECTOR_TEST)
    library = CpuToolchain(cache=cache).c(body)
    first, columns = (np.zeros(200, np.int64) for _ in range(2))
    for widest in (1, 2, 3, 4):
        for n in (*range(1, 70), 127, 128, 129, 200):
            pointers = [ctypes.c_void_p(array.ctypes.data) for array in (first, columns)]
            strips = library.strips(ctypes.c_int64(n), ctypes.c_int64(widest), *pointers)
            assert first[0] == 0
            assert (np.cumsum(columns[:strips]) == [*first[1:strips], n]).all()
            assert np.ptp(-(-columns[:strips] // library.lanes())) <= 1


@pytest.mark.usefixtures("isa")
def test_a_slab_is_whole_vectors_with_zeros_at_the_end(body, cache):
    body.write_text(VECTOR_TEST)
    library = CpuToolchain(cache=cache).c(body)
    lanes = library.lanes()
    for n in (1, lanes - 1, lanes, 2 * lanes + 3, 4 * lanes):
        x = np.arange(1, 5 * n + 1, dtype=np.float32).reshape(5, n)
        slab = np.full((5, -(-n // lanes) * lanes), -1, np.float32)
        sizes = (ctypes.c_int64(5), ctypes.c_int64(n))
        library.packed(*sizes, *(ctypes.c_void_p(array.ctypes.data) for array in (x, slab)))
        assert (slab[:, :n] == x).all()
        assert (slab[:, n:] == 0).all()
