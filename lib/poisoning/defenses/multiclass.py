"""What is left of a multi-class attack behind the L2 and the loss defense.

Fig. 8 of Koh et al. 2021. The detectors are those of Section 2.2 with more than two classes; the
final model is the multi-class support vector machine of Appendix B.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from poisoning.defenses.centroid import fit_l2
from poisoning.defenses.detector import keep_mask
from poisoning.models.multiclass_svm import train_multiclass_svm

MULTICLASS_DEFENSES = ("none", "l2", "loss")


@dataclass(frozen=True)
class MulticlassOutcome:
    """Test error, and which fractions of poison (NaN if there is none) and clean data were cut."""

    test_error: float
    poison_removed: float
    clean_removed: float


def evaluate_multiclass(
    X: Float[ndarray, "n d"],
    y: Int[ndarray, "n"],
    X_test: Float[ndarray, "m d"],
    y_test: Int[ndarray, "m"],
    X_poison: Float[ndarray, "r d"],
    y_poison: Int[ndarray, "r"],
    classes: int,
    rng: np.random.Generator,
    *,
    defenses: Sequence[str] = MULTICLASS_DEFENSES,
    remove: float = 0.05,
) -> dict[str, MulticlassOutcome]:
    """Sanitise clean data and poison together, train on the rest, test.

    The training order comes from ``rng``; on MNIST it alone moves an error by ±0.2 points. The
    loss defense scores with a model trained on everything. Raises ``ValueError`` for other
    defenses.
    """
    unknown = sorted(set(defenses) - set(MULTICLASS_DEFENSES))
    if unknown:
        raise ValueError(f"unknown defenses {unknown}; there are {', '.join(MULTICLASS_DEFENSES)}")
    everything, labels = np.vstack([X, X_poison]), np.concatenate([y, y_poison])
    poisoned = np.arange(len(labels)) >= len(y)
    undefended = train_multiclass_svm(everything, labels, classes, rng)
    outcomes = {}
    for name in defenses:
        model, keep = undefended, np.ones(len(labels), dtype=bool)
        if name != "none":
            groups = labels.astype(np.float64)
            if name == "l2":
                scores = fit_l2(everything, groups).score(everything, groups)
            else:
                scores = undefended.losses(everything, labels)
            keep = keep_mask(scores, groups, remove)
            model = train_multiclass_svm(everything[keep], labels[keep], classes, rng)
        outcomes[name] = MulticlassOutcome(
            test_error=model.error(X_test, y_test),
            poison_removed=float(1.0 - keep[poisoned].mean()) if poisoned.any() else float("nan"),
            clean_removed=float(1.0 - keep[~poisoned].mean()),
        )
    return outcomes
