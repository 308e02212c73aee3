"""Experiments that the paper profile leaves out for want of a GPU, as units of work.

The networks are the units of the notebook ``carnerero2023/networks`` for CIFAR-10, the trained
CNNs those of ``wang2021/width`` at other widths: same knobs, same draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from bench.gpu.ledger import Finished, Part
from bench.gpu.pack import CHANNELS, Pack
from poisoning.attacks.ascent import OverallBudget, PerSampleBudget
from poisoning.attacks.label_noise import shift_labels
from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.attacks.reference_ascent import ReferencePoison, ReferenceTraining
from poisoning.games.bilevel import FinalTraining
from poisoning.hypergradient.learning import LamRange
from replication.carnerero2023 import even, fractions, load_pool, network_policies
from replication.hyperparameter_trial import FLIPS, Pool, Sizes, run_trial
from replication.wang2021 import LARGEST, OVERALL
from replication.width_trial import (
    CLASSES,
    Images,
    kept_epochs,
    poisoned_images,
    rows_per_class,
    train_widths,
)

NETWORKS, WIDTH = "carnerero2023/networks", "wang2021/width"


def network_unit(pack: Pack, pool: Pool, repeat: int, device: str) -> dict[str, Any]:
    """The arguments of one draw, as the notebook has them."""
    knobs, shared = pack.knobs[NETWORKS], pack.knobs["carnerero2023/attack"]
    name, n = "cifar-10", knobs["n_train"]
    policies = network_policies(knobs["large_l2"], knobs["large_l1"])
    return {
        "pool": pool,
        "sizes": Sizes(n, even(shared["recipes"][name]["validation"] * n), knobs["n_test"]),
        "policies": policies,
        "settings": MinimaxBilevel(
            batch=round(shared["batch"] * n), batches=shared["batches"], steps=knobs["steps"],
            rate=knobs["rate"][name], hyperiterations=knobs["hyperiterations"],
            lam_step=knobs["lam_step"], l2=LamRange(**knobs["l2"]), l1=LamRange(**knobs["l1"]),
            poison_step=knobs["poison_step"][name],
        ),
        "testing": FinalTraining(
            knobs["epochs"], knobs["rate"][name], knobs["starts"], knobs["checkpoints"]
        ),
        "rng": pack.rng(NETWORKS, name, repeat),
        "hidden": (64, 32),
        "flips": tuple(policies),
        "device": device,
    }  # fmt: skip


def networks(part: Part, pack: Pack, device: str) -> Iterator[dict[str, Any]]:
    """A draw after another: test errors of every policy without poison and with the most."""
    pool = load_pool(pack, "cifar-10")
    done: list[Finished] = []
    for repeat in range(pack.knobs[NETWORKS]["repeats"]):
        found = part(run_trial, network_unit(pack, pool, repeat, device))
        if found is None:
            return
        done.append(found)
        shared = pack.knobs["carnerero2023/attack"]
        errors = np.mean([trial.error for trial, _ in done], axis=0)
        names = done[0][0].names
        yield {
            "gpu.networks.cifar-10": _row(pack.source("cifar-10"), done)
            | {
                "poison": fractions(shared["batches"], shared["batch"]),
                "test_error": {
                    name: errors[k].tolist()
                    for k, name in enumerate(names)
                    if not name.endswith(FLIPS)
                },
                "flips": {
                    name.removesuffix(FLIPS): errors[k].tolist()
                    for k, name in enumerate(names)
                    if name.endswith(FLIPS)
                },
            }
        }


@dataclass(frozen=True)
class Plan:
    """Curves, as "clean", "C" or an attack and its reference model, and widths, in this order."""

    dataset: str
    curves: tuple[str, ...]
    widths: tuple[int, ...]
    reference_epochs: int


def width_plan(pack: Pack) -> Plan:
    """The poster's largest widths, and the one below."""
    curves = ("A-softmax", "clean", "C", "B-softmax", "A-cnn", "B-cnn")
    if pack.profile == "demo":
        return Plan("mnist", curves[:3], (64,), 2)
    epochs = pack.knobs[WIDTH]["reference_epochs"]
    return Plan("mnist", curves, (100_000, 30_000, 10_000), epochs)


def alexnet_plan(pack: Pack) -> Plan:
    """The poster's reference model on CIFAR-10.

    At this step size it leaves its first plateau only after some hundred steps: it is given more
    epochs than smaller references.
    """
    curves = ("A-alexnet", "clean", "B-alexnet")
    if pack.profile == "demo":
        return Plan("cifar-10", curves[:2], (16,), 1)
    return Plan("cifar-10", curves, (1000, 10_000, 100), 100)


@dataclass(frozen=True)
class Reference:
    """The ``accuracy`` of a clean reference model; mean and largest ‖δ‖ of its poison."""

    accuracy: float
    mean: float
    largest: float


