"""How matrices are stored. To add a format: one file here, one line in FORMATS, a folder in kernels/."""

from __future__ import annotations

from collections.abc import Mapping

from sparsebench.formats.base import Format
from sparsebench.formats.bsr import Bsr
from sparsebench.formats.condensed import Condensed
from sparsebench.formats.csr import Csr
from sparsebench.formats.dense import Dense
from sparsebench.formats.hbs import Hbs
from sparsebench.formats.nm import Nm
from sparsebench.formats.rbgp4 import Rbgp4
from sparsebench.formats.rows import Columns, Rows

FORMATS: Mapping[str, type[Format]] = {
    cls.name: cls for cls in (Dense, Csr, Bsr, Hbs, Rbgp4, Condensed, Nm, Rows, Columns)
}

__all__ = ["FORMATS", "Bsr", "Columns", "Condensed", "Csr", "Dense", "Format", "Hbs", "Nm", "Rbgp4", "Rows"]
