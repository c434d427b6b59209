"""A kernel on its way to the clock: packed, prepared, past both gates, and copied as often as its cache state wants."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsebench.case import NUMPY_DTYPES, Case
from sparsebench.formats import Format
from sparsebench.kernel import Kernel
from sparsebench.lab.clock import Contestant, Rotation, copies_needed
from sparsebench.lab.matrices import Matrices
from sparsebench.lab.operands import run_filled
from sparsebench.lab.ready import Ready, refuse
from sparsebench.lab.reference import Reference, weights_key
from sparsebench.lab.sides import Side
from sparsebench.lab.stopwatch import Stopwatch
from sparsebench.lab.tamper import Turning
from sparsebench.record import Protocol

STAY = 32  # launches write the same Y, before the next one: operands.py says why


@dataclass(frozen=True, slots=True, eq=False)
class Gates:
    """Makes kernels ready on a device. `mark` hears what runs next; `matrices` keeps what kernels to come need too."""

    protocol: Protocol
    side: Side
    matrices: Matrices
    mark: Callable[[str], None]
    watch: Stopwatch

    def ready(self, kernel: Kernel, reference: Reference) -> Ready:
        """A kernel that passed the integer gate, then the precision gate; WrongAnswer if either refuses."""
        self.mark(kernel.name)
        native = kernel.native(reference.case)
        self._pass_integers(kernel, native, reference)
        if kernel.unit_roundoff is not None:
            # Each factor is rounded once, before any sum: without the root of k the bound would let a zero pass.
            reference = reference.loosened(kernel.unit_roundoff / math.sqrt(native.k))
        side, watch = self.side, self.watch
        with watch.part("reference"):
            question = reference.normal()
        memory = side.watch_memory()
        with watch.part("pack"):
            x, toolchain = side.place(question.x, native), side.toolchain(watch)
            packed, pack_s = self._packed(kernel, native, reference, question.w, "normal")
            start_s = time.perf_counter()
            launch = kernel.prepare(native, packed, x, toolchain)
            pack_s += time.perf_counter() - start_s
        with watch.part("check"):
            verdict = question.judge(run_filled(launch), native)
        peak = memory.grown_bytes()
        refuse("precision gate", verdict)
        weight_bytes = packed.nbytes if launch.weight_bytes is None else launch.weight_bytes
        copies, y_bytes = self._copies(weight_bytes), getattr(launch.y, "nbytes", 0)
        outputs = min(copies, side.outputs(y_bytes)) if y_bytes else 1
        launches = [launch]
        with watch.part("pack"):
            for number in range(1, copies):
                place = number // STAY % outputs
                if outputs > 1:
                    toolchain.turn_to(place)
                first = place * STAY  # of the launches that write there
                anew = launches[first].again if number > first else None
                launches.append(anew() if anew else kernel.prepare(native, copy.deepcopy(packed), x, toolchain))
                if side.sets_up_at_first_call:
                    launches[-1].run()
        held_bytes = copies * weight_bytes + outputs * y_bytes + 2 * x.nbytes  # scratch may be as large as X
        turning = Turning(x, native)
        rotation = Rotation(launches, weight_bytes, STAY if outputs > 1 else 0)
        contestant = Contestant(kernel.name, rotation, x, turning.turn)
        with watch.part("check"):
            layout_s = side.layout_change_s(reference.case, native)
        return Ready(
            kernel,
            native,
            reference,
            contestant,
            turning,
            packed,
            pack_s,
            verdict.ratio,
            layout_s,
            peak,
            held_bytes,
        )

    def _pass_integers(self, kernel: Kernel, native: Case, reference: Reference) -> None:
        with self.watch.part("reference"):
            question = reference.integers()
        with self.watch.part("check"):
            packed, _ = self._packed(kernel, native, reference, question.w, "integers")
            x, toolchain = self.side.place(question.x, native), self.side.toolchain(self.watch)
            launch = kernel.prepare(native, packed, x, toolchain)
            refuse("integer gate", question.judge(run_filled(launch), native))

    def _packed(
        self, kernel: Kernel, native: Case, reference: Reference, w: np.ndarray, data: str
    ) -> tuple[Format, float]:
        """W in the kernel's format and the case's dtype, and the seconds that took; kept for the kernels to come."""

        def pack() -> tuple[Format, float]:
            start_s = time.perf_counter()
            values = w.astype(NUMPY_DTYPES[native.dtype], copy=False)
            packed = kernel.format.from_dense(values, reference.draw.mask, reference.draw.structure)
            return packed, time.perf_counter() - start_s

        if not self.side.keeps_packed:
            return pack()
        key = ("packed", kernel.format.name, weights_key(native), native.dtype, data)
        return self.matrices.get(key, pack)

    def _copies(self, weight_bytes: int) -> int:
        return copies_needed(weight_bytes, self.side.cache_bytes) if "weights_cold" in self.protocol.cache else 1
