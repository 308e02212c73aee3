"""``params.yaml``: every knob, its type and its range; checked before any compute.

A knob is a plain value, or a mapping ``{quick: …, paper: …}`` (and ``demo:`` where it differs
from quick). ``python -m lib.pipeline.params`` checks the whole file for every profile.
"""

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lib.pipeline import paths

PROFILES = ("demo", "quick", "paper")


class ParameterError(ValueError):
    """A knob is unknown, missing, of the wrong type or out of range; one sentence."""


Fraction = Annotated[float, Field(gt=0, le=0.5)]
Percentile = Annotated[float, Field(gt=0, le=100)]
Count = Annotated[int, Field(ge=1, le=1000)]
Lambda = Annotated[float, Field(gt=0, le=1000)]
Quantile = Annotated[float, Field(gt=0, lt=1)]
QUANTILES = "a list of numbers between 0 and 1"
EPSILON = "a fraction of the clean training set (not a percentage), above 0, at most 0.5"
BinaryDataset = Literal["enron", "imdb", "mnist-1-7", "dogfish"]
Step = Annotated[float, Field(gt=0, le=1e6)]
STEPS = "a list of step lengths above 0"
DATASETS = "a list from enron, imdb, mnist-1-7, dogfish"
SPLITS = "a whole number of random train/test splits, 1 to 1000"
BUDGET = "a fraction of a task's clean examples (not a percentage), above 0, at most 0.5"
DRAWS = "a whole number of training sets, 1 to 1000"
ITERATIONS = "a whole number of iterations, 1 to 1000"
MultiTaskDataset = Literal["sarcos", "landmine", "mnist"]
REMOVE = "the fraction removed per class, above 0, at most 0.5"
Samples = Annotated[int, Field(ge=16, le=10_000_000)]
SAMPLES = "a list of numbers of examples, each from 16"
Width = Annotated[int, Field(ge=1, le=1_000_000)]
WIDTHS = "a list of two or more widths, each a whole number from 1"
Length = Annotated[float, Field(gt=0, le=1000)]
Rate = Annotated[float, Field(gt=0, le=1)]
Reference = Literal["softmax", "cnn", "alexnet"]
REFERENCES = "a list from softmax, cnn, alexnet"


