"""What works here: the machine, compiler, kernels, peaks, and whether a kernel timed against itself comes out 1."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsebench import units
from sparsebench.kernel import load_kernels
from sparsebench.lab.baselines import AA_TOLERANCE
from sparsebench.lab.bench import AA
from sparsebench.lab.build import missing_need
from sparsebench.lab.run import Run
from sparsebench.lab.versions import code_versions, host_facts
from sparsebench.machine import Machine
from sparsebench.paired import Ratio, paired_ratio
from sparsebench.store import read_peaks
from sparsebench.suite import Suite

SUITE = """
name: doctor
about: Does the clock say 1 for a kernel against itself?
protocol: {budget_s: 1.5, precision: 0.002}
problems: [{m: 512, k: 512, n: 128, dtype: float32}]
arms: [{pattern: dense, kernels: ["dense.*"]}]
"""


def examine(say: Callable[[str], None]) -> dict[str, Any]:
    """Say and return what was found; `healthy` is False when a dense kernel is wrong or A/A is off by over 2 %."""
    machine, host = Machine.here(), host_facts()
    say(f"machine    {machine.id}: {machine.describe()}")
    say(f"system     {host['system']}, Python {host['python']}, load {host['load']} (measure on an idle machine)")
    say("versions   " + ", ".join(f"{name} {version}" for name, version in code_versions().items()))
    kernels = [kernel for kernel in load_kernels() if machine.device in kernel.devices]
    missing = {need: text for kernel in kernels for need in kernel.needs if (text := missing_need(need))}
    for text in missing.values():
        say(f"missing    {text}")
    ready = [kernel.name for kernel in kernels if not set(kernel.needs) & set(missing)]
    say(f"kernels    {len(ready)} of the {len(kernels)} for a {machine.device} device can run here")
    with tempfile.TemporaryDirectory(prefix="sparsebench-") as folder:
        suite = Path(folder) / "doctor.yaml"
        suite.write_text(SUITE)
        summary = Run(Suite.load(suite), Path(folder), device=machine.device).execute()
        peaks = read_peaks(Path(folder), machine.id)
    one_thread = ", one thread" if machine.device == "cpu" else ""
    if peaks:
        fma = units.rate(peaks["fma_flops_per_s"]["float32"], "FLOP/s")
        stream, read = (units.rate(peaks[name], "B/s") for name in ("stream_bytes_per_s", "read_bytes_per_s"))
        say(f"peaks      {fma} multiply-add, {stream} stream, {read} read" + one_thread)
    wrong = [record.kernel for record in summary.records if record.outcome not in ("ok", "skipped")]
    for name in wrong:
        say(f"WRONG      {name}")
    aa = next((ratio for record in summary.records if (ratio := _aa(record))), None)
    off = aa is None or abs(aa.median - 1) > AA_TOLERANCE
    comment = "more than 2 % off: measure on a quieter machine" if off else "as it should be"
    say(f"A/A        the fastest dense kernel against itself: {aa} ({comment})")
    return {
        "machine": {"id": machine.id, **machine.to_json()},
        "host": host,
        "versions": code_versions(),
        "missing": missing,
        "ready": ready,
        "peaks": peaks,
        "wrong": wrong,
        "aa": None if aa is None else {"median": aa.median, "low": aa.low, "high": aa.high},
        "healthy": not wrong and not off,
    }


def _aa(record: Any) -> Ratio | None:
    twin_s = record.times_s(kernel=AA)
    return paired_ratio(twin_s, record.times_s()) if twin_s else None
