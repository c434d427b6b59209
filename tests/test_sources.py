"""Masks and weights from files: one set of laws for every kind of file, and every way in which a file can be wrong."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from sparsebench import sources
from sparsebench.errors import MatrixError
from sparsebench.lab import pth
from sparsebench.sources import TensorInfo

Arrays = Mapping[str, np.ndarray]
DATA = Path(__file__).parent / "data"


def save_pth(arrays: Arrays, path: Path) -> None:
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)


def save_old_pth(arrays: Arrays, path: Path) -> None:
    """The form before torch 1.6, which is no zip archive."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


WRITERS: Mapping[str, Callable[[Arrays, Path], None]] = {
    "npz": lambda arrays, path: np.savez(path, **arrays),  # type: ignore[arg-type]
    "compressed.npz": lambda arrays, path: np.savez_compressed(path, **arrays),  # type: ignore[arg-type]
    "safetensors": lambda arrays, path: save_file(dict(arrays), path),
    "pth": save_pth,
    "old.pt": save_old_pth,
}


def model() -> dict[str, np.ndarray]:
    """A small network's tensors: a convolution, a linear layer with zeros, a mask, and what is no layer."""
    rng = np.random.default_rng(0)
    linear = rng.standard_normal((3, 5)).astype(np.float32)
    linear[1, 2:] = 0
    return {
        "conv.weight": rng.standard_normal((4, 2, 3, 3)).astype(np.float32),
        "conv.bias": np.ones(4, np.float32),
        "head.weight": linear,
        "half": np.array([[1.5, 0], [-2, 4]], np.float16),
        "double": np.array([[1.5, 0, 3]], np.float64),
        "keep": rng.random((3, 5)) < 0.5,
        "ids": np.arange(6).reshape(2, 3),
        "cube": np.ones((2, 2, 2), np.float32),
        "empty": np.ones((0, 4), np.float32),
        "one": np.ones((), np.float32),
    }