class Knobs(BaseModel):
    """A block of knobs: unknown keys and silent conversions are refused.

    A field's ``description`` completes the sentence "it must be …".
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Workers(Knobs):
    """How units of work are spread over processors."""

    backend: Literal["serial", "loky", "dask"] = Field(description="serial, loky or dask")
    jobs: int = Field(ge=1, le=1024, description="a number of processes, at least 1")
    scheduler: str | None = Field(
        description="a Dask scheduler's address such as tcp://host:8786, or null"
    )


class Profile(Knobs):
    """What a profile computes from."""

    data: Literal["standin", "real"] = Field(description="standin or real")


class Koh2021Defenses(Knobs):
    """``koh2021/defenses``: the setting and the five defenses."""

    datasets: list[BinaryDataset] = Field(min_length=1, description=DATASETS)
    multiclass: bool = Field(description="true or false (10-class MNIST in Table 1)")
    splits: Count = Field(description=SPLITS)
    remove: Fraction = Field(description=REMOVE)


class Koh2021Concentration(Knobs):
    """``koh2021/concentration``: Theorem 1 and the integer envelope."""

    epsilon: Fraction = Field(description=EPSILON)
    attacks: Count = Field(description="a whole number of random attacks to collapse, 1 to 1000")
    remove: Fraction = Field(description=REMOVE)


class Koh2021KKT(Knobs):
    """``koh2021/kkt``: the KKT attack."""

    dataset: Literal["enron"] = Field(description="enron")
    epsilon: Fraction = Field(description=EPSILON)
    splits: Count = Field(description=SPLITS)
    radius_percentile: Percentile = Field(description="a percentile, above 0, at most 100")
    strong_radius_percentile: Percentile = Field(description="a percentile, above 0, at most 100")
    loss_percentile: Percentile = Field(description="a percentile, above 0, at most 100")
    repeats: Count = Field(description="how often each rounded point is repeated, 1 to 1000")
    ratios: Count = Field(description="how many ratios of positive to negative poison, 1 to 1000")
    decoy_quantiles: list[Quantile] = Field(min_length=1, description=QUANTILES)
    decoy_repeats: list[Count] = Field(min_length=1, description="a list of whole numbers from 1")
    other_datasets: list[Literal["imdb", "mnist-1-7", "dogfish"]] = Field(
        description="a list from imdb, mnist-1-7, dogfish"
    )
    other_quantiles: list[Quantile] = Field(min_length=1, description=QUANTILES)
    other_repeats: list[Count] = Field(min_length=1, description="a list of whole numbers from 1")
    remove: Fraction = Field(description=REMOVE)
    sensitivity_splits: Count = Field(description="a whole number of splits, 1 to 1000")


class Koh2021Suite(Knobs):
    """The attacks as every notebook from ``koh2021/attacks`` on deploys them."""

    epsilon: Fraction = Field(description=EPSILON)
    radius_percentile: Percentile = Field(description="a percentile, above 0, at most 100")
    repeats: Count = Field(description="how often each rounded point is repeated, 1 to 1000")
    loss_percentile: Percentile = Field(description="a percentile, above 0, at most 100")
    loss_cap: float = Field(ge=0, le=100, description="a hinge loss, from 0 to 100")
    ratios: Count = Field(description="how many ratios of positive to negative poison, 1 to 1000")
    influence_steps: list[Step] = Field(min_length=1, description=STEPS)
    influence_shares: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        min_length=1, description="a list of fractions from 0 to 1"
    )
    influence_iterations: Count = Field(description="a whole number of steps, 1 to 1000")
    decoy_quantiles: list[Quantile] = Field(min_length=1, description=QUANTILES)
    decoy_repeats: list[Count] = Field(min_length=1, description="a list of whole numbers from 1")
    imdb_decoy_quantiles: list[Quantile] = Field(min_length=1, description=QUANTILES)
    imdb_decoy_repeats: list[Count] = Field(
        min_length=1, description="a list of whole numbers from 1"
    )


class Koh2021Attacks(Knobs):
    """``koh2021/attacks``: Figures 3 and 4, Table 2."""

    datasets: list[BinaryDataset] = Field(min_length=1, description=DATASETS)
    splits: Count = Field(description=SPLITS)
    remove: Fraction = Field(description=REMOVE)


class Koh2021LabelFlips(Knobs):
    """``koh2021/label-flips``: Figure 13."""

    splits: Count = Field(description=SPLITS)
    remove: Fraction = Field(description=REMOVE)
    epsilons: list[Fraction] = Field(min_length=1, description="a list of " + EPSILON)
    alfa_copies: Count = Field(description="a whole number of copies, at least 1")


class Koh2021Ablations(Knobs):
    """``koh2021/ablations``: Figures 6 and 7, and the certificate."""

    splits: Count = Field(description=SPLITS)
    remove: Fraction = Field(description=REMOVE)
    certificate_epsilons: list[Fraction] = Field(min_length=1, description="a list of " + EPSILON)
    certificate_gap: Fraction = Field(description="a relative gap, above 0, at most 0.5")


class Koh2021Multiclass(Knobs):
    """``koh2021/multiclass``: Figure 8."""

    epsilon: Fraction = Field(description=EPSILON)
    orders: Count = Field(description="a whole number of training orders, 1 to 1000")
    decoy_seeds: Count = Field(description="a whole number of decoys per setting, 1 to 1000")
    rounds: Count = Field(description="a whole number of rounds, 1 to 1000")
    quantiles: list[Quantile] = Field(min_length=1, description=QUANTILES)
    decoy_repeats: list[Count] = Field(min_length=1, description="a list of whole numbers from 1")
    copies: Count = Field(description="how often each poisoned point is repeated, 1 to 1000")
    step: Step = Field(description="a step length above 0")
    burn_in: float = Field(ge=0, le=100, description="a multiple of the attack's steps, 0 to 100")
    radius_percentile: Percentile = Field(description="a percentile, above 0, at most 100")
    loss_cap: float = Field(ge=0, le=100, description="a hinge loss, from 0 to 100")
    remove: Fraction = Field(description=REMOVE)


class Koh2021Transfer(Knobs):
    """``koh2021/transfer``: Figures 9 to 11."""

    datasets: list[Literal["enron", "imdb"]] = Field(
        min_length=1, description="a list from enron, imdb"
    )
    splits: Count = Field(description=SPLITS)
    remove: Fraction = Field(description=REMOVE)
    lambdas: list[Lambda] = Field(min_length=1, description="a list of numbers above 0")


class Koh2021Iterative(Knobs):
    """``koh2021/iterative``: Figure 5."""

    splits: Count = Field(description=SPLITS)
    rounds: Count = Field(description="a whole number of rounds, 1 to 1000")
    attacks: list[Literal["influence", "kkt", "minmax"]] = Field(
        min_length=1, description="a list from influence, kkt, minmax"
    )
    quantiles: list[Quantile] = Field(min_length=1, description=QUANTILES)
    decoy_repeats: list[Count] = Field(min_length=1, description="a list of whole numbers from 1")
    large_epsilon: Fraction = Field(description=EPSILON)
    large_rounds: Count = Field(description="a whole number of rounds, 1 to 1000")
    large_steps: list[Step] = Field(min_length=1, description=STEPS)
    remove: Fraction = Field(description=REMOVE)


class Koh2021Datasets(Knobs):
    """``koh2021/datasets``: Figure 12."""

    splits: Count = Field(description=SPLITS)
    remove: Fraction = Field(description=REMOVE)


class Koh2021Matrix(Knobs):
    """``koh2021/matrix``: every attack against every defense, and two cleverer defenders."""

    datasets: list[BinaryDataset] = Field(min_length=1, description=DATASETS)
    splits: Count = Field(description=SPLITS)
    remove: Fraction = Field(description=REMOVE)
    removals: list[Annotated[float, Field(ge=0, le=0.5)]] = Field(
        min_length=1, description="a list of fractions from 0 to 0.5"
    )
    expected_removal: Fraction = Field(description=REMOVE)
    expected_percentile: Percentile = Field(description="a percentile, above 0, at most 100")


class Koh2021(Knobs):
    """One block per notebook of Koh, Steinhardt & Liang 2021, and one that several share."""

    defenses: Koh2021Defenses
    concentration: Koh2021Concentration
    kkt: Koh2021KKT
    suite: Koh2021Suite
    attacks: Koh2021Attacks
    label_flips: Koh2021LabelFlips
    ablations: Koh2021Ablations
    multiclass: Koh2021Multiclass
    transfer: Koh2021Transfer
    iterative: Koh2021Iterative
    datasets: Koh2021Datasets
    matrix: Koh2021Matrix


class Zhao2018Setting(Knobs):
    """What all notebooks of Zhao et al. 2018 share: data, learner, attacker's ball and update."""

    lambda1: Lambda = Field(description="a number above 0")
    lambda2: Lambda = Field(description="a number above 0")
    radius: Lambda = Field(description="a radius above 0")
    step: Step = Field(description="a step length above 0")
    batch: Count = Field(description="a whole multiple of the clean examples, 1 to 1000")
    labels: Literal["uniform", "clean", "constant"] = Field(
        description="uniform, clean or constant"
    )
    sarcos_train: Count = Field(description="a whole number of examples, 1 to 1000")
    sarcos_test: Count = Field(description="a whole number of examples, 1 to 1000")
    landmine_fraction: Quantile = Field(description="a fraction of each task, between 0 and 1")
    mnist_per_class: Count = Field(description="a whole number of images, 1 to 1000")
    mnist_components: Annotated[int, Field(ge=1, le=784)] = Field(
        description="a whole number of principal components, 1 to 784"
    )


