"""From pydantic's errors to sentences: what was asked, what was found, what to do, each at its line and column.

Pydantic stands only here and in the schemas built on `Keys`; what leaves them is frozen dataclasses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args

# pydantic: reports every wrong value of a document at once, with the path to each; attrs and msgspec stop at the first.
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
)

from sparsebench.errors import BadInput
from sparsebench.patterns.base import checked_sparsity
from sparsebench.yaml_marks import Document, Loc, near

T = TypeVar("T")
M = TypeVar("M", bound="Keys")


class Keys(BaseModel):
    """A YAML mapping: no unknown keys, and no text where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def judged(judge: Callable[[T], T]) -> Callable[[T], T]:
    """`judge` with the package's errors turned into pydantic's, so that they are collected with all others."""

    def by_pydantic(value: T) -> T:
        try:
            return judge(value)
        except BadInput as error:
            raise ValueError(str(error)) from None

    return by_pydantic


def one_of(what: str, names: Mapping[str, Any] | tuple[str, ...]) -> AfterValidator:
    """A check that a text is one of `names`; its sentence says which was meant."""

    def check(word: str) -> str:
        if word not in names:
            raise ValueError(f"{what} must be one of {', '.join(names)}, found {word!r}{near(word, names)}")
        return word

    return AfterValidator(check)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _sizes_kind(value: Any) -> str:
    return "many" if isinstance(value, list) and value and isinstance(value[0], list) else "one"


Text = Annotated[str, StringConstraints(min_length=1)]
# 2**31 - 1: no kernel indexes a longer dimension, and a typo should not plan a matrix of petabytes.
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Size = Annotated[list[Count], Field(min_length=2, max_length=2)]
Sparsity = Annotated[float, AfterValidator(judged(checked_sparsity))]
OneOrMore = Annotated[list[T], BeforeValidator(_as_list), Field(min_length=1)]
# [4, 1] is one size, [[4, 1], [16, 16]] are two. The tags keep the path to each number true.
Sizes = Annotated[
    Annotated[Size, Tag("one")] | Annotated[list[Size], Tag("many")],
    Discriminator(_sizes_kind),
    AfterValidator(lambda sizes: sizes if isinstance(sizes[0], list) else [sizes]),
]


def check(
    document: Document, model: type[M], loc: Loc = (), context: Mapping[str, Any] | None = None, missing: Any = None
) -> M | None:
    """What stands at `loc`, or `missing` where nothing does, as a `model`.

    None, with every mistake noted in the document, where it is not one.
    """
    data = document.at(loc) if loc in document.values else missing
    try:
        return model.model_validate(data, context=dict(context or {}))
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            full = (*loc, *error["loc"])
            unknown = error["type"] == "extra_forbidden"
            document.mistake(full, _sentence(error, model, document.known(full)), key=unknown)
        return None


_ASKED: Mapping[str, str] = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "string_too_short": "a text that is not empty",
}


def _sentence(error: Any, model: type[Keys], loc: Loc) -> str:
    """One mistake in words. `loc` is where it stands in the file, error["loc"] where pydantic thinks it stands."""
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    names = [str(alias) for alias in _names(_model_at(model, error["loc"][:-1]))]
    if kind == "extra_forbidden":
        return f"unknown key {error['loc'][-1]!r}{near(str(error['loc'][-1]), names)}"
    if kind == "missing":
        return f"the key {error['loc'][-1]!r} is missing; add it"
    if kind == "value_error":
        return str(context["error"])
    name = next((str(part) for part in reversed(loc) if isinstance(part, str)), "the file")
    if kind in ("too_short", "too_long") and context.get("min_length", context.get("max_length")) == 2:
        return f"{name} must be two whole numbers, [rows, columns], found {shown(found)}; write for example [4, 1]"
    if kind == "too_short":
        return f"{name} must not be empty, found {found!r}; without an entry there is nothing to do, give at least one"
    if kind not in _ASKED:
        return f"{name}: {error['msg']}, found {shown(found)}; see the suites that ship with sparsebench"
    return f"{name} must be {_ASKED[kind].format(**context)}, found {shown(found)}{_remedy(kind, found)}"


def _remedy(kind: str, found: Any) -> str:
    if kind in ("int_type", "float_type") and isinstance(found, str):
        number = _number(found)
        if number is None:
            return "; write a number"
        return f"; write {number:.12g} (YAML takes quotes, and exponents without a point as in 1e3, for text)"
    if kind == "string_type" and not isinstance(found, dict | list):
        return "; put it in quotes (YAML reads on, off, yes and no as true and false)"
    if kind == "int_type" and isinstance(found, float) and found.is_integer():
        return f"; write {found:.0f}"
    return f"; write {_ASKED[kind]}" if kind.endswith("_type") else "; choose another value"


def _number(text: str) -> float | None:
    try:
        return float(text) if math.isfinite(float(text)) else None
    except ValueError:
        return None


def shown(value: Any) -> str:
    """A value as an error message shows it, cut where it is long.

    >>> shown("64"), shown([4]), shown({"a": 1}), shown(True)
    ("the text '64'", '[4]', 'a mapping', 'true')
    """
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, bool):
        return str(value).lower()
    text = f"the text {value!r}" if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _names(model: type[Keys]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[Keys], loc: Loc) -> type[Keys]:
    """The model of the mapping at `loc` inside `model`."""
    for part in loc:
        field = next((f for name, f in model.model_fields.items() if part == (f.alias or name)), None)
        model = (_keys_in(field.annotation) if field else None) or model
    return model


def _keys_in(kind: Any) -> type[Keys] | None:
    if isinstance(kind, type) and issubclass(kind, Keys):
        return kind
    return next((found for part in get_args(kind) if (found := _keys_in(part))), None)
