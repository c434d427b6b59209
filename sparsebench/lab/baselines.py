"""The dense side of a problem: which dense kernels are the named baselines, and a record for each of them.

Each dense kernel is checked alone; then all of them run one interleaved screening. Those within 3 % of the fastest, at
most two, become the named baselines, and with them the one that is fastest with its layout change, since that is what
`speedup_total` is over: a library that is fastest on a layout nobody hands it may be three times as slow in all. Where
that is one kernel alone the next fastest is named too, so that a trial has two beside it in every run: what streams
between two calls of a kernel counts, and how many are within 3 % is chance. Two sweeps that had one beside a trial here
and two there differed by 7.7 % on average, and by 4.9 and 5.5 where both had one, or two (Y of 2 MB at most; one
Emerald Rapids core; larger ones by 14.8, 9.0 and 8.7).

The winner is entered twice (A/A: dense.aa must come out 1 within 2 %). With it are timed once more the baselines, and
of the dense kernels of a convolution that lay images out otherwise than all of these the fastest: a network may stay in
that layout for the sake of other layers.

Baselines are part of a record's key, so a later run takes those of the stored dense records as long as nothing that
made them has changed (Ledger.common_baselines): noise between two near-equal kernels must not void finished work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsebench.lab.bench import AA
from sparsebench.lab.ledger import Ledger
from sparsebench.lab.wire import Answer, CheckDense, Request, Screen
from sparsebench.paired import paired_ratio, usual
from sparsebench.suite import Trial

NEAR_BEST = 1.03
MOST = 2
AA_TOLERANCE = 0.02

Baselines = Mapping[str, str]  # kernel name -> source_sha
Ask = Callable[[Request], tuple[Answer, str]]
Finish = Callable[[Baselines, Sequence[tuple[Trial, Answer]]], None]


def passing(dense: Sequence[Trial], ask: Ask, finish: Finish) -> list[Trial]:
    """The dense trials whose kernels pass both gates; the others get the record that says why not."""
    passed = []
    for trial in dense:
        answer, _ = ask(CheckDense(trial.case, trial.kernel))
        if answer.outcome == "ok":
            passed.append(trial)
        else:
            finish({}, [(trial, answer)])
    return passed


def screen(passed: Sequence[Trial], ledger: Ledger, ask: Ask, finish: Finish) -> Baselines:
    """Time and record the dense trials of a problem that passed the gates; the named baselines, empty if none is left.

    All of their records are stored in one write: a run killed in between would name other baselines the next time.
    """
    trials = {trial.kernel: trial for trial in passed}
    screened = _time_together(trials, ask, finish)
    if screened is None:
        return {}
    own = {name: ask(CheckDense(trial.case, name))[0] for name, trial in trials.items()}
    layout_s = {name: answer.facts.get("layout_s", {}).get(name, 0.0) for name, answer in own.items()}
    usual_s = {name: usual(times_s) for name, times_s in screened.facts["samples"][ledger.protocol.cache[0]].items()}
    named = name_baselines(usual_s, layout_s)
    case = trials[named[0]].case
    also = _lying_otherwise(named, usual_s, layout_s) if case.conv else []
    twin, _ = ask(Screen(case, [*named, *also], twin=True))
    layout_s[AA] = layout_s[named[0]]
    answers = []
    for name, trial in trials.items():
        again = name in (named[0], *also) and twin.outcome == "ok" and not twin.facts["wrong"]
        answers.append((trial, _answer(name, own[name], twin if again else screened, named, layout_s)))
    baselines = {name: ledger.sha(name) for name in named}
    finish(baselines, answers)
    return baselines


def name_baselines(usual_s: Mapping[str, float], layout_s: Mapping[str, float]) -> list[str]:
    """Kernels whose usual time is within 3 % of the least, fastest first, at most two; then the fastest in all.

    Where that is one alone, the next fastest as well. The usual time is that of undisturbed rounds (paired.usual). By
    medians a kernel of 1.43 ms was named where another takes 1.18, whose rounds of one moment were 1.27 to 1.74: what
    ran beside them slows one library more than another.

    layout_s  seconds of each kernel's layout change, 0 where it is not named

    >>> name_baselines({"a": 1.0, "b": 1.02, "c": 1.01, "d": 2.0}, {})
    ['a', 'c']
    >>> name_baselines({"a": 1.0, "b": 1.5, "c": 2.0}, {"a": 0.8})
    ['a', 'b']
    >>> name_baselines({"a": 1.0, "b": 1.5, "c": 2.0}, {})
    ['a', 'b']
    """
    fastest = sorted(usual_s, key=usual_s.__getitem__)
    named = [name for name in fastest if usual_s[name] <= NEAR_BEST * usual_s[fastest[0]]][:MOST]
    in_all = min(usual_s, key=lambda name: (usual_s[name] + layout_s.get(name, 0.0), name not in named))
    if in_all not in named:
        named.append(in_all)
    return named if len(named) > 1 else fastest[:MOST]


def _lying_otherwise(named: Sequence[str], usual_s: Mapping[str, float], layout_s: Mapping[str, float]) -> list[str]:
    """The fastest kernel that turns images where none of `named` does, or that takes them as they lie; none if none."""
    turning = {layout_s.get(name, 0.0) > 0 for name in named}
    others = [name for name in usual_s if (layout_s.get(name, 0.0) > 0) not in turning]
    return sorted(others, key=usual_s.__getitem__)[:1]


def _time_together(trials: dict[str, Trial], ask: Ask, finish: Finish) -> Answer | None:
    """One interleaved run of these kernels; who breaks is recorded, leaves `trials`, and the others run again."""
    while trials:
        case = next(iter(trials.values())).case
        answer, suspect = ask(Screen(case, list(trials)))
        if answer.outcome == "ok" and not answer.facts["wrong"]:
            return answer
        reasons = answer.facts["wrong"] if answer.outcome == "ok" else {suspect: answer.reason}
        outcome = "wrong" if answer.outcome == "ok" else answer.outcome
        for name in [name for name in trials if name in reasons] or list(trials):
            finish({}, [(trials.pop(name), Answer(outcome, reasons.get(name, answer.reason)))])
    return None


def _answer(name: str, own: Answer, timed: Answer, named: Sequence[str], layout_s: Mapping[str, float]) -> Answer:
    """What a dense kernel's record says: its facts, and its own and the baselines' samples of one interleaved run."""
    if own.outcome != "ok":
        return own  # the worker died since it was timed
    kept = {name, *named, AA}
    samples = {
        cache: {kernel: times_s for kernel, times_s in by_name.items() if kernel in kept}
        for cache, by_name in timed.facts["samples"].items()
    }
    flags = [flag for flag in timed.facts["flags"] if flag.split(":")[1] in kept] + aa_flags(name, samples)
    facts: dict[str, Any] = {
        **own.facts,
        **{fact: timed.facts[fact] for fact in ("stop", "clocks")},
        "layout_s": {kernel: layout_s[kernel] for by_name in samples.values() for kernel in by_name},
        "samples": samples,
        "flags": flags,
    }
    return Answer("ok", facts={**facts, "error_ratio": timed.facts["error_ratios"].get(name)})


def aa_flags(name: str, samples: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """`aa_off:kernel:cache` for every cache in which a kernel entered twice differs from itself by more than 2 %."""
    return [
        f"aa_off:{name}:{cache}"
        for cache, by_name in samples.items()
        if AA in by_name and abs(paired_ratio(by_name[AA], by_name[name]).median - 1) > AA_TOLERANCE
    ]