class Zhao2018Convergence(Knobs):
    """``zhao2018/convergence``: Figure 1."""

    budget: Fraction = Field(description=BUDGET)
    draws: Count = Field(description=DRAWS)
    starts: Count = Field(description="a whole number of random starts, 1 to 1000")
    start_draws: Count = Field(description=DRAWS)
    iterations: Count = Field(description=ITERATIONS)
    small_step: Step = Field(description="a step length above 0")


class Zhao2018Quality(Knobs):
    """``zhao2018/quality``: Figure 2."""

    datasets: list[MultiTaskDataset] = Field(
        min_length=1, description="a list from sarcos, landmine, mnist"
    )
    pairs: Count = Field(description="a whole number of pairs of task sets, 1 to 1000")
    budgets: list[Fraction] = Field(min_length=1, description="a list; each is " + BUDGET)
    draws: Count = Field(description=DRAWS)
    sweeps: Count = Field(description=ITERATIONS)
    iterations: Count = Field(description=ITERATIONS)
    small_lambda: Lambda = Field(description="a number above 0")


class Zhao2018Relationships(Knobs):
    """``zhao2018/relationships``: Figure 3, and the defense it suggests."""

    budget: Fraction = Field(description=BUDGET)
    draws: Count = Field(description=DRAWS)
    attacks: Count = Field(description="a whole number of sets of attacking tasks, 1 to 1000")
    sweeps: Count = Field(description=ITERATIONS)
    iterations: Count = Field(description=ITERATIONS)
    small_lambda: Lambda = Field(description="a number above 0")
    examined: Fraction = Field(description="a fraction of a task's examples, at most 0.5")


