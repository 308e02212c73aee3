"""What an audit found, in sentences for an engineer; every number is one of the report's."""

from typing import Any

from poisoning.games.linear import NONE
from replication.audit.summary import ATTACK_NAMES, DEFENSE_NAMES, MIN5, least_votes, percent


def rows_of(points: int) -> str:
    """A number of rows in words."""
    return "1 row" if points == 1 else f"{points:,} rows"


def verdicts(summary: dict[str, Any]) -> list[str]:
    """The findings that matter most."""
    if not summary["clean"]:
        return {
            "done": ["Nothing could be measured on these data; what failed, and why, is below."],
            "time": ["The time ended before anything was measured: give more MINUTES."],
            "interrupted": ["The audit was interrupted before anything was measured."],
        }[summary["ended"]]
    found = [_clean(summary), *_attacked(summary), _certain(summary)]
    choice = summary["choice"]
    if choice["defense"] is not None:
        found += [_defense(summary, choice["defense"])]
    if choice["lam"] is not None:
        found += [_lam(choice["lam"])]
    return found


def _clean(summary: dict[str, Any]) -> str:
    error = summary["clean"][0]["error"]["value"]
    larger = summary["data"]["majority_error"]
    useless = " That is no better than guessing." if error >= larger else ""
    return (
        f"Without poison a linear model errs on {percent(error)} of rows that it has not seen. "
        f"Always naming the larger class errs on {percent(larger)}.{useless}"
    )


def _attacked(summary: dict[str, Any]) -> list[str]:
    """One sentence for one row of poison, one for the main number of rows."""
    found = []
    for points in dict.fromkeys((1, summary["settings"]["main_points"])):
        rows = {row["defense"]: row for row in summary["worst"] if row["points"] == points}
        if NONE in rows and MIN5 in rows:
            bare, behind = rows[NONE], rows[MIN5]
            found.append(
                f"An attacker who adds {rows_of(points)} to {summary['settings']['train_rows']:,} "
                f"training rows brings the error to {percent(bare['error']['value'])} "
                f"({ATTACK_NAMES[bare['attack']]}), and to {percent(behind['error']['value'])} "
                "or more behind each of five defenses."
            )
    return found


def _certain(summary: dict[str, Any]) -> str:
    larger = summary["data"]["majority_error"]
    single = [
        row for row in summary["certified"]
        if row["method"] == "svm" and row["lam"] == summary["settings"]["lam"]
        and row["bound"]["value"] < larger
    ]  # fmt: skip
    votes = [row for row in least_votes(summary) if row["bound"]["value"] < larger]
    parts = []
    if single:
        row = max(single, key=lambda row: row["points"])
        parts.append(
            f"{rows_of(row['points'])} within the range of the data cannot bring the model above "
            f"{percent(row['bound']['value'])}"
        )
    if votes:
        row = max(votes, key=lambda row: row["points"])
        parts.append(
            f"no {rows_of(row['points'])} at all can bring a vote of {row['parts']} models, each "
            f"trained on its own part of the rows, above {percent(row['bound']['value'])}"
        )
    if not parts:
        return "Nothing is certain: no bound on the error is below that of the larger class."
    return f"Certain, in the mean over the splits: {'; '.join(parts)}."


def _defense(summary: dict[str, Any], choice: dict[str, Any]) -> str:
    points = rows_of(summary["settings"]["main_points"])
    if not choice["clear"]:
        return (
            f"Defense: none is clearly better than doing nothing against {points} of poison, on "
            "these measurements."
        )
    return (
        f"Defense: choose {DEFENSE_NAMES[choice['best']]}. Under attack by {points} of poison the "
        f"error falls by {100.0 * choice['gain']['value']:.1f} points, and "
        f"{_cost(choice['cost']['value'])}."
    )


def _lam(choice: dict[str, Any]) -> str:
    if not choice["clear"]:
        return (
            f"λ: stay with {choice['usual']:g}, which is best on clean data. No other is clearly "
            "better under attack."
        )
    what = "error under attack" if choice["by"] == "attacked" else "bound for 1 row of poison"
    return (
        f"λ: choose {choice['best']:g} instead of {choice['usual']:g}, the best on clean data. The "
        f"{what} falls by {100.0 * choice['gain']['value']:.1f} points, and "
        f"{_cost(choice['cost']['value'])}."
    )


def _cost(cost: float) -> str:
    points = f"{100.0 * abs(cost):.1f}"
    if points == "0.0":
        return "the clean error stays"
    return f"the clean error {'rises' if cost > 0.0 else 'falls'} by {points}"


def ending(summary: dict[str, Any]) -> str:
    """How the audit ended, and what that means for the numbers."""
    seconds = f"{summary['seconds']:.0f} s"
    splits = summary["settings"]["splits"]
    over = f"{splits} random splits" if splits != 1 else "one random split"
    complete = summary["settings"]["complete_splits"]
    rest = (
        f"On {complete} of them everything was measured."
        if complete
        else ("Some measurements were not reached: more MINUTES give more.")
    )
    return {
        "done": f"All measurements are done, on {over}, in {seconds}.",
        "time": f"The audit used its time, {seconds}, on {over}. {rest}",
        "interrupted": f"The audit was interrupted after {seconds}, on {over}. {rest}",
    }[summary["ended"]]


def pictured(summary: dict[str, Any]) -> dict[str, str]:
    """Alternative texts of the pictures."""

    def listed(rows: list[dict[str, Any]], field: str) -> str:
        return "; ".join(f"{row['points']:,}: {percent(row[field]['value'])}" for row in rows)

    bare = [row for row in summary["worst"] if row["defense"] == NONE]
    single = [
        row for row in summary["certified"]
        if row["method"] == "svm" and row["lam"] == summary["settings"]["lam"]
    ]  # fmt: skip
    lams = "; ".join(f"{row['lam']:g}: {percent(row['clean']['value'])}" for row in summary["lams"])
    shifts = (summary["explanation"] or {"shifts": []})["shifts"]
    return {
        "attacked": "Test error against rows of poison, by defense. Without a defense "
        f"{listed(bare, 'error')}. The table below has all numbers.",
        "certified": "Bounds on the test error against rows of poison. One model "
        f"{listed(single, 'bound') or 'none'}; a vote {listed(least_votes(summary), 'bound')}.",
        "lams": f"Test error over λ: clean, attacked, and certified for one row. Clean {lams}.",
        "weights": "Weights before and after the attack of the features that change most: "
        + ", ".join(one["name"] for one in shifts[:5]) + ".",
    }  # fmt: skip
