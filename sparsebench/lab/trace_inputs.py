"""The inputs of one sample, as --input says them, and every mistake in them told."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparsebench.errors import BadInput
from sparsebench.yaml_marks import near

DTYPES = {
    name: getattr(torch, name)
    for name in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
}
EXAMPLE = "1,128:int64"


@dataclass(frozen=True, slots=True)
class Input:
    """An argument of forward: its name, shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @classmethod
    def parse(cls, text: str) -> Input:
        """NAME=1,128:int64; float32 where no dtype is said; BadInput on anything else."""
        name, equals, value = text.partition("=")
        sizes, colon, dtype = value.partition(":")
        if not (equals and name.isidentifier() and all(_is_size(size) for size in sizes.split(","))):
            raise BadInput(f"--input takes NAME=SIZES[:DTYPE], found {text!r}; write for example --input x=1,3,224,224")
        if colon and dtype not in DTYPES:
            raise BadInput(f"--input {name} was asked for in {dtype!r}, which is no dtype{near(dtype, DTYPES)}")
        return cls(name, tuple(int(size) for size in sizes.split(",")), dtype or "float32")

    def tensor(self, device: str) -> torch.Tensor:
        """Ones of this shape: valid as tokens and as a mask alike."""
        return torch.ones(self.shape, dtype=DTYPES[self.dtype], device=device)

    @property
    def text(self) -> str:
        """What `parse` reads."""
        return f"{self.name}={','.join(map(str, self.shape))}" + (f":{self.dtype}" if self.dtype != "float32" else "")

    def __str__(self) -> str:
        return f"{self.name} {'x'.join(map(str, self.shape))} {self.dtype}"


def _is_size(text: str) -> bool:
    digits = text.strip()
    return digits.isascii() and digits.isdigit() and len(digits) < 11 and 0 < int(digits) < 2**31


def parse_inputs(texts: Sequence[str]) -> tuple[Input, ...]:
    """All inputs; BadInput where one is wrong, or given twice."""
    inputs = tuple(Input.parse(text) for text in texts)
    names = [each.name for each in inputs]
    if again := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"--input {again} was given {names.count(again)} times; give it once")
    return inputs


def check_inputs(called: str, module: torch.nn.Module, inputs: Sequence[Input]) -> None:
    """BadInput where forward takes no such input, needs more, or none are given."""
    signature = inspect.signature(module.forward)
    kinds = [each.kind for each in signature.parameters.values()]
    takes = [
        name
        for name, each in signature.parameters.items()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    if not takes and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise BadInput(f"forward of {called} takes nothing by name; wrap it in a module whose forward does")
    for each in inputs:
        if each.name not in takes and inspect.Parameter.VAR_KEYWORD not in kinds:
            raise BadInput(f"forward of {called} takes no input {each.name!r}{near(each.name, takes)}")
    given = {each.name for each in inputs}
    missing = [name for name in required(signature) if name not in given]
    if missing or not inputs:
        raise BadInput(
            f"forward of {called} takes {', '.join(takes) or 'any names'}, and "
            f"{'needs ' + ', '.join(missing) if missing else 'no input was given'}; say the shape of one sample, "
            f"such as {' '.join('--input ' + example(name, module) for name in missing or takes[:1] or ['x'])}"
        )


def example(name: str, module: torch.nn.Module) -> str:
    """What --input may look like for the argument `name`, from what the module does first."""
    if name.endswith(("_ids", "ids", "tokens")):
        return f"{name}={EXAMPLE}"
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            return f"{name}=1,{part.in_channels},224,224"
        if isinstance(part, torch.nn.Linear):
            return f"{name}=1,{part.in_features}"
        if isinstance(part, torch.nn.Embedding):
            return f"{name}={EXAMPLE}"
    return f"{name}=1,128"


def required(signature: inspect.Signature) -> list[str]:
    """The arguments that have no default."""
    return [
        name
        for name, each in signature.parameters.items()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
