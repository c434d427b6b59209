"""The irregularity factor, irf = (1 - s) x T_dense / T_sparse (HBsNN, arXiv 1808.03420, equations 1 to 3).

    C_dense = F        C_sparse = sum over levels of F_i / irf(s_i, bh_i, bw_i)        speedup = C_dense / C_sparse

irf is keyed by (sparsity, bh, bw) in the paper; as printed it is one law among four (irf_paper.py). What is *fitted* is
the sparse kernel's time, which is smooth; the dense time is measured, because dense libraries change kernels from one n
to the next. On published times (SRigL, arXiv 2305.02299), leaving one n out costs 6 % in the sparse time and 20 % in
irf itself. irf is derived from the two; nothing clips it at 1.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparsebench.case import Case
from sparsebench.desk.observe import block_text, blocks_of

SINGLE = ""  # the part of a model that answers patterns with one level, whatever its block


def irf(kept: float, dense_s: float, sparse_s: float) -> float:
    """The irregularity factor of a layer that keeps the share `kept` = 1 - s.

    >>> round(irf(0.1, 136.2e-6, 81.5e-6), 3)  # SRigL: 90 %, n = 256
    0.167
    """
    return kept * dense_s / sparse_s


def speedup_by_equation_2(levels: Iterable[tuple[float, float]]) -> float:
    """C_dense / C_sparse of levels given as (kept share 1 - s_i, irf_i).

    >>> round(speedup_by_equation_2([(0.37, 0.8), (0.03, 0.2)]), 3)  # 1 / (0.4625 + 0.15)
    1.633
    """
    return 1 / sum(kept / factor for kept, factor in levels)


def part_of(case: Case) -> str:
    """Which part of a model answers `case`: SINGLE, or the level blocks such as `4x1+1x1`."""
    return SINGLE if len(blocks_of(case)) == 1 else block_text(case)
