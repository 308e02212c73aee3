"""What the notebooks of Carnerero-Cano et al. 2023 share.

Pairs of classes, settings from knobs, units of work, and the quantities that claims are judged by.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd

from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.datasets import binary
from poisoning.games.bilevel import NO_REGULARISATION, FinalTraining, Policy
from poisoning.hypergradient.learning import LamRange
from poisoning.metrics import Estimate, mean_interval
from replication.hyperparameter_trial import FLIPS, Pool, Sizes, Trial, run_trial
from replication.longer_training import Longer

if TYPE_CHECKING:
    # Needs the pipeline's packages; units of work are made without them too.
    from replication.notebook import Notebook

CLASSES = {"mnist": (8, 0), "fashion-mnist": (2, 1), "cifar-10": (6, 0)}
"""Positive and negative class: 8 and 0, pullover and trouser, frog and airplane (Table III)."""

AS_ABOVE = "as above"
"""The variant in which nothing is varied."""

Quantities: TypeAlias = Mapping[str, np.ndarray]
"""The numbers that claims are judged by, by name: one per repeat, or one for all."""

MODERATE = 0.6
"""The largest rise of a test error that is moderate, as a share of that without regularisation."""

LEARNED = ("l2-learned", "l1-learned")
WITH_FLIPS = ("none", "l2-large", "l1-large", *LEARNED)
TRAINED_ON = ("none", "l2-cv", "l2-learned", "l1-cv", "l1-learned")


def load_pool(notebook: "Notebook", name: str) -> Pool:
    """The two classes of the paper, CIFAR-10 scaled to [−1, 1] (Section V-A)."""
    data = binary(notebook.load(name), *CLASSES[name])
    X, y = data.X, data.y
    if data.X_test is not None:
        X, y = np.concatenate([X, data.X_test]), np.concatenate([y, data.y_test])
    pixels = np.rint(255.0 * X).astype(np.uint8)
    return Pool(pixels, y, 2.0 / 255.0, -1.0) if name == "cifar-10" else Pool(pixels, y)


def even(number: float) -> int:
    """The nearest even number, for draws with as many examples of either class."""
    return 2 * round(number / 2)


def ranges(knobs: dict[str, Any], name: str) -> dict[str, LamRange]:
    """Φ(Λ) of either penalty on one data set."""
    return {"l2": LamRange(**knobs["recipes"][name]["l2"]), "l1": LamRange(**knobs["l1"])}


def logistic_settings(knobs: dict[str, Any], name: str) -> MinimaxBilevel:
    """The block ``carnerero2023.attack`` for one data set."""
    recipe = knobs["recipes"][name]
    return MinimaxBilevel(
        batch=round(knobs["batch"] * knobs["n_train"]),
        batches=knobs["batches"],
        steps=recipe["steps"],
        rate=recipe["rate"],
        hyperiterations=knobs["hyperiterations"],
        poison_step=recipe["poison_step"],
        lam_step=knobs["lam_step"],
        rule=knobs["rule"],
        **ranges(knobs, name),
    )


def logistic_policies(knobs: dict[str, Any], name: str) -> dict[str, Policy]:
    """All λ policies of Section V-B; the λ of ``-cv`` is replaced by that of cross-validation."""
    recipe = knobs["recipes"][name]
    policies = {"none": Policy(fixed=NO_REGULARISATION)}
    for penalty, domain in ranges(knobs, name).items():
        policies[f"{penalty}-large"] = Policy(penalty, recipe[f"large_{penalty}"])
        policies[f"{penalty}-cv"] = Policy(penalty, domain.start)
        policies[f"{penalty}-learned"] = Policy(penalty)
    return policies


def logistic_unit(notebook: "Notebook", name: str, pool: Pool, repeat: int) -> dict[str, Any]:
    """The arguments of :func:`run_trial` for one repeat of Figure 2."""
    knobs = notebook.shared("carnerero2023/attack")
    recipe = knobs["recipes"][name]
    policies = logistic_policies(knobs, name)
    grids = {
        f"{penalty}-cv": tuple(np.linspace(domain.low, domain.high, knobs["cv_points"]).tolist())
        for penalty, domain in ranges(knobs, name).items()
    }
    return {
        "pool": pool,
        "sizes": Sizes(
            knobs["n_train"], even(recipe["validation"] * knobs["n_train"]), knobs["n_test"]
        ),
        "policies": policies,
        "settings": logistic_settings(knobs, name),
        "testing": FinalTraining(knobs["epochs"], recipe["rate"]),
        "rng": notebook.rng(name, repeat, section="carnerero2023/attack"),
        "cv": grids,
        "flips": WITH_FLIPS,
        "top": tuple(recipe["top"]),
        "device": notebook.device,
    }


def sized_unit(
    notebook: "Notebook", name: str, pool: Pool, factor: float, repeat: int, policies: Sequence[str]
) -> dict[str, Any]:
    """A repeat of Figure 2 with another number of validation points, for Figures 4 and 9.

    ``factor`` multiplies the data set's own number; only the named policies are played, optimised
    and as plain flips.
    """
    knobs = notebook.shared("carnerero2023/attack")
    share = knobs["recipes"][name]["validation"]
    sizes = Sizes(knobs["n_train"], even(factor * share * knobs["n_train"]), knobs["n_test"])
    unit = logistic_unit(notebook, name, pool, repeat)
    played = {policy: unit["policies"][policy] for policy in policies}
    return unit | {
        "sizes": sizes, "policies": played, "cv": {}, "flips": tuple(policies), "top": ()
    }  # fmt: skip


def longer_unit(
    notebook: "Notebook", name: str, pool: Pool, repeat: int, *, factor: int, margin: float
) -> dict[str, Any]:
    """The arguments of :func:`replication.longer_training.run_longer` for a repeat of Figure 2.

    Models are tested after the usual number of epochs and after ``factor`` times as many; the grid
    of cross-validation goes ``margin`` further down.
    """
    unit = logistic_unit(notebook, name, pool, repeat)
    same = ("pool", "sizes", "settings", "testing", "rng", "device")
    epochs = unit["testing"].epochs
    return {key: unit[key] for key in same} | {
        "cv": {
            policy: tuple(np.linspace(min(grid) - margin, max(grid), len(grid)).tolist())
            for policy, grid in unit["cv"].items()
        },
        "policies": {policy: unit["policies"][policy] for policy in TRAINED_ON},
        "epochs": (epochs, factor * epochs),
    }


def longer_quantities(group: Sequence[Longer]) -> dict[str, np.ndarray]:
    """What longer training makes of Figures 2 and 3, per repeat.

    ``cv-rise`` is the rise of the test error with a cross-validated λ, ``cv-over-learned`` what a
    learned λ saves of that error at the largest budget, ``cv-at-edge`` whether cross-validation
    ended at an end of its grid. ``norm-ratio-gained``: the norm at the largest budget over the
    clean one, without regularisation; after the last number of epochs less after the first.
    """
    error = {p: np.array([t.error[t.row(p), :, -1] for t in group]) for p in group[0].names}
    free = np.array([t.norm[t.row("none")] for t in group])
    ratio = free[:, -1] / free[:, 0]
    found = {"none.norm-ratio-gained": ratio[:, -1] - ratio[:, 0]}
    for penalty in ("l2", "l1"):
        cv, learned = f"{penalty}-cv", f"{penalty}-learned"
        found |= {
            f"{penalty}.cv-rise": error[cv][:, -1] - error[cv][:, 0],
            f"{penalty}.cv-over-learned": error[cv][:, -1] - error[learned][:, -1],
            f"{penalty}.cv-at-edge": np.array([float(cv in t.cv_at_edge) for t in group]),
        }
    return found


Found = TypeVar("Found")


def by_data_set(trials: Mapping[tuple[str, int], Found]) -> dict[str, list[Found]]:
    """Trials by data set; they come by data set and repeat."""
    found: dict[str, list[Found]] = {}
    for (name, _), trial in trials.items():
        found.setdefault(name, []).append(trial)
    return found


def logistic_trials(notebook: "Notebook") -> dict[str, list[Trial]]:
    """All repeats on every data set: the units that ``logistic`` and others have in common."""
    knobs = notebook.shared("carnerero2023/attack")
    names = [name for name in knobs["datasets"] if notebook.available(name)]
    pools = {name: load_pool(notebook, name) for name in names}
    units = {
        (name, i): logistic_unit(notebook, name, pools[name], i)
        for name in names
        for i in range(knobs["repeats"])
    }
    return by_data_set(notebook.map(run_trial, units, "logistic regression"))


def variants(settings: MinimaxBilevel) -> dict[str, MinimaxBilevel]:
    """The settings that are not legible in the paper, varied one by one.

    They are the outer steps, their rule, T and η.
    """
    varied = {}
    for factor in (0.5, 2.0):
        for name, knob in (("poison step", "poison_step"), ("λ step", "lam_step")):
            step = factor * getattr(settings, knob)
            varied[f"{name} × {factor:g}"] = replace(settings, **{knob: step})
    return varied | {
        "T × 0.5": replace(settings, steps=max(1, settings.steps // 2)),
        "η × 0.5": replace(settings, rate=0.5 * settings.rate),
        "adaptive steps": replace(settings, rule="adaptive"),
    }


def run_variants(
    notebook: "Notebook",
    units: Mapping[str, list[dict[str, Any]]],
    trials: Mapping[str, list[Trial]],
) -> dict[str, dict[str, list[Trial]]]:
    """Units of :func:`run_trial` by data set, under every variant of their settings.

    ``trials`` are the results under unchanged settings, for the same draws or more.
    """
    found = {name: {AS_ABOVE: trials[name][: len(group)]} for name, group in units.items()}
    varied = {
        (name, label, i): unit | {"settings": settings}
        for name, group in units.items()
        for i, unit in enumerate(group)
        for label, settings in variants(unit["settings"]).items()
    }
    for (name, label, _), trial in notebook.map(run_trial, varied, "sensitivity").items():
        found[name].setdefault(label, []).append(trial)
    return found


def logistic_variants(
    notebook: "Notebook", trials: Mapping[str, list[Trial]]
) -> dict[str, dict[str, list[Trial]]]:
    """The first of ``trials``, unchanged and under every variant: by data set and variant."""
    draws = notebook.shared("carnerero2023/attack")["sensitivity_draws"]
    units: dict[str, list[dict[str, Any]]] = {}
    for name in trials:
        pool = load_pool(notebook, name)
        units[name] = [
            logistic_unit(notebook, name, pool, i) | {"flips": ("none",)} for i in range(draws)
        ]
    return run_variants(notebook, units, trials)


def network_policies(large_l2: float, large_l1: float) -> dict[str, Policy]:
    """All λ policies of Section V-C; the two arguments are the large fixed exponents."""
    policies = {"none": Policy(fixed=NO_REGULARISATION)}
    for penalty, large in (("l2", large_l2), ("l1", large_l1)):
        policies[f"{penalty}-large"] = Policy(penalty, large)
        policies[f"{penalty}-learned"] = Policy(penalty)
        policies[f"{penalty}-layers"] = Policy(penalty, per_layer=True)
    return policies


def network_quantities(group: Sequence[Trial]) -> dict[str, np.ndarray]:
    """Quantities of networks, per repeat, in addition to :func:`policy_quantities`.

    ``layers-relief`` is how much of the unregularised rise one λ per layer saves, ``layers-save``
    compares it with a single λ, ``large-over-learned-clean`` is what a large λ costs more than a
    learned one without poison, ``dead`` says whether it leaves an error near one half. A layer's
    growth is that of its λ since the clean data; the lead of the later layers is their mean
    growth less the first layer's. ``early-later-first`` is the lead after the first batch,
    ``later-first`` that at the middle budget (``second-first``, ``output-first`` of one layer
    alone), ``first-catches-up`` how much of the early lead is gone at the largest, ``evened-out``
    by how much the gap between the layers' λ narrows from the first batch to the last.
    ``norm-follows-lambda`` is the correlation of a layer's λ and the logarithm of its norm along
    the budget, averaged over the layers. The suffix ``-flips`` marks the same quantity under plain
    flips, where all policies of a repeat meet the same poison.
    """
    names = group[0].names
    error = {p: np.array([t.error[t.row(p)] for t in group]) for p in names}
    found = policy_quantities(group)
    middle = error["none"].shape[1] // 2
    last = {p: e[:, -1] for p, e in error.items()}
    for penalty in ("l2", "l1"):
        large, one, many = (f"{penalty}-{who}" for who in ("large", "learned", "layers"))
        rise = last[many] - error[many][:, 0]
        found |= {
            f"{penalty}.layers-relief": found["none.rise"] - rise,
            f"{penalty}.layers-save": last[one] - last[many],
            f"{penalty}.large-over-learned-clean": error[large][:, 0] - error[one][:, 0],
            f"{penalty}.dead": np.array([float((e > 0.45).any()) for e in error[large]]),
            f"{penalty}.norm-follows-lambda": np.array(
                [_norm_follows_lambda(t, many) for t in group]
            ),
        }
        if many + FLIPS in names:
            found[f"{penalty}.layers-save{FLIPS}"] = last[one + FLIPS] - last[many + FLIPS]
        lead = {}
        for suffix in (suffix for suffix in ("", FLIPS) if many + suffix in names):
            lam = np.array([t.lam[t.row(many + suffix)] for t in group])
            grown = lam - lam[:, :1]
            lead[suffix] = grown[:, :, 1:].mean(axis=2) - grown[:, :, 0]
            found |= {
                f"{penalty}.early-later-first{suffix}": lead[suffix][:, 1],
                f"{penalty}.later-first{suffix}": lead[suffix][:, middle],
                f"{penalty}.first-catches-up{suffix}": lead[suffix][:, 1] - lead[suffix][:, -1],
                f"{penalty}.evened-out{suffix}": np.ptp(lam[:, 1], 1) - np.ptp(lam[:, -1], 1),
            }
            for name, layer in (("second", 1), ("output", -1)):
                own = grown[:, :, layer] - grown[:, :, 0]
                found[f"{penalty}.{name}-first{suffix}"] = own[:, middle]
                found[f"{penalty}.early-{name}-first{suffix}"] = own[:, 1]
        if FLIPS in lead:
            found[f"{penalty}.early-later-first.optimised"] = (lead[""] - lead[FLIPS])[:, 1]
    return found


def _norm_follows_lambda(trial: Trial, policy: str) -> float:
    """The correlation of λ and log norm along the budget, the mean over layers; 0 for a still λ."""
    k = trial.row(policy)
    norms = np.maximum(trial.layer_norms[k], 1e-12)  # L1 may leave nothing of a layer
    found = [
        np.corrcoef(lam, norm)[0, 1] if np.ptp(lam) > 0 < np.ptp(norm) else 0.0
        for lam, norm in zip(trial.lam[k].T, np.log(norms).T, strict=True)
    ]
    return float(np.mean(found))


def policy_quantities(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """Quantities of logistic regression and of networks (Sections V-B1, V-C), per repeat.

    ``rise`` is the test error at the largest budget above that without poison, ``relief`` how much
    of the unregularised rise a λ saves, ``optimised`` what the hypergradients add to plain flips.
    ``growth`` is that of a single learned λ from the first batch of poison to the last, and
    ``saturation`` by how much it grows more in the first half of that way than in the second.
    Without poison λ ends at the edge of its range, which says nothing of how far it then grows.
    The suffix ``-flips`` marks the same quantity under plain flips.
    """
    names = trials[0].names
    error = {p: np.array([t.error[t.row(p)] for t in trials]) for p in names}
    norm = {p: np.array([t.norm[t.row(p), -1] for t in trials]) for p in names}
    rise = {p: e[:, -1] - e[:, 0] for p, e in error.items()}
    free = np.array([t.norm[t.row("none")] for t in trials])
    found = {
        "none.rise": rise["none"],
        "none.norm-growth": free[:, -1] - free[:, 0],
    }
    found |= {
        f"{p}.optimised": error[p][:, -1] - error[p + FLIPS][:, -1]
        for p in names
        if p + FLIPS in names
    }
    for penalty in ("l2", "l1"):
        learned, large = f"{penalty}-learned", f"{penalty}-large"
        lam = np.array([t.lam[t.row(learned), :, 0] for t in trials])
        first, last = min(1, lam.shape[1] - 1), lam.shape[1] - 1
        middle = (first + last) // 2
        found |= {
            f"{penalty}.{by}-relief{FLIPS}": rise["none" + FLIPS] - rise[policy + FLIPS]
            for by, policy in (("learned", learned), ("large", large))
            if policy + FLIPS in names
        }
        found |= {
            f"{penalty}.relief": rise["none"] - rise[learned],
            f"{penalty}.large-rise": rise[large],
            f"{penalty}.large-relief": rise["none"] - rise[large],
            f"{penalty}.large-clean-price": error[large][:, 0] - error["none"][:, 0],
            f"{penalty}.learned-clean-price": error[learned][:, 0] - error["none"][:, 0],
            f"{penalty}.learned-over-large": error[learned][:, -1] - error[large][:, -1],
            f"{penalty}.norm-below-none": norm["none"] - norm[learned],
            f"{penalty}.growth": lam[:, last] - lam[:, first],
            f"{penalty}.saturation": 2.0 * lam[:, middle] - lam[:, first] - lam[:, last],
        }
    return found


def record_quantities(
    notebook: "Notebook",
    model: str,
    groups: Mapping[str, Any],
    quantities: Callable[[Any], Quantities],
) -> pd.DataFrame:
    """The means of all quantities with their intervals, data set by data set; a metric of each.

    ``groups``: by data set, what ``quantities`` takes.
    """
    rows = []
    for name, group in groups.items():
        for key, values in quantities(group).items():
            estimate = mean_interval(values)
            notebook.metric(f"{name}.{model}.{key}", estimate)
            rows.append((name, key, estimate.value, estimate.half_width))
    return pd.DataFrame(rows, columns=["data", "quantity", "value", "±"])


def record_sensitivity(
    notebook: "Notebook",
    model: str,
    groups: Mapping[str, Mapping[str, Any]],
    quantities: Callable[[Any], Quantities],
) -> pd.DataFrame:
    """The means of the quantities that all variants have; metrics of the least and the most.

    ``groups``: by data set and variant, what ``quantities`` takes.
    """
    rows = []
    for name, by_variant in groups.items():
        found = {label: quantities(group) for label, group in by_variant.items()}
        first, *others = found.values()
        for key in (key for key in first if all(key in other for other in others)):
            means = {label: mean_interval(values[key]) for label, values in found.items()}
            rows += [(name, key, label, one.value, one.half_width) for label, one in means.items()]
            for which, pick in (("least", min), ("most", max)):
                estimate = _extreme(list(means.values()), pick)
                notebook.metric(f"{name}.{model}.sensitivity.{key}.{which}", estimate)
    return pd.DataFrame(rows, columns=["data", "quantity", "variant", "value", "±"])


def _extreme(means: Sequence[Estimate], pick: Callable[[list[float]], float]) -> Estimate:
    """The least or the most of several means.

    Where every mean lies in its interval, the least of them lies between the least lower and the
    least upper end, and so for the most.
    """
    ends = [one.ci95 for one in means if one.ci95 is not None]
    interval = None
    if len(ends) == len(means):
        interval = pick([low for low, _ in ends]), pick([high for _, high in ends])
    return Estimate(pick([one.value for one in means]), interval, min(one.n for one in means))


def fractions(settings_batches: int, batch: float) -> list[float]:
    """Poison at every stage, as a fraction of the training set."""
    return [round(stage * batch, 4) for stage in range(settings_batches + 1)]


def summarise(
    notebook: "Notebook", trials: dict[str, list[Trial]], shares: list[float], model: str
) -> pd.DataFrame:
    """A row per data set, policy and fraction: test error, λ and norm. Each becomes a metric.

    Further metrics: ``moderate`` is by how much a policy's rise above its clean error is less than
    :data:`MODERATE` of that without regularisation, ``at-bound`` the share of hyperiterations that
    left a learned λ on its range's edge.
    """
    rows = []
    for name, repeats in trials.items():
        rises = {
            policy: np.array([t.error[t.row(policy)] - t.error[t.row(policy), 0] for t in repeats])
            for policy in repeats[0].names
        }
        for k, policy in enumerate(repeats[0].names):
            for s, share in enumerate(shares):
                key = f"{name}.{model}.{policy}.{share:g}"
                error = mean_interval([trial.error[k, s] for trial in repeats])
                norm = mean_interval([trial.norm[k, s] for trial in repeats])
                notebook.metric(f"{key}.test_error", error)
                notebook.metric(f"{key}.norm", norm)
                row = {
                    "data": name,
                    "policy": policy,
                    "poison": share,
                    "test error": error.value,
                    "±": error.half_width,
                    "norm": norm.value,
                    "norm ±": norm.half_width,
                }
                lam = [trial.lam[k, s].mean() for trial in repeats]
                if np.all(np.isfinite(lam)):
                    exponent = mean_interval(lam)
                    notebook.metric(f"{key}.lambda", exponent)
                    row |= {"lambda": exponent.value, "lambda ±": exponent.half_width}
                if s > 0 and policy != "none" and not policy.endswith(FLIPS):
                    slack = MODERATE * rises["none"][:, s] - rises[policy][:, s]
                    notebook.metric(f"{key}.moderate", mean_interval(slack))
                at_bound = mean_interval([trial.lam_at_bound[k, s] for trial in repeats])
                if policy.removesuffix(FLIPS).endswith(("-learned", "-layers")):
                    notebook.metric(f"{key}.at-bound", at_bound)
                row["lambda at bound"] = at_bound.value
                row["features at bound"] = float(
                    np.mean([trial.features_at_bound[k, s] for trial in repeats])
                )
                rows.append(row)
    return pd.DataFrame(rows)
