"""The interface of notebooks: data, seeds, units of work, figures and numbers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse as sp
from matplotlib.figure import Figure

from poisoning.arrays import to_dense
from poisoning.datasets import Dataset
from poisoning.datasets.content import digest as content_digest
from poisoning.datasets.sources import source
from poisoning.errors import DataError
from poisoning.metrics import Estimate, mean_interval
from replication import params, paths, plotting, words
from replication.components import ComponentError, made
from replication.conventions import generator, load, metric_record, rounded, whole_set
from replication.units import Units, write_table

HEADLINE = ("clean", "baseline", "attacked", "defended", "limit", "paper")
"""The names allowed in ``headline.json``; few, because DVC shows each as a column."""

Key = TypeVar("Key", bound=Hashable)

VERDICTS = ("replicated", "failed", "open")
"""The names in the scorecard's ``headline.json``, short for replicated, not, and inconclusive."""


class Notebook:
    """One run of one notebook: ``Notebook("koh2021/kkt", profile)``.

    In the pipeline, figures, tables and metrics are written below
    ``results/<profile>/<paper>/<section>/``. A notebook run by hand writes below ``results/lab/``
    and shows the pipeline's figure beside its own. ``metrics.json`` holds no time; every measured
    second goes to ``timings.json``.
    """

    def __init__(self, name: str, profile: str) -> None:
        self.name = name
        self.profile = profile
        self.params = params.load(profile)
        self.source = self.params.profiles[profile].data
        self.folder = paths.section_results(profile, name)
        self._device = "cpu"  # unless the notebook reads ``device``
        self._data: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._shared: dict[str, dict[str, Any]] = {}
        self._metrics: dict[str, dict[str, Any]] = {}
        self._timings: dict[str, Any] = {}
        self._units: Units | None = None
        for part in ("figures", "tables", "timed"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        plotting.use_style()
        words.show_tables_in_words()
        if not paths.in_pipeline():
            self._say_where()

    @property
    def device(self) -> str:
        """Where torch solvers run: the knob ``device``, ``auto`` being cuda where there is one.

        The device that a notebook has read is recorded in its ``provenance.json``.
        """
        self._device = self.params.device
        if self._device != "cpu":
            import torch  # takes seconds

            found = torch.cuda.is_available()
            if self._device == "cuda" and not found:
                raise params.ParameterError(
                    "params.yaml: device = 'cuda', and no CUDA device was found here: it must be "
                    "auto or cpu."
                )
            self._device = "cuda" if found else "cpu"
        return self._device

    def load(self, name: str) -> Dataset:
        """The prepared data set of this profile: the real one, or its stand-in.

        Raises:
            DataError: it has not been prepared, and the message says how to; or the pipeline's
                stage does not depend on it, since its name stands neither in the notebook nor among
                its knobs.
        """
        whole = whole_set(name)
        known = os.environ.get(paths.DATA_VARIABLE)
        if known is not None and whole not in known.split(",") and source(whole).verifiable:
            raise DataError(
                f"{name} is none of the data sets that this stage depends on ({known}): write its "
                "name into a cell, or among the knobs."
            )
        if not self.available(name):
            raise DataError(f"{name} is not prepared: run `dvc repro data@{self.source}-{whole}`.")
        dataset = load(name, paths.dataset(self.source, whole))
        self._data[name] = dataset.variant
        self._digests[name] = dataset.manifest["content"]
        return dataset

    def own(self, component: str) -> Dataset:
        """The data set that a function returns, whose path is given by a knob.

        Raises:
            ComponentError: there is no such function, or it returns something else, or examples and
                targets that differ in number.
        """
        found = made(component)
        if not isinstance(found, Dataset):
            raise ComponentError(
                f"{component!r} must return a Dataset, not {type(found).__name__}."
            )
        for X, y, of in ((found.X, found.y, ""), (found.X_test, found.y_test, "_test")):
            rows, targets = (0 if part is None else part.shape[0] for part in (X, y))
            if rows != targets:
                raise ComponentError(
                    f"{component!r} must return as many targets as examples: X{of} has {rows} rows "
                    f"and y{of} {targets}."
                )
        self._data[found.name] = found.variant
        self._digests[found.name] = _digest_of(found)
        return found

    def available(self, name: str) -> bool:
        """Whether the data set can be loaded; claims on a missing data set are "not run"."""
        return (paths.dataset(self.source, whole_set(name)) / "manifest.json").is_file()

    def shared(self, block: str) -> dict[str, Any]:
        """The knobs of a block of ``params.yaml`` that several notebooks share."""
        self._shared[block] = self.params.section(block)
        return self._shared[block]

    def rng(self, *setting: str | int, section: str | None = None) -> np.random.Generator:
        """An independent generator for every setting and repeat.

        ``section`` names the block of knobs that the randomness belongs to, by default this
        notebook's: notebooks that run the same units of a shared block find them in the cache.
        """
        return generator(self.params.seed, section or self.name, *setting)

    def map(
        self, function: Callable[..., Any], units: Mapping[Key, dict[str, Any]], label: str
    ) -> dict[Key, Any]:
        """``{key: function(**arguments)}``, in parallel; see :class:`replication.units.Units`."""
        if self._units is None:
            self._units = Units(self.name, self.params.workers)
        results = self._units.map(function, list(units.values()), label)
        return dict(zip(units, results, strict=True))

    def metric(self, name: str, value: float | int | Estimate, n: int = 1) -> None:
        """Record one number in ``metrics.json``.

        Raises:
            ValueError: it, or an end of its interval, is NaN or infinite, which JSON lacks.
        """
        estimate = value if isinstance(value, Estimate) else Estimate(float(value), None, n)
        if not np.isfinite([estimate.value, *(estimate.ci95 or ())]).all():
            raise ValueError(
                f"the metric {name} must be a finite number, not {estimate.value:g} with the "
                f"interval {estimate.ci95}: leave it out where there is none."
            )
        self._metrics[name] = metric_record(estimate)

    def estimates(
        self, frame: pd.DataFrame, by: Sequence[str], names: Mapping[str, str]
    ) -> pd.DataFrame:
        """Repeats turned into metrics, and a table of means with half the 95 % interval.

        Rows of ``frame`` that agree in the columns ``by`` are repeats of one setting; NaN agrees
        with NaN. ``names`` gives, for every column to average, how its metric is called: a format
        of the columns ``by``, such as ``"{data}.{attack}.{defense}.test_error"``, or "" for no
        metric. The table has the columns ``by``, and for each column averaged its mean and, called
        "± <column>", the half width.
        """
        rows = []
        for key, part in frame.groupby(list(by), sort=False, dropna=False):
            row = dict(zip(by, key, strict=True))
            for column, name in names.items():
                estimate = mean_interval(list(part[column]))
                if name:
                    self.metric(name.format(**row), estimate)
                row |= {column: estimate.value, f"± {column}": estimate.half_width}
            rows.append(row)
        return pd.DataFrame(rows)

    def recorded(self, name: str, metric: str) -> float:
        """A number that another notebook has recorded in this profile; NaN if there is none yet.

        For figures, which may show beside their own what has its place elsewhere.
        """
        file = paths.pipeline_results(self.profile, name) / "metrics.json"
        if not file.is_file():
            return float("nan")
        metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
        return float(metrics.get(metric, {}).get("value", "nan"))

    def timing(self, name: str, value: Any) -> None:
        """Record measured seconds; they never enter ``metrics.json``."""
        self._timings[name] = value

    def figure(self, figure: Figure, name: str) -> None:
        """Write the figure as PNG, stamped if it shows stand-in data, and show it with its text."""
        from IPython.display import display

        self._stamp(figure)
        plotting.save(figure, self.folder / "figures" / f"{name}.png")
        display(figure, metadata={"image/png": {"alt": plotting.describe(figure)}})
        plt.close(figure)  # or the notebook would show it once more
        self._show_pipelines(f"figures/{name}.png")

    def timed_figure(self, figure: Figure, name: str) -> str:
        """Write a figure that shows measured seconds, apart from what must be reproducible.

        Returns the Markdown that shows it: the executed notebook then links the picture and
        stays identical from run to run, with a text that leaves out the title, where seconds are.
        """
        self._stamp(figure)
        file = self.folder / "timed" / f"{name}.png"
        plotting.save(figure, file)
        plt.close(figure)
        beside = self.folder if paths.in_pipeline() else params.notebook_file(self.name).parent
        text = plotting.describe(figure, finding=False).translate(str.maketrans("[]", "()"))
        return f"![{text}]({Path(os.path.relpath(file, beside)).as_posix()})"

    def table(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """Write the table as CSV, rounded to six significant digits, and return it."""
        frame.to_csv(
            self.folder / "tables" / f"{name}.csv",
            index=False,
            float_format="%.6g",
            encoding="utf-8",
        )
        return frame

    def finish(self, **headline: str | float) -> None:
        """Write ``metrics.json``, ``headline.json``, ``timings.json`` and ``units.csv``.

        ``headline``: three to six numbers that a person would compare, each the name of a metric
        or, for ``paper``, the paper's number. A metric that this run's knobs leave out is left out
        here too, and the notebook says so.

        Raises:
            ValueError: a number has a name that is not in :data:`HEADLINE`.
        """
        numbers = {}
        for key, value in headline.items():
            if key not in (*HEADLINE, *VERDICTS):
                raise ValueError(f"headline {key} is none of {', '.join((*HEADLINE, *VERDICTS))}.")
            if not isinstance(value, str):
                numbers[key] = rounded(value)
            elif value in self._metrics:
                numbers[key] = self._metrics[value]["value"]
            else:
                print(f"headline: no {key}, for these knobs give no {value}")
        metrics = {
            "data": dict(sorted(self._data.items())),
            "profile": self.profile,
            "metrics": dict(sorted(self._metrics.items())),
        }
        _write_json(self.folder / "metrics.json", metrics)
        _write_json(self.folder / "headline.json", numbers)
        _write_json(self.folder / "timings.json", self._timings)
        rows = [] if self._units is None else self._units.rows
        write_table(self.folder, rows)
        if paths.in_pipeline():
            used = {"data": self._digests, "shared": self._shared, "device": self._device}
            _write_json(self.folder / paths.USED, used)
        else:
            self._compare(numbers)

    def _say_where(self) -> None:
        """In a run by hand, say what is read and written, and whether results are out of date."""
        there = paths.shown(paths.pipeline_results(self.profile, self.name))
        print(
            f"Profile {self.profile} ({self.source} data), by the notebook's first cell of code. "
            f"Results go to {paths.shown(self.folder)}, the pipeline's are in {there}."
        )
        stage = f"{paths.stage_name(self.name)}@{self.profile}"
        if _out_of_date(stage):
            print(f"They are not what the pipeline would make now: `dvc repro {stage}`.")

    def _stamp(self, figure: Figure) -> None:
        if self.source == "standin":
            plotting.stamp(figure, "stand-in data")

    def _show_pipelines(self, part: str) -> None:
        """In a run by hand, show the pipeline's figure beside the new one."""
        file = paths.pipeline_results(self.profile, self.name) / part
        if not paths.in_pipeline() and file.is_file():
            from IPython.display import HTML, Image, display

            display(HTML(f"The pipeline's, <code>{file.relative_to(paths.ROOT)}</code>:"))
            display(Image(filename=file))

    def _compare(self, numbers: dict[str, float]) -> None:
        """In a run by hand, show the headline beside the pipeline's."""
        from IPython.display import display

        file = paths.pipeline_results(self.profile, self.name) / "headline.json"
        there = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        rows = {key: {"here": value, "pipeline": there.get(key)} for key, value in numbers.items()}
        display(pd.DataFrame.from_dict(rows, orient="index", columns=["here", "pipeline"]))


def _out_of_date(stage: str) -> bool:
    """Whether DVC knows that a stage would run; False where DVC cannot say."""
    command = [sys.executable, "-m", "dvc", "status", "--json", stage]
    found = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    return found.returncode == 0 and bool(json.loads(found.stdout))


def _digest_of(dataset: Dataset) -> str:
    """A digest of all numbers of a data set; of sparse ones their parts, as they are stored."""
    arrays = {}
    for name in ("X", "X_test"):
        X = getattr(dataset, name)
        if sp.issparse(X):
            rows = sp.csr_array(X)
            for part in ("data", "indices", "indptr", "shape"):
                arrays[f"{name}.{part}"] = np.asarray(getattr(rows, part))
        elif X is not None:
            arrays[name] = to_dense(X)
    for name in ("y", "y_test", "tasks"):
        if getattr(dataset, name) is not None:
            arrays[name] = np.asarray(getattr(dataset, name))
    return content_digest(arrays, dataset.vocabulary)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, sort_keys=True, default=float)
    path.write_text(text + "\n", encoding="utf-8")
