"""Does compare find a kernel that was made slower on purpose? Usage: power.py FOLDER [options]; --help lists them.

A plugin wraps a shipped kernel eight times over. In base runs each copy takes its usual time; in new runs five still
do, and three wait after each call for 3, 5 and 10 % of the time it took. (To repeat rows of the product is no slow-down
of a known size, since each call packs X once more.) All runs go through `sparsebench run --plugin`, and then
`sparsebench compare` says what it finds. The plugin's text differs between the sides, so that compare cannot know which
copies are unchanged. The copies of a dense kernel are marked as lossy, since such a kernel is never a baseline.

Prints detection and false-alarm rates beside what was wanted; exit status 1 where one is missed. FOLDER keeps plugins,
suite and records.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

WANTED = {0.03: 0.80, 0.05: 0.95, 0.10: 0.99}  # planted slow-down -> least share of cases found SLOW
MOST_FALSE_ALARMS = 0.01
# Copy of the kernel -> share in the new run.
PLANTED = {**dict.fromkeys("abcde", 0.0), "f": 0.03, "g": 0.05, "h": 0.10}
SIDES = (256, 288, 320, 352, 384, 416, 448)
MAIN = "from sparsebench.cli import main; main()"

PLUGIN = '''"""{about}"""

import time
from dataclasses import replace
from functools import partial

from sparsebench.kernel import load_kernels

SHARES = {shares}
(INNER,) = [kernel for kernel in load_kernels() if kernel.name == "{wrapped}"]


def slowed(launch, share):
    """The same launch, each call of which takes `share` longer."""

    def run():
        start_s = time.perf_counter()
        y = launch.run()
        end_s = start_s + (time.perf_counter() - start_s) * (1 + share)
        while time.perf_counter() < end_s:
            pass
        return y

    again = launch.again and (lambda: slowed(launch.again(), share))
    return replace(launch, run=run, again=again)


def prepare(share, *operands):
    return slowed(INNER.prepare(*operands), share)


KERNELS = [
    replace(
        INNER,
        name=f"{format}.planted_{{letter}}",
        prepare=partial(prepare, share),
        about=f"{wrapped} made {{share:.0%}} slower",
        body=None,
        sources=(),
        lossy="a planted copy" if INNER.format.name == "dense" else "",
    )
    for letter, share in SHARES.items()
]
'''

SUITE = """name: planted
about: Are planted slow-downs found?
protocol: {{cache: [{cache}], budget_s: {budget_s}, precision: 0.002}}
problems:
{problems}
arms: [{{pattern: {pattern}, kernels: ["{format}.planted_*"]}}]
"""


def main() -> int:
    """0 when every rate is as wanted."""
    asked = arguments()
    asked.folder.mkdir(parents=True, exist_ok=True)
    suite = write_suite(asked)
    start_s = time.monotonic()
    for turn in range(asked.runs):
        # Turn about, so that a drift over the whole time favours neither side.
        for side in ("base", "new") if turn % 2 == 0 else ("new", "base"):
            shares = PLANTED if side == "new" else dict.fromkeys(PLANTED, 0.0)
            plugin = write_plugin(asked, side, shares)
            sparsebench(
                "run", suite, "--plugin", plugin, "--results", asked.folder / side, "--device", "cpu", "--fresh"
            )
    found = json.loads(sparsebench("compare", asked.folder / "base", asked.folder / "new", "--json"))
    print(f"{asked.kernel}, {asked.cache}, {asked.runs} run(s) a side, {time.monotonic() - start_s:.0f} s in all")
    return report(found)


def arguments() -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for plugins, suite and records, made if missing")
    parser.add_argument(
        "--kernel", default="dense.torch_mm", help="the shipped kernel to wrap: dense.torch_mm, csr.c, ..."
    )
    parser.add_argument("--problems", type=int, default=40, help="five unchanged and three slower kernels on each")
    parser.add_argument("--runs", type=int, default=6, help="runs of each side, turn about")
    parser.add_argument("--budget", type=float, default=0.3, help="seconds a trial")
    parser.add_argument("--cache", default="weights_cold")
    return parser.parse_args()


def write_suite(asked: argparse.Namespace) -> Path:
    """The suite of as many problems as were asked for, small enough for many rounds a second."""
    shapes = [(m, k, n) for n in (128, 192) for m, k in product(SIDES, SIDES)]
    chosen = shapes[:: max(1, len(shapes) // asked.problems)][: asked.problems]
    dense = asked.kernel.startswith("dense.")
    suite = asked.folder / "planted.yaml"
    suite.write_text(
        SUITE.format(
            cache=asked.cache,
            budget_s=asked.budget,
            problems="\n".join(f"  - {{m: {m}, k: {k}, n: {n}, dtype: float32}}" for m, k, n in chosen),
            pattern="dense" if dense else "unstructured, sparsity: [0.9]",
            format=asked.kernel.split(".")[0],
        )
    )
    return suite


def write_plugin(asked: argparse.Namespace, side: str, shares: dict[str, float]) -> Path:
    """The plugin of one side."""
    plugin = asked.folder / side / "planted.py"
    plugin.parent.mkdir(exist_ok=True)
    plugin.write_text(
        PLUGIN.format(
            about=f"{asked.kernel} as the {side} run has it",
            shares=shares,
            wrapped=asked.kernel,
            format=asked.kernel.split(".")[0],
        )
    )
    return plugin


def sparsebench(command: str, *more: object) -> str:
    """What a command prints; its talk goes on to stderr. Ends this script where it cannot be run at all."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, command, *map(str, more)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode > 1:
        sys.exit(done.returncode)
    return done.stdout


def report(found: dict[str, Any]) -> int:
    """Say the rates; 1 where one is missed."""
    words: dict[str, Counter[str]] = {}
    for pair in found["pairs"]:
        letter = pair["kernel"].partition(".planted_")[2]
        group = f"{PLANTED[letter]:.0%} slower" if PLANTED.get(letter) else "unchanged" if letter else "shipped"
        words.setdefault(group, Counter())[pair["verdict"]] += 1
    quiet = words.get("unchanged", Counter()) + words.get("shipped", Counter())
    alarms, unchanged = quiet["SLOW"] + quiet["FAST"], sum(quiet.values())
    missed = not unchanged or alarms > MOST_FALSE_ALARMS * unchanged
    print(f"false alarms      {alarms} of {unchanged} unchanged pairs (wanted: <= {MOST_FALSE_ALARMS:.0%})")
    for share, wanted in WANTED.items():
        counts = words.get(f"{share:.0%} slower", Counter())
        slow, cases = counts["SLOW"], sum(counts.values())
        missed |= not cases or slow < wanted * cases
        print(f"{share:4.0%} slower       {slow} of {cases} found (wanted: >= {wanted:.0%})")
    for group, counts in sorted(words.items()):
        print(f"{group:17} {', '.join(f'{count} {word}' for word, count in counts.most_common())}")
    against = Counter(" + ".join(pair["against"]["names"]) or "plain seconds" for pair in found["pairs"])
    print("compared with     " + ", ".join(f"{name} {count}" for name, count in against.most_common()))
    print("between two runs  " + ", ".join(f"{name} {part['sd']:.2%}" for name, part in found["apart"].items()))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