class Zhao2018Gradients(Knobs):
    """``zhao2018/gradients``: three gradients against finite differences, and as attacks."""

    budget: Fraction = Field(description=BUDGET)
    draws: Count = Field(description=DRAWS)
    probes: Count = Field(description="a whole number of directions, 1 to 1000")
    difference: Annotated[float, Field(gt=0, le=0.1)] = Field(
        description="a step of finite differences, above 0, at most 0.1"
    )
    iterations: Count = Field(description=ITERATIONS)
    small_lambda: Lambda = Field(description="a number above 0")


class Zhao2018LowerLevel(Knobs):
    """``zhao2018/lower-level``: the joint problem solved exactly and by alternation."""

    draws: Count = Field(description=DRAWS)
    stops: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1, description=QUANTILES)
    floors: list[Annotated[float, Field(ge=0, le=0.01)]] = Field(
        min_length=1, description="a list of numbers from 0 to 0.01"
    )
    lambdas: list[Lambda] = Field(min_length=1, description="a list of numbers above 0")
    budget: Fraction = Field(description=BUDGET)
    iterations: Count = Field(description=ITERATIONS)


class Zhao2018(Knobs):
    """One block per notebook of Zhao et al. 2018, and one that all share."""

    setting: Zhao2018Setting
    convergence: Zhao2018Convergence
    quality: Zhao2018Quality
    relationships: Zhao2018Relationships
    gradients: Zhao2018Gradients
    lower_level: Zhao2018LowerLevel


Exponent = Annotated[float, Field(ge=-20, le=20)]
EXPONENT = "an exponent, from -20 to 20"


class Carnerero2023Range(Knobs):
    """A learned exponent's start and its feasible domain."""

    start: Exponent = Field(description=EXPONENT)
    low: Exponent = Field(description=EXPONENT)
    high: Exponent = Field(description=EXPONENT)


class Carnerero2023Recipe(Knobs):
    """What the attack on logistic regression uses on one data set."""

    steps: Count = Field(description="a whole number of inner steps, 1 to 1000")
    rate: Step = Field(description="a step length above 0")
    poison_step: Step = Field(description="a step length above 0")
    validation: Fraction = Field(description="a fraction of the training set, at most 0.5")
    large_l2: Exponent = Field(description=EXPONENT)
    large_l1: Exponent = Field(description=EXPONENT)
    top: list[Count] = Field(min_length=1, description="a list of whole numbers of features")


Carnerero2023Dataset = Literal["mnist", "fashion-mnist", "cifar-10"]
IMAGES = "a list from mnist, fashion-mnist, cifar-10"
Examples = Annotated[int, Field(ge=10, le=100_000, multiple_of=2)]
EXAMPLES = "an even number of examples, 10 to 100000"


def _at_most_repeats(draws: int, info: Any) -> int:
    if draws > info.data.get("repeats", draws):
        raise ValueError("more draws than repeats")
    return draws


