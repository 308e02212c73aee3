"""The content of ``report.json``: estimates over splits, choices, and sentences.

``docs/audit.md`` describes every field.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from poisoning.defenses import FIVE
from poisoning.defenses.detector import name_of
from poisoning.games.linear import NONE
from poisoning.metrics import mean_interval
from replication.audit.features import Problem
from replication.audit.measuring import LAMBDAS, PERCENTILE, TEST, Findings, main_points
from replication.words import ATTACKS, DEFENDERS

SCHEMA = 1
FIXED, ADAPTIVE = "fixed", "adaptive"
"""Attackers who do not know the defense, and those who do."""

MIN5 = "min5"
"""The defense that is best against an attack: of the five the one with the least error."""

ATTACK_NAMES = {
    **{key: ATTACKS[key] for key in ("flip", "alfa", "kkt", "minmax", "influence")}, NONE: "none",
}  # fmt: skip
DEFENSE_NAMES = {
    **{key: DEFENDERS[key] for key in (NONE, *map(name_of, FIVE))}, MIN5: DEFENDERS["min of 5"],
}  # fmt: skip


def percent(value: float) -> str:
    """A fraction as the report writes it."""
    return f"{100.0 * value:.1f} %"


def estimate(values: Sequence[float] | ndarray, *, error: bool = True) -> dict[str, Any]:
    """Mean and 95 % interval over splits, which overlap: Nadeau & Bengio 2003.

    They draw training rows from the same table, so that the variance of the mean of n splits is
    taken as (1/n + test share / training share) s² instead of s²/n. The ends of an ``error`` are
    kept in [0, 1].
    """
    plain = mean_interval(values)
    if plain.ci95 is None:
        return {"value": plain.value, "ci95": None, "n": plain.n}
    half = float(plain.half_width * np.sqrt(1.0 + plain.n * TEST / (1.0 - TEST)))
    ends = [plain.value - half, plain.value + half]
    if error:
        ends = [max(ends[0], 0.0), min(ends[1], 1.0)]
    return {"value": plain.value, "ci95": ends, "n": plain.n}


class Tables:
    """Measurements of one audit by split, with the best of the five defenses as one more."""

    def __init__(self, findings: Findings) -> None:
        self.lam = findings.lam
        errors = pd.DataFrame(
            [asdict(one) for one in findings.errors],
            columns=["split", "lam", "attack", "knows", "points", "defense", "error",
                     "poison_removed", "clean_removed"],
        )  # fmt: skip
        behind = errors.defense.isin([name_of(one) for one in FIVE])
        five = errors[behind & (errors.knows == FIXED)]
        keys = ["split", "lam", "attack", "knows", "points"]
        least = five.loc[five.groupby(keys).error.idxmin()].assign(defense=MIN5)
        self.errors = pd.concat([errors, least], ignore_index=True)

    def by_split(self, **where: Any) -> pd.Series:
        """The error of each split where columns have the given values.

        Unless said otherwise, λ is the chosen one and attackers do not know the defense.
        """
        found = self.errors
        for name, value in ({"lam": self.lam, "knows": FIXED} | where).items():
            found = found[found[name] == value]
        return found.groupby("split").error.max()

    def worst(self, **where: Any) -> tuple[str, pd.Series] | None:
        """The attack with the greatest mean error over the splits, and its errors."""
        found = {name: self.by_split(attack=name, **where) for name in ATTACK_NAMES if name != NONE}
        most = max((len(errors) for errors in found.values()), default=0)
        found = {name: errors for name, errors in found.items() if len(errors) == most > 0}
        if not found:
            return None
        name = max(found, key=lambda name: found[name].mean())
        return name, found[name]

    def known(self, points: int, defense: str) -> pd.Series | None:
        """The errors of an attacker who knows the defense, on splits where there was one.

        Who knows it may also use the strongest poison of those who do not.
        """
        adaptive = self.by_split(points=points, defense=defense, knows=ADAPTIVE)
        fixed = self.worst(points=points, defense=defense)
        if fixed is None or not len(adaptive):
            return None
        both = pd.concat([adaptive, fixed[1]], axis=1).dropna()
        return both.max(axis=1) if len(both) else None


def summarise(problem: Problem, findings: Findings) -> dict[str, Any]:
    """Everything of the report that follows from data and measurements."""
    tables = Tables(findings)
    main = main_points(findings.train_rows)
    choice = {
        "defense": _defense(tables, main),
        "lam": _lam(tables, main, findings),
    }
    return {
        "schema": SCHEMA,
        "ended": findings.ended,
        "seconds": round(findings.seconds, 1),
        "data": _data(problem),
        "settings": _settings(findings, main),
        "clean": _clean(problem, tables),
        "attacks": _attacks(tables),
        "worst": _worst(tables, findings),
        "lams": _lams(tables, main, findings),
        "certified": _certified(findings),
        "explanation": asdict(findings.explanation) if findings.explanation else None,
        "choice": choice,
        "failed": [
            {"what": what, "why": why, "times": times}
            for (what, why), times in sorted(findings.failed.items())
        ],
    }


def _data(problem: Problem) -> dict[str, Any]:
    share = float(np.mean(problem.y > 0))
    return {
        "rows_in_file": problem.total,
        "rows": len(problem.y),
        "features": len(problem.names),
        "domain": problem.domain.kind,
        "kinds": problem.kinds,
        "classes": problem.classes,
        "positive": problem.positive,
        "negative": problem.negative,
        "majority_error": min(share, 1.0 - share),
        "notes": list(problem.notes),
    }


def _settings(findings: Findings, main: int) -> dict[str, Any]:
    splits = len({one.split for one in findings.errors})
    return {
        "lam": findings.lam,
        "splits": splits,
        "complete_splits": findings.complete,
        "train_rows": findings.train_rows,
        "test_rows": findings.test_rows,
        "points": [{"points": k, "share": share} for k, share in findings.points.items()],
        "main_points": main,
        "percentile": PERCENTILE,
    }


def _clean(problem: Problem, tables: Tables) -> list[dict[str, Any]]:
    """The error behind each defense without poison, and what the defense costs."""
    bare = tables.by_split(attack=NONE, defense=NONE)
    found = []
    for defense in DEFENSE_NAMES:
        errors = tables.by_split(attack=NONE, defense=defense)
        if defense != MIN5 and len(errors):
            cost = estimate((errors - bare).to_numpy(), error=False)
            found.append({"defense": defense, "error": estimate(errors.to_numpy()), "cost": cost})
    return found


def _attacks(tables: Tables) -> list[dict[str, Any]]:
    poisoned = tables.errors[(tables.errors.points > 0) & (tables.errors.lam == tables.lam)]
    keys = ["points", "attack", "knows", "defense"]
    return [
        dict(zip(keys, map(_plain, key), strict=True))
        | {
            "error": estimate(rows.error.to_numpy()),
            "poison_removed": float(rows.poison_removed.mean()),
            "clean_removed": float(rows.clean_removed.mean()),
        }
        for key, rows in poisoned.groupby(keys)
    ]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _worst(tables: Tables, findings: Findings) -> list[dict[str, Any]]:
    """The strongest attack for every number of points and defense."""
    found = []
    for points, share in findings.points.items():
        for defense in DEFENSE_NAMES:
            worst = tables.worst(points=points, defense=defense)
            if worst is not None:
                name, errors = worst
                known = tables.known(points, defense)
                found.append({
                    "points": points, "share": share, "defense": defense, "attack": name,
                    "error": estimate(errors.to_numpy()),
                    "adaptive": None if known is None else estimate(known.to_numpy()),
                })  # fmt: skip
    return found


def _lams(tables: Tables, main: int, findings: Findings) -> list[dict[str, Any]]:
    """Clean, attacked and certified error without a defense, for every λ."""
    found = []
    for lam in LAMBDAS:
        clean = tables.by_split(lam=lam, attack=NONE, defense=NONE)
        worst = tables.worst(lam=lam, points=main, defense=NONE)
        bounds = [
            one.bound for one in findings.bounds
            if (one.method, one.lam, one.points) == ("svm", lam, 1)
        ]  # fmt: skip
        if len(clean):
            found.append({
                "lam": lam,
                "clean": estimate(clean.to_numpy()),
                "attacked": estimate(worst[1].to_numpy()) if worst else None,
                "attack": worst[0] if worst else None,
                "certified_1": estimate(bounds) if bounds else None,
            })  # fmt: skip
    return found


def _certified(findings: Findings) -> list[dict[str, Any]]:
    frame = pd.DataFrame([asdict(one) for one in findings.bounds])
    if not len(frame):
        return []
    found = []
    for (method, lam, parts, points), rows in frame.groupby(["method", "lam", "parts", "points"]):
        attacked = rows.attacked.dropna()
        found.append({
            "method": method, "lam": float(lam), "parts": int(parts), "points": int(points),
            "bound": estimate(rows.bound.to_numpy()), "majority": float(rows.majority.mean()),
            "attacked": estimate(attacked.to_numpy(dtype=np.float64)) if len(attacked) else None,
            "exceeded": int((rows.attacked > rows.bound + 1e-9).sum()),
        })  # fmt: skip
    return found


def least_votes(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """For every number of points the vote with the least bound, and its ``clean`` error."""
    votes = [row for row in summary["certified"] if row["method"] == "vote"]
    clean = {row["parts"]: row["bound"] for row in votes if row["points"] == 0}
    least: dict[int, dict[str, Any]] = {}
    for row in votes:
        best = least.get(row["points"])
        if row["points"] and (best is None or row["bound"]["value"] < best["bound"]["value"]):
            least[row["points"]] = row | {"clean": clean[row["parts"]]}
    return [least[points] for points in sorted(least)]


def _defense(tables: Tables, main: int) -> dict[str, Any] | None:
    """The defense with the least error under its strongest attack, compared with none.

    Attackers know the defense where that was measured; all defenses are compared on those splits.
    """
    errors = {}
    for name in DEFENSE_NAMES:
        known, fixed = tables.known(main, name), tables.worst(points=main, defense=name)
        if name != MIN5 and fixed is not None:
            errors[name] = fixed[1] if known is None else known
    if NONE not in errors:
        return None
    common = pd.concat(errors, axis=1).dropna()
    if not len(common):
        return None
    best = common.mean().idxmin()
    clean = tables.by_split(attack=NONE, defense=best)
    cost = (clean - tables.by_split(attack=NONE, defense=NONE)).dropna()
    return _chosen(best, NONE, common[best], common[NONE] - common[best], cost)


def _lam(tables: Tables, main: int, findings: Findings) -> dict[str, Any] | None:
    """The λ with the least error under its strongest attack, or else the least bound for one row.

    It is compared with the usual choice; ``by`` says which of the two the numbers are of.
    """
    attacked = {
        lam: worst[1]
        for lam in LAMBDAS
        if (worst := tables.worst(lam=lam, points=main, defense=NONE)) is not None
    }
    bounds = {
        lam: pd.Series({
            one.split: one.bound for one in findings.bounds
            if (one.method, one.lam, one.points) == ("svm", lam, 1)
        })
        for lam in LAMBDAS
    }  # fmt: skip
    chosen = None
    if len(attacked) < 2:
        return chosen
    for by, errors in (("attacked", attacked), ("certified", bounds)):
        errors = {lam: values for lam, values in errors.items() if len(values)}
        if findings.lam in errors and not (chosen and chosen["clear"]):
            best = min(errors, key=lambda lam: errors[lam].mean())
            gain = (errors[findings.lam] - errors[best]).dropna()
            if not len(gain):
                continue
            clean = tables.by_split(lam=best, attack=NONE, defense=NONE)
            cost = (clean - tables.by_split(attack=NONE, defense=NONE)).dropna()
            chosen = _chosen(best, findings.lam, errors[best], gain, cost) | {"by": by}
    return chosen


def _chosen(
    best: Any, usual: Any, errors: pd.Series, gain: pd.Series, cost: pd.Series
) -> dict[str, Any]:
    """``clear`` if the interval of the gain, split by split, lies above 0."""
    gained = estimate(gain.to_numpy(), error=False)
    return {
        "best": best,
        "usual": usual,
        "error": estimate(errors.to_numpy()),
        "gain": gained,
        "cost": estimate(cost.to_numpy(), error=False),
        "clear": bool(best != usual and gained["ci95"] is not None and gained["ci95"][0] > 0.0),
    }
