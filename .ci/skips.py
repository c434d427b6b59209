"""Fail on any skipped test that the list does not explain. Usage: skips.py PYTEST_LOG LIST

The list holds one skip a line: a regular expression for the reason pytest prints, two spaces, why that is acceptable.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def main(log: Path, listed: Path) -> int:
    """0 when every skip in `log` is explained in `listed`."""
    lines = [line for line in listed.read_text().splitlines() if line and not line.startswith("#")]
    allowed = [re.compile(line.split("  ")[0]) for line in lines]
    skips = re.findall(r"^SKIPPED \[\d+\] (.*)$", log.read_text(), re.MULTILINE)
    unexplained = [skip for skip in skips if not any(pattern.search(skip) for pattern in allowed)]
    for skip in unexplained:
        print(f"skipped without a reason in {listed}: {skip}", file=sys.stderr)
    print(f"{len(skips)} skips, {len(unexplained)} unexplained")
    return bool(unexplained)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