def reference(images: Images, poison: ReferencePoison) -> Reference:
    """What is kept of poisoned images, which take hundreds of megabytes."""
    lengths = np.linalg.norm(poison.X - images.X, axis=1)
    return Reference(poison.accuracy, float(lengths.mean()), float(lengths.max()))


def curves(plan: Plan, part: Part, pack: Pack, device: str) -> Iterator[dict[str, Any]]:
    """Accuracy at the plan's widths: a row after every training."""
    knobs, name = pack.knobs[WIDTH], plan.dataset
    data, recipe = pack.load(name), knobs["recipes"][name]
    fixed, epochs = recipe["fixed_epoch"], recipe["epochs"]
    images, X_test, y_test = _drawn(plan, pack)
    start, order = pack.rng(WIDTH, name, "training", 0).integers(2**31, size=2)
    done: list[Finished] = []
    found: dict[str, Any] = {"references": {}, "accuracy": []}
    for curve in plan.curves:
        now, make = images, {}
        if curve == "C":
            rng = pack.rng(WIDTH, name, "labels", 0)
            now = replace(images, y=shift_labels(images.y, CLASSES, knobs["beta"], rng))
        elif curve != "clean":
            given = _poisoning(plan, pack, images, curve, device)
            poison = cache(partial(poisoned_images, **given))
            told = {"images": images, "poison": {"by": poisoned_images, **given}}
            kept = part(reference, told, {"poison": poison})
            if kept is None:
                continue
            found["references"][curve] = vars(kept[0])
            make = {"images": lambda poison=poison: replace(images, X=poison().X)}
            now = told["poison"]
        for width in plan.widths:
            one = part(train_widths, {
                "images": now, "X_test": X_test, "y_test": y_test, "widths": (width,),
                "rate": recipe["rate"], "batch": knobs["batch"], "epochs": epochs,
                "tested": None if curve == "C" else (fixed - 1, epochs - 1),
                "seeds": (int(start), int(order)), "where": device, "averaged": recipe["averaged"],
            }, make)  # fmt: skip
            if one is None:
                continue
            done.append(one)
            (record,) = one[0]
            kept = kept_epochs(record.validation, recipe["patience"], fixed)
            accuracy = {stop: float(record.test[epoch]) for stop, epoch in kept.items()}
            found["accuracy"].append({"curve": curve, "width": width, **accuracy})
            label = "alexnet" if "A-alexnet" in plan.curves else "width"
            about = f"{pack.source(name)}, {images.n_train} of {len(data.y)} images to train on"
            yield {f"gpu.{label}.{name}": _row(about, done) | found}


def _drawn(plan: Plan, pack: Pack) -> tuple[Images, np.ndarray, np.ndarray]:
    """Images and test images of the notebook's first seed."""
    name, data = plan.dataset, pack.load(plan.dataset)
    recipe = pack.knobs[WIDTH]["recipes"][name]
    wanted = pack.knobs[WIDTH]["test"]
    rows = rows_per_class(data.y_test, wanted, pack.rng(WIDTH, name, "test"))
    if wanted >= len(data.y_test) and data.variant != "subset":
        rows = np.arange(len(data.y_test))
    X_test, y_test = data.X_test[rows].astype(np.float32), data.y_test[rows]
    total = recipe["train"] + recipe["validation"]
    rows = rows_per_class(data.y, total, pack.rng(WIDTH, name, "images", 0))
    n_train = len(rows) * recipe["train"] // total
    X = data.X[rows].astype(np.float32)
    return Images(X, data.y[rows], n_train, CHANNELS[name]), X_test, y_test


def _poisoning(plan: Plan, pack: Pack, images: Images, curve: str, device: str) -> dict[str, Any]:
    """The arguments of :func:`poisoned_images` for a curve such as "A-softmax"."""
    knobs, name = pack.knobs[WIDTH], plan.dataset
    attack, kind = curve.split("-")
    overall = OverallBudget(OVERALL[name] * len(images.y))
    rate = knobs["recipes"][name]["rate"]
    return {
        "images": images, "kind": kind, "steps": knobs["attack_steps"],
        "rate": knobs["attack_rate"],
        "budget": overall if attack == "A" else PerSampleBudget(LARGEST),
        "training": ReferenceTraining(rate, knobs["batch"], plan.reference_epochs),
        "seed": int(pack.rng(WIDTH, name, "reference", kind, 0).integers(2**31)), "where": device,
    }  # fmt: skip


def _row(data: str, done: list[Finished]) -> dict[str, Any]:
    """What a row says of its units: the median of their seconds, and no peer."""
    return {
        "data": data,
        "ours_s": float(np.median([about["wall_seconds"] for _, about in done])),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "spread": None,
        "agreement": None,
        "n": len(done),
    }
