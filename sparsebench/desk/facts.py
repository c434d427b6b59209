"""What a report says of a machine and of what its records were made with; and the table that all pages are made of."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsebench import units
from sparsebench.machine import Machine
from sparsebench.record import Record

WIN, LOSS, UNSURE = "win", "loss", ""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text under a title; `tones` colour rows: win, loss or nothing."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    tones: tuple[str, ...] = ()

    def tone(self, number: int) -> str:
        """The tone of a row."""
        return self.tones[number] if number < len(self.tones) else UNSURE


def machine_facts(machine: str, known: Machine | None, peaks: dict[str, object]) -> Table:
    facts = [("id", machine)]
    if known:
        facts += [(name, _fact(name, value)) for name, value in known.to_json().items() if value is not None]
    for name, value in peaks.items():
        if isinstance(value, dict):
            facts += [(f"{name} {key}", _peak(name, rate)) for key, rate in sorted(value.items())]
        elif isinstance(value, int | float):
            facts.append((name, _peak(name, value)))
    return Table("The machine", "Peaks are measured, the newest of them.", ("fact", "value"), tuple(facts))


def _fact(name: str, value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return units.size(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)


def _peak(name: str, value: object) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    unit = {"bytes_per_s": "B/s", "flops_per_s": "FLOP/s"}
    return next((units.rate(value, per) for end, per in unit.items() if name.endswith(end)), f"{value:g}")


def made_with(records: Sequence[Record]) -> Table:
    versions: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, version in {**record.versions, "system": record.host.get("system", "")}.items():
            versions[name].add(str(version))
    dates = sorted(record.started_at[:10] for record in records if record.started_at)
    rows = [(name, ", ".join(sorted(filter(None, found)))) for name, found in sorted(versions.items())]
    rows += [("measured", " to ".join(dict.fromkeys((dates[0], dates[-1]))))] if dates else []
    rows += [(f"protocol, {count} records", text) for text, count in sorted(_protocols(records).items())]
    return Table("What it was measured with", "", ("name", "version"), tuple(rows))


def _protocols(records: Sequence[Record]) -> Counter[str]:
    def told(record: Record) -> str:
        asked = record.protocol
        stop = f"until a ratio is known to {units.percent(asked.precision)} or for {asked.budget_s:g} s"
        return f"{', '.join(asked.cache)}; {asked.threads} thread(s); {stop}"

    return Counter(map(told, records))


def newest_peaks(folder: Path) -> dict[str, object]:
    """The newest line of a machine's peaks.jsonl, dates and versions aside; empty where there is none to read."""
    try:
        lines = (folder / "peaks.jsonl").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return {name: value for name, value in found.items() if name.endswith("_per_s")}
    return {}
