"""The keys of a suite, and the params of a pattern, as YAML gives them.

Nothing about a pattern is repeated here: the keys of an arm are the fields of its pattern's dataclass, and the pattern
itself judges their values, so a new pattern needs no change. PARAMS only says more about the names it knows, so that a
block of 0 is pointed at where it stands. A pattern of one parameter takes it as a key of the arm (`block: [4, 1]`),
one of several takes them in a mapping under its own name (`rbgp4: {tile: ..., ...}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from fnmatch import filter as matching
from functools import cache
from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, ValidationInfo, create_model, model_validator
from pydantic import Field as Limits

from sparsebench.case import DType, Layout, Math, Origin
from sparsebench.patterns import PATTERNS, pattern_from
from sparsebench.record import Cache, Protocol
from sparsebench.yaml_marks import near
from sparsebench.yaml_schema import Count, Keys, OneOrMore, Size, Sizes, Sparsity, Text, judged, one_of

_DEFAULT = Protocol()
FIXED = frozenset({"dense", "file", "hierarchical", "nm"})  # patterns whose params, or file, fix the sparsity


def _slug(name: str) -> str:
    if not all(letter.isascii() and (letter.isalnum() or letter in "-_.") for letter in name) or name.strip(".") == "":
        raise ValueError(
            f"name must be letters, digits and - _ . since it names the file of results, "
            f"found {name!r}; write for example vit-mlp"
        )
    return name


# The name becomes a file, results/MACHINE/NAME.jsonl, so it may not lead anywhere else.
Slug = Annotated[str, AfterValidator(_slug)]
Seed = Annotated[int, Limits(ge=0, le=2**63 - 1)]
PatternName = Annotated[str, one_of("pattern", tuple(PATTERNS))]


def _known_kernel(glob: str, info: ValidationInfo) -> str:
    kernels = (info.context or {}).get("kernels")
    if kernels is not None and not matching(kernels, glob):
        raise ValueError(f"no kernel is called {glob!r}{near(glob, kernels)}")
    return glob


KernelGlob = Annotated[str, AfterValidator(_known_kernel)]


class ProtocolKeys(Keys):
    """How trials are timed; a missing key has the default of record.Protocol."""

    cache: OneOrMore[Annotated[str, one_of("cache", get_args(Cache))]] = Limits(default=list(_DEFAULT.cache))
    threads: Annotated[int, Limits(ge=1, le=4096)] = _DEFAULT.threads
    budget_s: Annotated[float, Limits(gt=0, le=86400)] = _DEFAULT.budget_s
    precision: Annotated[float, Limits(gt=0, lt=1)] = _DEFAULT.precision


class SuiteKeys(Keys):
    """The top of a suite; problems and arms are checked one by one, each against the model of its kind."""

    name: Slug
    about: str = ""
    seeds: OneOrMore[Seed] = Limits(default=[0])
    protocol: ProtocolKeys = Limits(default=ProtocolKeys())
    plugins: list[Text] = Limits(default=[])
    problems: Annotated[list[Any], Limits(min_length=1)]
    arms: Annotated[list[Any], Limits(min_length=1)]


class ProblemKeys(Keys):
    """What every problem takes; `columns` is its n, or the batch of a network."""

    columns: ClassVar[str] = "n"

    dtype: OneOrMore[Annotated[str, one_of("dtype", get_args(DType))]] = Limits(default=["float32"])
    math: OneOrMore[Annotated[str, one_of("math", get_args(Math))]] = Limits(default=["ieee"])
    layout: OneOrMore[Annotated[str, one_of("layout", get_args(Layout))]] = Limits(default=["feature"])


class ShapeKeys(ProblemKeys):
    """One shape."""

    m: Count
    k: Count
    n: OneOrMore[Count]


class MatricesKeys(ProblemKeys):
    """Files whose masks, or shapes, are taken."""

    matrices: Text
    n: OneOrMore[Count]


class WeightsKeys(ProblemKeys):
    """Tensors of a weight file."""

    weights: Text
    tensors: Text = "*"
    n: OneOrMore[Count]


class NetworkKeys(ProblemKeys):
    """The layers of a network, at some batch sizes."""

    columns: ClassVar[str] = "batch"

    network: Text
    batch: OneOrMore[Count]


PROBLEMS: Mapping[str, type[ProblemKeys]] = {
    "m": ShapeKeys, "k": ShapeKeys, "matrices": MatricesKeys, "weights": WeightsKeys, "network": NetworkKeys,
}  # fmt: skip


class LevelKeys(Keys):
    """One level of a hierarchical pattern."""

    block: Size
    sparsity: Sparsity


PARAMS: Mapping[str, Any] = {
    "block": Size,
    "tile": Size,
    "row_repeat": Count,
    "outer_sparsity": Sparsity,
    "ablated": float,
    "levels": Annotated[list[LevelKeys], Limits(min_length=1)],
    "nm": list[Count],
}


class ArmKeys(Keys):
    """What every arm takes; `arm_model` adds the keys of its pattern."""

    pattern: PatternName
    kernels: OneOrMore[KernelGlob]


ORIGIN = Annotated[str, one_of("from", get_args(Origin))]


def _params(pattern: str) -> tuple[Field[Any], ...]:
    return fields(PATTERNS[pattern])  # type: ignore[arg-type]


def nested(pattern: str) -> bool:
    """Whether the params of `pattern` stand in a mapping under its name."""
    return len(_params(pattern)) > 1


def _typed(field: Field[Any]) -> tuple[Any, Any]:
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return PARAMS.get(field.name, Any), ... if default is MISSING else default


def params_of(pattern: str, keys: Keys) -> dict[str, Any]:
    """The params that a case keeps, as JSON data: all of a nested pattern, else those that differ from the default.

    So `ablated: 0.0` and no `ablated` are the same case.
    """
    written = keys.model_dump(include={field.name for field in _params(pattern)})
    default = {field.name: field.default for field in _params(pattern)}
    return {name: value for name, value in written.items() if nested(pattern) or value != default[name]}


@cache
def params_model(pattern: str) -> type[Keys]:
    """The params of `pattern` as a mapping of their own, judged by the pattern itself."""

    def judge(keys: Keys) -> Keys:
        pattern_from(pattern, params_of(pattern, keys))
        return keys

    check: Any = {"judge": model_validator(mode="after")(judged(judge))}
    keys: dict[str, Any] = {field.name: _typed(field) for field in _params(pattern)}
    return create_model("Params", __base__=Keys, __validators__=check, **keys)


def _inline(pattern: str, field: Field[Any]) -> tuple[Any, Any]:
    """The only param of `pattern` as a key of the arm, judged by the pattern; blocks may be several."""
    kind, default = (Sizes, ...) if field.name == "block" else _typed(field)

    def judge(value: Any) -> Any:
        plain = (
            [part.model_dump() if isinstance(part, Keys) else part for part in value]
            if isinstance(value, list)
            else value
        )
        for each in plain if kind is Sizes else [plain]:
            pattern_from(pattern, {field.name: each})
        return value

    return Annotated[kind, AfterValidator(judged(judge))], default


@cache
def arm_model(pattern: str) -> type[ArmKeys]:
    """The keys of an arm of `pattern`."""
    keys: dict[str, Any] = {} if pattern in FIXED else {"sparsity": (OneOrMore[Sparsity], ...)}
    if pattern not in ("dense", "file"):
        keys["origin"] = (ORIGIN, Limits("", alias="from"))
    if nested(pattern):
        keys[pattern] = (params_model(pattern), ...)
    else:
        keys |= {field.name: _inline(pattern, field) for field in _params(pattern)}
    return create_model("Arm", __base__=ArmKeys, **keys)


@cache
def any_arm_model() -> type[ArmKeys]:
    """The keys of an arm whose pattern is not known: those of all patterns, so that only truly odd ones are named."""
    params = {pattern if nested(pattern) else field.name for pattern in PATTERNS for field in _params(pattern)}
    keys: dict[str, Any] = dict.fromkeys(sorted(params), (Any, None))
    keys |= {"sparsity": (OneOrMore[Sparsity], [0.0]), "origin": (ORIGIN, Limits("", alias="from"))}
    return create_model("AnyArm", __base__=ArmKeys, **keys)
