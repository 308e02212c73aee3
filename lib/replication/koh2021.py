"""What the notebooks of Koh et al. 2021 share: the paper's constants, and knobs as settings."""

from typing import Any

from poisoning.attacks.influence import InfluenceSettings
from poisoning.attacks.kkt import KKTSettings
from poisoning.attacks.min_max import MinMaxSettings
from poisoning.attacks.suite import Suite

LAMBDA = {"enron": 0.09, "imdb": 0.01, "mnist-1-7": 0.01, "dogfish": 1.10}
"""The defender's λ, Table 1."""

LABELS = {
    "flip": "random flips",
    "alfa": "alfa flips",
    "influence": "influence",
    "kkt": "KKT",
    "minmax": "min-max",
}
"""Names of attacks as pictures show them."""


def suite(knobs: dict[str, Any], dataset: str = "enron") -> Suite:
    """The settings of all attacks from the block ``koh2021.suite`` of ``params.yaml``.

    IMDB, slow to train on, has a decoy grid of its own (Appendix B.2).
    """
    common = {
        "epsilon": knobs["epsilon"],
        "radius_percentile": knobs["radius_percentile"],
        "slab_percentile": knobs["radius_percentile"],
        "repeats": knobs["repeats"],
    }
    of_imdb = "imdb_" if dataset == "imdb" else ""
    grid = {
        "quantiles": tuple(knobs[f"{of_imdb}decoy_quantiles"]),
        "decoy_repeats": tuple(knobs[f"{of_imdb}decoy_repeats"]),
    }
    return Suite(
        InfluenceSettings(
            **common,
            positive_shares=tuple(knobs["influence_shares"]),
            step_sizes=tuple(knobs["influence_steps"]),
            iterations=knobs["influence_iterations"],
        ),
        KKTSettings(
            **common, **grid, loss_percentile=knobs["loss_percentile"], ratios=knobs["ratios"]
        ),
        MinMaxSettings(**common, **grid, loss_cap=knobs["loss_cap"]),
    )
