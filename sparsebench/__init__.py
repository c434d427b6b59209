"""sparsebench: which sparsity pattern, in which format, run by which kernel, is how much faster than dense?

    suites/*.yaml -> Suite -> Trial = (Case, Kernel) -> check, clock, check -> Record           the LAB
                                        results/<machine>/*.jsonl                               the only door between
    report <- Network prediction <- LayerModel (irf) <- Records                                 the DESK

Three laws, each with a test that fails when it is broken (tests/test_laws.py):

1. One trial makes exactly one record, whatever happens.
2. No time without a green check, before and after the clock.
3. The desk never imports torch, cupy or triton: every number in a report can be made again on a laptop from results/.
"""

from __future__ import annotations

from sparsebench.case import Case, Conv, Source
from sparsebench.errors import BadInput, SparsebenchError
from sparsebench.formats import FORMATS, Format
from sparsebench.kernel import Kernel, Launch, Limit, load_kernels
from sparsebench.machine import Machine
from sparsebench.patterns import PATTERNS, Pattern
from sparsebench.record import Protocol, Record

__version__ = "0.1.0"

__all__ = [
    "FORMATS",
    "PATTERNS",
    "BadInput",
    "Case",
    "Conv",
    "Format",
    "Kernel",
    "Launch",
    "Limit",
    "Machine",
    "Pattern",
    "Protocol",
    "Record",
    "Source",
    "SparsebenchError",
    "__version__",
    "load_kernels",
]
