"""What a notebook calls: its data, its seeds, and where its figures and numbers go."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import plotting
from lib.datasets import Dataset, binary
from lib.datasets import load as load_dataset
from lib.metrics import Estimate
from lib.pipeline import params, paths
from lib.pipeline.units import map_units, seed_sequence

USED = "used.json"
"""What only the notebook knows of its inputs, on its way to ``provenance.json``."""

PAIRS = {"mnist-1-7": ("mnist", 7, 1)}
"""Two classes of a multi-class set, by the name papers give them: set, positive, negative."""


class Notebook:
    """One run of one notebook: ``Notebook("koh2021/kkt", profile)``.

    Figures, tables and metrics are written below ``results/<profile>/<paper>/<section>/``.
    ``metrics.json`` holds no time; every measured second goes to ``timings.json``.
    """

    def __init__(self, name: str, profile: str) -> None:
        self.name = name
        self.profile = profile
        self.params = params.load(profile)
        self.source = self.params.profiles[profile].data
        self.folder = paths.section_results(profile, name)
        self._device = "cpu"  # unless the notebook asks
        self._data: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._shared: dict[str, dict[str, Any]] = {}
        self._metrics: dict[str, dict[str, Any]] = {}
        self._timings: dict[str, Any] = {}
        for part in ("figures", "tables", "timed"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        plotting.use_style()

    @property
    def device(self) -> str:
        """Where torch solvers run: the knob ``device``, ``auto`` being cuda where there is one.

        What a notebook was told goes to its ``provenance.json``.
        """
        self._device = self.params.device
        if self._device == "auto":
            import torch  # takes seconds

            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        return self._device

    def load(self, name: str) -> Dataset:
        """The prepared data set of this profile: the real one, or its stand-in."""
        whole, *classes = PAIRS.get(name, (name,))
        dataset = load_dataset(paths.dataset(self.source, whole))
        if classes:
            dataset = binary(dataset, *classes)
        self._data[name] = dataset.variant
        self._digests[name] = dataset.manifest["content"]
        return dataset

    def available(self, name: str) -> bool:
        """Whether the data set can be loaded (a data set that cannot be had is "not run")."""
        whole = PAIRS.get(name, (name,))[0]
        return (paths.dataset(self.source, whole) / "manifest.json").is_file()

    def shared(self, block: str) -> dict[str, Any]:
        """The knobs of a block of ``params.yaml`` that several notebooks share."""
        self._shared[block] = self.params.section(block)
        return self._shared[block]

    def rng(self, *setting: str | int, section: str | None = None) -> np.random.Generator:
        """A generator of its own for every setting and repeat.

        ``section`` names the block of knobs that the randomness belongs to, by default this
        notebook's: notebooks that run the same units of a shared block find them in the cache.
        """
        key = self.params.seed, section or self.name, *setting
        return np.random.default_rng(seed_sequence(*key))

    def map(
        self, function: Callable[..., Any], units: Sequence[dict[str, Any]], label: str
    ) -> list[Any]:
        """Run units of work in parallel; see :func:`lib.pipeline.units.map_units`."""
        return map_units(function, units, self.params.workers, label)

    def metric(self, name: str, value: float | int | Estimate, n: int = 1) -> None:
        """Record one number under the name other tools read."""
        estimate = value if isinstance(value, Estimate) else Estimate(float(value), None, n)
        interval = estimate.ci95
        self._metrics[name] = {
            "value": _rounded(estimate.value),
            "ci95": None if interval is None else [_rounded(bound) for bound in interval],
            "n": estimate.n,
        }

    def timing(self, name: str, value: Any) -> None:
        """Record measured seconds; they never enter ``metrics.json``."""
        self._timings[name] = value

    def figure(self, figure: Figure, name: str) -> None:
        """Write the figure as SVG and PNG, stamped if it shows stand-in data."""
        self._stamp(figure)
        plotting.save(figure, self.folder / "figures" / name)

    def timed_figure(self, figure: Figure, name: str) -> str:
        """Write a figure that shows measured seconds, apart from what must be reproducible.

        Returns the Markdown that shows it: the executed notebook then links the picture and
        stays identical from run to run.
        """
        self._stamp(figure)
        plotting.save(figure, self.folder / "timed" / name)
        return f"![{name}](timed/{name}.svg)"

    def table(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """Write the table as CSV, rounded to six significant digits, and return it."""
        frame.to_csv(self.folder / "tables" / f"{name}.csv", index=False, float_format="%.6g")
        return frame

    def finish(self) -> None:
        """Write ``metrics.json`` and ``timings.json``."""
        metrics = {
            "data": dict(sorted(self._data.items())),
            "profile": self.profile,
            "metrics": dict(sorted(self._metrics.items())),
        }
        _write_json(self.folder / "metrics.json", metrics)
        _write_json(self.folder / "timings.json", self._timings)
        used = {"data": self._digests, "shared": self._shared, "device": self._device}
        _write_json(self.folder / USED, used)

    def _stamp(self, figure: Figure) -> None:
        if self.source == "standin":
            plotting.stamp(figure, "stand-in data")


def _rounded(value: float) -> float:
    """Twelve significant digits: below that, sums differ between BLAS builds."""
    return float(f"{float(value):.12g}")


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, default=float) + "\n")