SensitivityDraws = Annotated[Count, AfterValidator(_at_most_repeats)]
SENSITIVITY_DRAWS = "a whole number of random draws, 1 to repeats"


class Carnerero2023Attack(Knobs):
    """The attack on logistic regression as several notebooks launch it."""

    datasets: list[Carnerero2023Dataset] = Field(min_length=1, description=IMAGES)
    repeats: Count = Field(description="a whole number of random draws, 1 to 1000")
    n_train: Examples = Field(description=EXAMPLES)
    n_test: Examples = Field(description=EXAMPLES)
    batch: Fraction = Field(description="a fraction of the training set, at most 0.5")
    batches: Count = Field(description="a whole number of batches, 1 to 1000")
    hyperiterations: Count = Field(description="a whole number of hyperiterations, 1 to 1000")
    rule: Literal["decayed", "adaptive"] = Field(description="decayed or adaptive")
    lam_step: Step = Field(description="a step length above 0")
    l2: Carnerero2023Range
    l1: Carnerero2023Range
    cv_points: Count = Field(description="how many exponents cross-validation tries, from 1")
    epochs: Count = Field(description="a whole number of epochs, 1 to 1000")
    sensitivity_draws: SensitivityDraws = Field(description=SENSITIVITY_DRAWS)
    mnist: Carnerero2023Recipe
    fashion_mnist: Carnerero2023Recipe
    cifar_10: Carnerero2023Recipe


class Carnerero2023Synthetic(Knobs):
    """``carnerero2023/synthetic``: Figure 1."""

    draws: Count = Field(description=DRAWS)
    grid: Count = Field(description="how many positions along either axis, 1 to 1000")
    exponents: Count = Field(description="how many values of lambda are tried, 1 to 1000")
    regularised: Exponent = Field(description=EXPONENT)


class Carnerero2023Logistic(Knobs):
    """``carnerero2023/logistic``: Figures 2, 3 and 8; all its knobs are those of ``attack``."""


class Carnerero2023ValidationSize(Knobs):
    """``carnerero2023/validation-size``: Figures 4 and 9."""

    factors: list[Step] = Field(
        min_length=1, description="a list of multiples of the data set's own validation size"
    )


class Carnerero2023FeatureStability(Knobs):
    """``carnerero2023/feature-stability``: Figures 5 and 10."""

    least_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        description="a drop of the index from 0 to 1"
    )


class Carnerero2023Networks(Knobs):
    """``carnerero2023/networks``: Figures 6, 7 and 11 to 14."""

    datasets: list[Carnerero2023Dataset] = Field(min_length=1, description=IMAGES)
    repeats: Count = Field(description="a whole number of random draws, 1 to 1000")
    n_train: Examples = Field(description=EXAMPLES)
    n_test: Examples = Field(description=EXAMPLES)
    steps: Count = Field(description="a whole number of inner steps, 1 to 1000")
    rate: Step = Field(description="a step length above 0")
    cifar_rate: Step = Field(description="a step length above 0")
    hyperiterations: Count = Field(description="a whole number of hyperiterations, 1 to 1000")
    poison_step: Step = Field(description="a step length above 0")
    cifar_poison_step: Step = Field(description="a step length above 0")
    lam_step: Step = Field(description="a step length above 0")
    l2: Carnerero2023Range
    l1: Carnerero2023Range
    large_l2: Exponent = Field(description=EXPONENT)
    large_l1: Exponent = Field(description=EXPONENT)
    epochs: Count = Field(description="a whole number of epochs, 1 to 1000")
    starts: Count = Field(description="a whole number of initialisations, 1 to 1000")
    checkpoints: Count = Field(description="a whole number of iterates, 1 to 1000")
    sensitivity_draws: SensitivityDraws = Field(description=SENSITIVITY_DRAWS)


class Carnerero2023Hypergradients(Knobs):
    """``carnerero2023/hypergradients``: Table II, and the better outer step."""

    n_train: Examples = Field(description=EXAMPLES)
    steps: list[Count] = Field(min_length=1, description="a list of T, whole numbers to 1000")
    lam: Exponent = Field(description=EXPONENT)
    growth: list[Step] = Field(min_length=1, description="a list of factors above 0")
    attack_n_train: Examples = Field(description=EXAMPLES)
    attack_repeats: Count = Field(description="a whole number of random draws, 1 to 1000")
    attack_hyperiterations: Count = Field(description="a whole number, 1 to 1000")


