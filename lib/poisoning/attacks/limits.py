"""Settings that several attacks of Koh et al. 2021 share."""

from dataclasses import dataclass

from poisoning.settings import COUNT, FRACTION, PERCENTILE, QUANTILE, Settings, allowed, setting


@dataclass(frozen=True)
class WithinLimits(Settings):
    """An attack whose poison passes the L2 and the slab defense as the attacker models them."""

    epsilon: float = setting(0.03, FRACTION, "poison, as a fraction of the clean training set")
    radius_percentile: float = setting(
        90.0, PERCENTILE, "poison stays within this percentile of clean distances from the centroid"
    )
    slab_percentile: float = setting(
        90.0, PERCENTILE, "the same for distances along the line between the centroids"
    )


@dataclass(frozen=True)
class WithDecoys(WithinLimits):
    """An attack that tries a grid of decoys, and adds each point of poison several times.

    ``opening`` is the (quantile, copies) of the decoy that is tried while no other is trained yet;
    others follow by increasing distance of their test error from that decoy's. It affects how soon
    a good attack is found, and hardly the winner's value.
    """

    copies: int = setting(2, COUNT, "copies of each rounded point")
    quantiles: tuple[float, ...] = setting(
        tuple(round(0.05 * k, 2) for k in range(1, 12)),
        QUANTILE,
        "the grid of decoys: fractions of the test points whose labels are flipped",
        many=True,
    )
    decoy_copies: tuple[int, ...] = setting(
        (1, 2, 3, 5, 8, 12, 18, 25, 33),
        COUNT,
        "the grid of decoys: how often a flipped test point is added",
        many=True,
    )
    opening: tuple[float, int] = (0.4, 8)

    def __post_init__(self) -> None:
        """Check ``opening`` too."""
        super().__post_init__()
        kinds = {"kind": QUANTILE, "many": False, "none": False}
        if isinstance(self.opening, list):
            object.__setattr__(self, "opening", tuple(self.opening))
        pair = isinstance(self.opening, tuple) and len(self.opening) == 2
        quantile, copies = self.opening if pair else (None, None)
        if not allowed(quantile, kinds) or not allowed(copies, kinds | {"kind": COUNT}):
            raise ValueError(
                f"{type(self).__name__}: opening must be a quantile between 0 and 1 and a whole "
                f"number from 1, not {self.opening!r}."
            )
