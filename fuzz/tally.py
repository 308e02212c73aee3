"""Trying one thing after another, and counting what becomes of each."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_SAMPLES = 40


class Outcome(NamedTuple):
    """What was tried, of which kind; right, refused, wrong or crashed; what was said; seconds."""

    kind: str
    what: str
    verdict: str
    said: str
    seconds: float


def tally(
    outcomes: Iterator[Outcome],
    kinds: Iterable[str],
    seed: int,
    count: int | None,
    budget_seconds: float,
) -> dict[str, Any]:
    """Take ``count`` outcomes, or as many as the seconds allow; how many there are, by kind too.

    The first that are wrong or crashed are kept as samples.
    """
    found: dict[str, Any] = {"tried": 0, "right": 0, "refused": 0, "wrong": 0, "crashed": 0}
    found |= {"seed": seed, "slowest_s": 0.0, "by_kind": dict.fromkeys(kinds, 0), "samples": []}
    begun = time.perf_counter()
    while found["tried"] < count if count else time.perf_counter() - begun < budget_seconds:
        one = next(outcomes)
        found["tried"] += 1
        found[one.verdict] += 1
        found["by_kind"][one.kind] += 1
        found["slowest_s"] = max(found["slowest_s"], round(one.seconds, 3))
        if one.verdict in ("wrong", "crashed") and len(found["samples"]) < _SAMPLES:
            found["samples"].append(f"{one.what}: {one.said[:300]} [{one.seconds:.2f} s]")
    return found