class Carnerero2023(Knobs):
    """One block per notebook of Carnerero-Cano et al. 2023, and one that several share."""

    attack: Carnerero2023Attack
    synthetic: Carnerero2023Synthetic
    logistic: Carnerero2023Logistic
    validation_size: Carnerero2023ValidationSize
    feature_stability: Carnerero2023FeatureStability
    networks: Carnerero2023Networks
    hypergradients: Carnerero2023Hypergradients


class Wang2021Convex(Knobs):
    """``wang2021/convex``: SGD from a poisoned first-order oracle."""

    dimension: Count = Field(description="a whole number of features, 1 to 1000")
    radius: float = Field(gt=0, le=2.5, description="a radius above 0, at most 2.5")
    samples: list[Samples] = Field(min_length=2, description=SAMPLES)
    trials: Count = Field(description="a whole number of trials, 1 to 1000")
    groups: Count = Field(description="a whole number of groups, 1 to 1000")
    fractions: list[Fraction] = Field(
        min_length=1, description="a list of fractions above 0, at most 0.5"
    )
    pair_samples: list[Samples] = Field(min_length=2, description=SAMPLES)


class Wang2021TwoLayer(Knobs):
    """``wang2021/two-layer``: the theorems' network under regimes A, B and C."""

    classes: list[Annotated[int, Field(ge=0, le=9)]] = Field(
        min_length=2, max_length=2, description="two digits"
    )
    examples: Samples = Field(description="a number of examples, from 16")
    widths: list[Width] = Field(min_length=2, description=WIDTHS)
    seeds: Count = Field(description="a whole number of seeds, 1 to 1000")
    step: Step = Field(description="a step size above 0")
    step_per_neuron: Step = Field(description="a step size above 0")
    flip_rates: list[Fraction] = Field(
        min_length=1, description="a list of probabilities above 0, at most 0.5"
    )
    few_largest: Length = Field(description="a length above 0, at most 1000")
    few_roots: Length = Field(description="a multiple of the root of n, above 0, at most 1000")
    many_share: Fraction = Field(description="a fraction of the examples, above 0, at most 0.5")
    many_largest: Length = Field(description="a length above 0, at most 1000")
    reference_width: Width = Field(description="a whole number of neurons, at least 1")
    attack_steps: Count = Field(description="a whole number of steps, 1 to 1000")
    attack_rate: Rate = Field(description="a fraction of the budget, above 0, at most 1")
    probe: Samples = Field(description="a number of examples, from 16")
    margin_examples: list[Samples] = Field(min_length=1, description=SAMPLES)
    margin_neurons: Samples = Field(description="a whole number of neurons, from 16")
    delta: Fraction = Field(description="a probability above 0, at most 0.5")


class Wang2021Width(Knobs):
    """``wang2021/width``: the paper's figure."""

    datasets: list[Literal["mnist", "cifar-10"]] = Field(
        min_length=1, description="a list from mnist, cifar-10"
    )
    train: Samples = Field(description="a number of images, from 16")
    validation: Samples = Field(description="a number of images, from 16")
    test: Samples = Field(description="a number of images, from 16")
    widths: list[Width] = Field(min_length=2, description=WIDTHS)
    seeds: Count = Field(description="a whole number of seeds, 1 to 1000")
    batch: Count = Field(description="a whole number of images, 1 to 1000")
    epochs: Count = Field(description="a whole number of epochs, 1 to 1000")
    fixed_epoch: Count = Field(description="a whole number of epochs, 1 to 1000")
    patience: Count = Field(description="a whole number of epochs, 1 to 1000")
    mnist_rate: Step = Field(description="a step size above 0")
    cifar_rate: Step = Field(description="a step size above 0")
    mnist_references: list[Reference] = Field(min_length=1, description=REFERENCES)
    cifar_references: list[Reference] = Field(min_length=1, description=REFERENCES)
    reference_epochs: Count = Field(description="a whole number of epochs, 1 to 1000")
    attack_steps: Count = Field(description="a whole number of steps, 1 to 1000")
    attack_rate: Rate = Field(description="a fraction of the budget, above 0, at most 1")
    beta: Fraction = Field(description="a probability above 0, at most 0.5")


