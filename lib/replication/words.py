"""Tables as a notebook shows them: names of data sets, attacks and defenders in words.

Results keep the keys, by which metrics and claims are found.
"""

import pandas as pd

from replication import plotting

ATTACKS = {
    "flip": "random flips", "alfa": "alfa flips", "alfa-l2": "alfa, L2 only",
    "alfa-limited": "alfa, limited", "influence": "influence", "kkt": "KKT", "minmax": "min-max",
    "influence-basic": "influence, basic", "influence-no-lp": "influence, no LP relaxation",
    "influence-no-lp-same-radii": "the same, equal radii",
    "influence-inverse-balance": "influence, labels of B.1", "minmax-basic": "min-max, basic",
    "minmax-unaugmented": "min-max, unaugmented",
    "minmax-refined": "min-max, decoys redrawn",
    "minmax-known-defense": "min-max, defense known",
    "minmax-refined-known-defense": "both", "rmd": "RMD, fixed λ", "rmd-learned": "RMD, learned λ",
    "no-attack": "no attack",
}  # fmt: skip

DEFENDERS = plotting.BEHIND | {
    "repeats": "repeats dropped", "sever": "SEVER", "roni": "RONI",
    "validated-l2": "L2, p validated", "learned-lambda": "λ on trusted points",
    "learned-p": "p on trusted points", "partitions": "vote of partitions",
    "isolation-forest": "isolation forest",
}  # fmt: skip

WORDS = {
    "data": plotting.DATA | {
        f"{name}-0.001": f"{plotting.DATA[name]}, λ = 0.001" for name in ("sarcos", "landmine")
    },
    "attack": ATTACKS,
    "variant": ATTACKS,
    "defense": DEFENDERS,
    "defender": DEFENDERS,
    "policy": {
        f"{penalty}{who}{flips}": f"{before}{words}{after}"
        for penalty, before in (("", ""), ("l2-", "L2, "), ("l1-", "L1, "))
        for who, words in plotting.WHO_SETS.items()
        for flips, after in (("", ""), ("-flips", ", plain flips"))
    },
}  # fmt: skip
"""Words for keys, by the name of the column, or of the rows or columns, that holds them."""


def in_words(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy with words for keys in columns, and in labels whose level is named like one."""
    found = frame.copy(deep=False)
    for name, words in WORDS.items():
        if name in found.columns and found.columns.nlevels == 1:
            found[name] = found[name].map(lambda key, words=words: words.get(key, key))
    for axis, labels in enumerate((frame.index, frame.columns)):
        for level, name in enumerate(labels.names):
            if name in WORDS:
                words = WORDS[name]
                found = found.rename(
                    lambda key, words=words: words.get(key, key), axis=axis,
                    level=level if labels.nlevels > 1 else None,
                )  # fmt: skip
    return found


def html(frame: pd.DataFrame) -> str:
    """A table for a notebook: in words, a dash where there is no number."""
    return in_words(frame)._repr_html_().replace("<td>NaN</td>", "<td>–</td>")


def show_tables_in_words() -> None:
    """From now on, in this kernel."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, html)
