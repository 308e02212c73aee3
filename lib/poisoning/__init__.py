"""Games, attacks, defenses and learners for reproducible data-poisoning research.

    import poisoning as po

    game = po.LinearGame(X, y, X_test, y_test, domain="counts", learner=po.SVM(lam=0.09))
    for attack in (po.RandomFlips(0.03), po.KKT(0.03), po.MinMax(0.03), po.Influence(0.03)):
        print(attack, attack(game, rng=0).value)
    game.evaluate(my_points, my_labels)

The names in ``__all__`` are imported at first use: games and learners need scikit-learn, which
takes a second to import, and some need torch.
"""

from poisoning.lazy import at_first_use

_HOMES = {
    "LinearGame": "poisoning.games.linear",
    "MultiTaskGame": "poisoning.games.multi_task",
    "BilevelGame": "poisoning.games.bilevel",
    "StreamGame": "poisoning.games.stream",
    "Attack": "poisoning.attacks.attacked",
    "Attacked": "poisoning.attacks.attacked",
    "RandomFlips": "poisoning.attacks.label_flips",
    "Alfa": "poisoning.attacks.label_flips",
    "Influence": "poisoning.attacks.influence",
    "KKT": "poisoning.attacks.kkt",
    "MinMax": "poisoning.attacks.min_max",
    "Iterated": "poisoning.attacks.iterated",
    "Adaptive": "poisoning.attacks.adaptive",
    "assess_defense": "poisoning.attacks.adaptive",
    "PATOM": "poisoning.attacks.patom",
    "MinimaxBilevel": "poisoning.attacks.minimax_bilevel",
    "ShiftOracle": "poisoning.attacks.oracle",
    "RepelOracle": "poisoning.attacks.oracle",
    "CleanLabelOracle": "poisoning.attacks.oracle",
    "Policy": "poisoning.games.bilevel",
    "FinalTraining": "poisoning.games.bilevel",
    "HyperparameterLearning": "poisoning.hypergradient.learning",
    "LamRange": "poisoning.hypergradient.learning",
    "GaussianLogistic": "poisoning.models.oracle_sgd",
    "certify_loss": "poisoning.certificates.loss",
    "certify_test_error": "poisoning.certificates.certified_error",
    "certify_over_lambda": "poisoning.certificates.certified_error",
    "partition_certificate": "poisoning.certificates.partition",
    "partition_sweep": "poisoning.certificates.partition",
    "measured": "poisoning.attacks.selection",
    "Settings": "poisoning.settings",
    "setting": "poisoning.settings",
    "Kind": "poisoning.settings",
    "FRACTION": "poisoning.settings",
    "SHARE": "poisoning.settings",
    "PERCENTILE": "poisoning.settings",
    "LAMBDA": "poisoning.settings",
    "STEP": "poisoning.settings",
    "COUNT": "poisoning.settings",
    "FLAG": "poisoning.settings",
    "FIVE": "poisoning.defenses",
    "L2Defense": "poisoning.defenses",
    "SlabDefense": "poisoning.defenses",
    "LossDefense": "poisoning.defenses",
    "SVDDefense": "poisoning.defenses",
    "KNNDefense": "poisoning.defenses",
    "RepeatsDefense": "poisoning.defenses.repeats",
    "RONIDefense": "poisoning.defenses.roni",
    "SEVERDefense": "poisoning.defenses.sever",
    "RandomFilter": "poisoning.defenses.filters",
    "OracleFilter": "poisoning.defenses.filters",
    "Together": "poisoning.defenses.filters",
    "as_defense": "poisoning.defenses.detector",
    "Dataset": "poisoning.datasets.dataset",
    "removal_by_validation": "poisoning.defenses.validation",
    "Sanitized": "poisoning.defenses.trusted",
    "TrustedChoice": "poisoning.defenses.trusted",
    "ValidatedRemoval": "poisoning.defenses.trusted",
    "SVM": "poisoning.learners",
    "LogisticRegression": "poisoning.learners",
    "OnePassSVM": "poisoning.learners",
    "CrammerSingerSVM": "poisoning.learners",
    "PartitionedVote": "poisoning.learners",
    "PoisonedSet": "poisoning.attacks.poisoned_set",
    "FeasibleSet": "poisoning.feasible.sets",
    "ClassSet": "poisoning.feasible.sets",
    "InputDomain": "poisoning.feasible.sets",
    "SolverError": "poisoning.errors",
    "EmptySetError": "poisoning.feasible.solver",
    "DataError": "poisoning.errors",
}
"""The public surface: every name, and the module that defines it."""

__all__ = list(_HOMES)
__getattr__ = at_first_use(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