class Wang2021(Knobs):
    """One block per notebook of Wang, Mianjy & Arora 2021."""

    convex: Wang2021Convex
    two_layer: Wang2021TwoLayer
    width: Wang2021Width


class Params(Knobs):
    """The whole of ``params.yaml``, resolved for one profile."""

    seed: int = Field(ge=0, description="a whole number from 0")
    device: Literal["auto", "cpu", "cuda"] = Field(description="auto, cpu or cuda")
    workers: Workers
    profiles: dict[Literal["demo", "quick", "paper"], Profile]
    koh2021: Koh2021
    zhao2018: Zhao2018
    carnerero2023: Carnerero2023
    wang2021: Wang2021

    def section(self, name: str) -> dict[str, Any]:
        """The knobs of notebook ``<paper>/<section>``; none for a notebook without a block."""
        if "/" not in name:
            return {}
        paper, section = name.split("/")
        return getattr(getattr(self, paper), section.replace("-", "_")).model_dump()


def resolve(value: Any, profile: str) -> Any:
    """Replace each ``{quick: …, paper: …}`` by ``profile``'s value; demo falls back to quick's."""
    if isinstance(value, dict):
        if {"quick", "paper"} <= set(value) <= set(PROFILES) and not any(
            isinstance(v, dict) for v in value.values()
        ):
            return value.get(profile, value["quick"])
        return {key: resolve(item, profile) for key, item in value.items()}
    return value


def load(profile: str, path: Path | None = None) -> Params:
    """Read, resolve for ``profile`` and check ``path`` (``params.yaml`` unless given).

    Raises:
        ParameterError: one sentence naming the first bad knob, its value and what would be right.
    """
    if profile not in PROFILES:
        raise ParameterError(f"profile {profile!r} is unknown: use {', '.join(PROFILES)}.")
    path = path or paths.PARAMS
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ParameterError(f"{path.name} is not valid YAML: {problem}") from None
    if not isinstance(raw, dict):
        raise ParameterError(f"{path.name} holds no knobs: it must be a mapping.")
    try:
        return Params.model_validate(resolve(raw, profile))
    except ValidationError as error:
        raise ParameterError(_sentence(error, profile, path.name)) from None


def _sentence(error: ValidationError, profile: str, file: str) -> str:
    # A misspelt knob is both unknown and missing: only the first says what happened.
    problem = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    knob = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = list(_fields(location[:-1]))
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}."
        return f"{file}: {knob} is not a knob; {hint}"
    field = next(
        (
            _fields(location[:depth]).get(location[depth])
            for depth in range(len(location) - 1, -1, -1)
            if _fields(location[:depth]).get(location[depth]) is not None
        ),
        None,
    )
    wanted = field.description if field and field.description else problem["msg"]
    if problem["type"] == "missing":
        return f"{file}: {knob} is missing (profile {profile}): it must be {wanted}."
    value = problem["input"]
    hint = ""
    if isinstance(value, str) and problem["type"].startswith(("float", "int")):
        hint = ", a number and not text (no quotes; 1.0e-3, not 1e-3)"
    return (
        f"{file}: {knob} = {value!r} (profile {profile}) is not valid: it must be {wanted}{hint}."
    )


def _fields(location: list[str]) -> dict[str, Any]:
    model: Any = Params
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = getattr(field, "annotation", None)
    return getattr(model, "model_fields", {})


def main() -> int:
    """Check ``params.yaml`` for every profile; print one sentence and return 1 if it is bad."""
    try:
        for profile in PROFILES:
            load(profile)
    except ParameterError as error:
        print(error, file=sys.stderr)
        return 1
    valid = paths.ROOT / ".cache" / "params-valid"
    valid.parent.mkdir(exist_ok=True)
    valid.write_text("params.yaml is valid\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