@pytest.fixture(params=WRITERS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    path, arrays = tmp_path / f"model.{request.param}", model()
    WRITERS[request.param](arrays, path)
    return path, arrays


def test_every_kind_of_file_lists_the_same_matrices(saved: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, _ = saved
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = {
        TensorInfo("conv.weight", 4, 18, "weights", sha256, (4, 2, 3, 3)),
        TensorInfo("head.weight", 3, 5, "weights", sha256),
        TensorInfo("half", 2, 2, "weights", sha256),
        TensorInfo("double", 1, 3, "weights", sha256),
        TensorInfo("keep", 3, 5, "mask", sha256),
    }
    listed = pth.inspect(path)
    assert len(listed) == len(expected)
    assert set(listed) == expected
    assert {info.name for info in pth.inspect(path, "*.weight")} == {"conv.weight", "head.weight"}
    assert pth.inspect(path, "nothing*") == []


def test_every_kind_of_file_gives_the_same_values(saved: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, arrays = saved
    for name in ("conv.weight", "head.weight", "half", "double"):
        data, expected = pth.load(path, name), arrays[name].reshape(len(arrays[name]), -1).astype(np.float32)
        assert data.weights is not None
        assert data.mask is not None
        assert data.weights.dtype == np.float32
        assert data.weights.flags.c_contiguous
        assert np.array_equal(data.weights, expected)
        assert np.array_equal(data.mask, expected != 0)
    mask = pth.load(path, "keep")
    assert mask.weights is None
    assert mask.mask is not None
    assert np.array_equal(mask.mask, arrays["keep"])


def test_a_tensor_that_is_no_matrix_or_not_there_is_named(saved: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, _ = saved
    for name in ("conv.bias", "ids", "cube", "empty", "one"):
        with pytest.raises(MatrixError, match=rf"tensor '{name}' is no matrix of floats or booleans, its shape is \("):
            pth.load(path, name)
    with pytest.raises(MatrixError, match=r"has no tensor 'tail'; it has .*head\.weight"):
        pth.load(path, "tail")
    with pytest.raises(MatrixError, match="has no tensor None; it has"):
        pth.load(path)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(("value", "dtype"), [(np.nan, np.float32), (-np.inf, np.float16), (1e200, np.float64)])
def test_weights_that_are_not_finite_are_refused(kind: str, value: float, dtype: type, tmp_path: Path) -> None:
    path = tmp_path / f"bad.{kind}"
    weights: np.ndarray = np.ones((2, 3, 1, 2), dtype)
    weights[1, 2, 0, 1] = value
    WRITERS[kind]({"fine": np.ones((2, 2), np.float32), "layer": weights}, path)
    message = re.escape(
        f"{path}: tensor 'layer' is {dtype(value)} at (1, 2, 0, 1), not a finite float32; mend the file"
    )
    with pytest.raises(MatrixError, match=message):
        pth.inspect(path)
    with pytest.raises(MatrixError, match=message):
        pth.load(path, "layer")
    assert [info.name for info in pth.inspect(path, "fine")] == ["fine"]


@pytest.mark.parametrize("kind", ["smtx", "mtx", "sparse.npz", *WRITERS])
def test_a_file_that_is_cut_off_or_missing_is_a_sentence(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{kind}"
    with pytest.raises(MatrixError, match=rf"{re.escape(str(path))}.* cannot be read: No such file or directory"):
        pth.inspect(path)
    whole = tmp_path / f"whole.{kind}"
    if kind == "smtx":
        whole.write_bytes((DATA / "small.smtx").read_bytes())
    elif kind == "mtx":
        whole.write_text("%%MatrixMarket matrix coordinate real general\n2 3 2\n1 1 0.5\n2 3 1e-5\n")
    elif kind == "sparse.npz":
        scipy.sparse.save_npz(whole, scipy.sparse.eye_array(4, format="csr"))
    else:
        WRITERS[kind](model(), whole)
    for size in (0, 3, whole.stat().st_size // 2, whole.stat().st_size - 3):
        path.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(MatrixError, match=re.escape(str(path))):
            pth.inspect(path)


def inspected(path: Path) -> list[TensorInfo] | str:
    """What the file holds, or the sentence that says why it cannot be read; any other exception fails the test."""
    try:
        return pth.inspect(path)
    except MatrixError as error:
        return str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("kind", WRITERS)
@given(data=st.data())
def test_changed_bytes_give_matrices_or_a_sentence(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    whole, path = tmp_path / f"whole.{kind}", tmp_path / f"changed.{kind}"
    if not whole.exists():
        WRITERS[kind]({"w": np.ones((2, 3), np.float32), "m": np.ones((2, 2), bool)}, whole)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    listed = inspected(path)
    assert str(path) in listed if isinstance(listed, str) else all(info.m > 0 and info.k > 0 for info in listed)


def test_smtx_is_read_like_the_others() -> None:
    (info,) = sources.inspect(DATA / "uneven.smtx")
    assert (info.name, info.m, info.k, info.kind, info.conv_shape) == (None, 64, 96, "mask", None)
    data = sources.load(DATA / "uneven.smtx", None)
    assert data.weights is None
    assert data.mask is not None
    assert data.mask.sum() == 604
    assert pth.inspect(DATA / "uneven.smtx") == [info]


def test_nouns_leave_torch_files_to_the_lab(tmp_path: Path) -> None:
    save_pth(model(), tmp_path / "model.pth")
    for call in (sources.inspect, sources.load):
        with pytest.raises(
            MatrixError, match=r"model\.pth: only sparsebench\.lab\.pth reads torch files; use it, or save as"
        ):
            call(tmp_path / "model.pth")
    with pytest.raises(
        MatrixError, match=r"files ending in '\.bin' cannot be read; these can: \.mtx, \.npz, \.safetensors, \.smtx"
    ):
        sources.inspect(tmp_path / "model.bin")
    with pytest.raises(MatrixError, match=r"these can: \.mtx, \.npz, \.pt, \.pth, \.safetensors, \.smtx"):
        pth.load(tmp_path / "model", None)


def test_bfloat16_is_the_same_in_both_files_that_hold_it(tmp_path: Path) -> None:
    weights = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 6))).to(torch.bfloat16)
    torch.save({"w": weights}, tmp_path / "b.pth")
    save_torch_file({"w": weights}, tmp_path / "b.safetensors")
    for name in ("b.pth", "b.safetensors"):
        loaded = pth.load(tmp_path / name, "w").weights
        assert loaded is not None
        assert np.array_equal(loaded, weights.to(torch.float32).numpy())


def test_safetensors_of_eight_bits_are_refused_when_asked_for(tmp_path: Path) -> None:
    tensors = {"small": torch.ones(2, 2).to(torch.float8_e4m3fn), "fine": torch.ones(2, 2)}
    save_torch_file(tensors, tmp_path / "f8.safetensors")
    with pytest.raises(
        MatrixError, match=r"tensor 'small' holds F8_E4M3, which is not read here; save it as BF16 or F32"
    ):
        sources.inspect(tmp_path / "f8.safetensors")
    assert len(sources.inspect(tmp_path / "f8.safetensors", "fine")) == 1


def test_a_true_byte_need_not_be_one(tmp_path: Path) -> None:
    header = {"keep": {"dtype": "BOOL", "shape": [1, 4], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (tmp_path / "odd.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes([0, 1, 2, 255]))
    mask = sources.load(tmp_path / "odd.safetensors", "keep").mask
    assert mask is not None
    assert mask.view(np.uint8).sum() == 3
    assert mask.tolist() == [[False, True, True, True]]


def npz_with_header(path: Path, shape: str, version: int) -> None:
    """A .npz whose one array says it has this shape, and holds four bytes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY" + bytes([version, 0]) + size + header + b"\0\0\0\0")


LIES = [
    (
        "(1048576, 1048576)",
        1,
        "tensor 'w' of shape (1048576, 1048576) is above 2**31 entries, the most read here; split it",
    ),
    ("(1048576, 1048576)", 2, "is above 2**31 entries"),
    ("(-1, -5)", 1, "array 'w.npy' has shape (-1, -5); sizes must not be negative"),
    ("(1, 1)", 3, "array 'w.npy' is .npy version (3, 0); save plain floats or booleans"),
    ("(3, 3)", 1, "lie.npz: tensor 'w' is broken: ValueError"),
]


@pytest.mark.parametrize(("shape", "version", "message"), LIES)
def test_a_npz_that_lies_about_its_size_is_refused(shape: str, version: int, message: str, tmp_path: Path) -> None:
    npz_with_header(tmp_path / "lie.npz", shape, version)
    with pytest.raises(MatrixError, match=re.escape(message)):
        sources.inspect(tmp_path / "lie.npz")


class Trap:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"w": Trap(sprung)}))
    torch.save({"w": torch.ones(2, 2), "trap": Trap(sprung)}, tmp_path / "torch.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("plain.pth", "torch.pth", "module.pth"):
        with pytest.raises(
            MatrixError, match=rf"{name} holds more than tensors, or is no torch file, and was not run: "
        ):
            pth.inspect(tmp_path / name)
    assert not sprung.exists()
    np.savez(tmp_path / "objects.npz", w=np.array([[Trap(sprung), 1]], dtype=object))
    assert sources.inspect(tmp_path / "objects.npz") == []
    with pytest.raises(MatrixError, match="tensor 'w' is no matrix"):
        sources.load(tmp_path / "objects.npz", "w")
    assert not sprung.exists()


def test_state_dicts_inside_dicts_have_dotted_names(tmp_path: Path) -> None:
    torch.save({"state_dict": {"fc": {"weight": torch.ones(2, 3)}}, "epoch": 3, "notes": ["x"]}, tmp_path / "deep.pth")
    assert [info.name for info in pth.inspect(tmp_path / "deep.pth")] == ["state_dict.fc.weight"]
    torch.save(torch.eye(3), tmp_path / "bare.pt")
    (info,) = pth.inspect(tmp_path / "bare.pt")
    assert (info.name, info.m, info.k) == (None, 3, 3)
    torch.save({"w": torch.eye(3).to_sparse(), "wide": torch.ones(1, 1).expand(1 << 16, 1 << 16)}, tmp_path / "odd.pt")
    assert pth.load(tmp_path / "odd.pt", "w").mask is not None
    with pytest.raises(MatrixError, match=r"tensor 'wide' of shape \(65536, 65536\) is above 2\*\*31 entries"):
        pth.load(tmp_path / "odd.pt", "wide")


def test_loaded_weights_do_not_change_with_the_file(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.pth"):
        WRITERS[name[2:]]({"w": np.ones((2, 3), np.float32)}, tmp_path / name)
        weights = pth.load(tmp_path / name, "w").weights
        size = (tmp_path / name).stat().st_size
        with (tmp_path / name).open("r+b") as file:
            file.write(io.BytesIO(bytes(size)).getbuffer())
        assert weights is not None
        assert (weights == 1).all()
