"""One text from a CUDA C++ body and its headers, so that whatever compiles it may cache it by its content.

CuPy keys its cache by the text it is handed and never looks into included files: with -I an edited header would go
unnoticed. Line numbers in a compiler's messages still name the right file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sparsebench.errors import SparsebenchError

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"[ \t]*(?://.*)?$')
_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once[ \t]*$")


def translation_unit(body: Path, folders: Sequence[Path]) -> str:
    """The text of `body` with every `#include "..."` replaced by that file, each once.

    Files are looked up in `folders` in their order, then beside the file that asks; `<...>` stays as it is.
    SparsebenchError names a file that is nowhere. The folders come first so that tests can put their own ptx.cuh there.
    """
    return "\n".join(_expanded(body, folders, set())) + "\n"


def _expanded(file: Path, folders: Sequence[Path], seen: set[Path]) -> list[str]:
    seen.add(file.resolve())
    lines = [f'#line 1 "{file.name}"']
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if _ONCE.match(line):
            lines.append("")  # each file is taken once anyway
        elif asked := _INCLUDE.match(line):
            found = _found(asked[1], file, folders)
            if found.resolve() not in seen:
                lines += _expanded(found, folders, seen)
            lines.append(f'#line {number + 1} "{file.name}"')
        else:
            lines.append(line)
    return lines


def _found(name: str, asker: Path, folders: Sequence[Path]) -> Path:
    for folder in [*folders, asker.parent]:
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(str(folder) for folder in [*folders, asker.parent])
    raise SparsebenchError(f'{asker.name} includes "{name}", which is in none of {looked}')
