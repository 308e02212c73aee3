"""Every public function of the library that takes arrays, called with wrong arguments."""

from collections import Counter
from typing import Any

from tests.poisoning.test_doors import judged

NAME = "doors"


def run(seed: int, every: int = 1) -> dict[str, Any]:
    """All calls of ``tests/poisoning/doors.py``, or one in ``every``; nothing is random in them."""
    calls = judged(every)
    counts = Counter(call["verdict"] for call in calls)
    bad = [call for call in calls if call["verdict"] not in ("refused", "right")]
    return {
        "tried": len(calls),
        "right": counts["right"],
        "refused": counts["refused"],
        "wrong": counts["wrong"],
        "crashed": counts["crashed"] + counts["hung"],
        "seed": seed,
        "functions": len({call["name"] for call in calls}),
        "samples": [
            f"{call['name']}({call['argument']}={call['variant']}): {call['reason'][:200]}"
            for call in bad[:20]
        ],
    }
