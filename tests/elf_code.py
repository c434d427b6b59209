"""What a shared library computes: the bytes of its code and constants, without names and line numbers."""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path

SECTIONS = (".text", ".rodata", ".data", ".tdata", ".data.rel.ro")


@lru_cache(maxsize=4096)
def machine_code(library: Path) -> bytes:
    """The sections that are executed or read, in the order of the file; a 64-bit little-endian ELF file."""
    content = library.read_bytes()
    (start,), (size, count, names) = struct.unpack_from("<Q", content, 40), struct.unpack_from("<HHH", content, 58)
    headers = [struct.unpack_from("<IIQQQQ", content, start + i * size) for i in range(count)]
    names_at = headers[names][4]
    found = b""
    for name, _, _, _, offset, length in headers:
        end = content.index(b"\0", names_at + name)
        if content[names_at + name : end].decode() in SECTIONS:
            found += content[offset : offset + length]
    return found
