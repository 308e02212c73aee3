"""Units of work on other machines: a Dask scheduler and its workers.

A unit goes to a worker as one message. Large arrays travel apart from it, once for all units that
hold them, and workers hand them to one another. A worker needs nothing of its own but this
project's code, which has to be the client's: a worker with other code, other versions of packages,
or several threads refuses its unit. A unit whose worker dies is given to another. When the
scheduler is lost, the units that were not finished are given to the next one at its address.
"""

import hashlib
import io
import logging
import os
import pickle
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from replication import paths
from replication.params import Workers
from replication.progress import stream
from replication.provenance import machine, tree_state

if TYPE_CHECKING:
    from distributed import Client, Future

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A function and its arguments, as :func:`joblib.delayed` gives them."""

LARGE = 100_000
"""Bytes from which an array travels apart from the units that hold it."""

CONNECTED = 10.0
"""Seconds within which a scheduler has to answer."""

RETURNED = 60.0
"""Seconds within which a scheduler that was lost has to be there again."""

LOOK = 1.0
"""Seconds between two looks at the workers."""

SHORT = 1.0
"""Seconds up to which a unit is short: of these a worker holds :data:`AHEAD` at a time, so that it
need not wait for the next; of others one, so that nothing but this is lost with the worker."""

AHEAD = 3


class ClusterError(RuntimeError):
    """There is no scheduler, or a worker cannot compute units of this project; one sentence."""


class _LostError(Exception):
    """The connection to the scheduler broke."""


def results(calls: Iterable[Call], workers: Workers) -> Iterator[Any]:
    """The results of all calls in order of completion, computed by a scheduler's workers.

    Without an address in ``workers``, a scheduler and ``workers.jobs`` processes are started here
    and stopped after the last result.

    Raises:
        ClusterError: no scheduler answers, or a worker refuses its unit or dies of it.
    """
    packed = [_Packed(call) for call in calls]
    left = dict.fromkeys(range(len(packed)))
    patience = CONNECTED
    while left:
        with _quiet(), _connected(workers, patience) as client:
            try:
                for number, result in _session(client, packed, left):
                    del left[number]
                    yield result
            except _LostError:
                patience = RETURNED
                _say(f"the scheduler at {workers.scheduler} is lost: waiting for it.")


# The client -----------------------------------------------------------------------------------


@contextmanager
def _connected(workers: Workers, patience: float) -> Iterator["Client"]:
    from distributed import Client, LocalCluster  # two seconds to import

    with ExitStack() as stack:
        address: Any = workers.scheduler
        if address is None:
            local = {"n_workers": workers.jobs, "threads_per_worker": 1, "dashboard_address": ":0"}
            address = stack.enter_context(LocalCluster(**local))
        deadline = time.monotonic() + patience
        while True:
            rest = deadline - time.monotonic()
            try:
                client = Client(address, timeout=max(rest, 1.0), set_as_default=False)
                break
            except (OSError, ValueError) as error:
                if isinstance(error, ValueError) or rest <= 1.0:
                    raise ClusterError(
                        f"no Dask scheduler answers at {address} within {patience:.0f} s: start "
                        "one with `dask scheduler`, or correct workers.scheduler in params.yaml; "
                        "finished units are kept."
                    ) from error
        stack.enter_context(client)
        _same_dask(client)
        yield client


def _same_dask(client: "Client") -> None:
    """Refuse a scheduler that would not understand what it is sent."""
    found = client.get_versions()
    here, there = found["client"]["packages"], found["scheduler"]["packages"]
    for name in ("python", "distributed", "cloudpickle"):
        if _minor(there[name]) != _minor(here[name]):
            raise ClusterError(
                f"the scheduler at {client.scheduler.address} runs with {name} {there[name]}, this "
                f"process with {here[name]}: start it and its workers in an environment made from "
                "requirements.txt."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own reports of lost connections out of notebooks: what happened is said once."""
    import distributed  # noqa: F401 - its own settings first, or they would be taken back with ours
    from dask import config

    for name in ("distributed", "distributed.client"):
        # For good, since some reports come late.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # It would warn of large arrays, which are sent once.
    with config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        yield


def _say(text: str) -> None:
    with stream() as target:
        print(text, file=target, flush=True)


class _Packed:
    """A call as bytes, and the large arrays that these refer to by number."""

    def __init__(self, call: Call) -> None:
        self.arrays: list[np.ndarray] = []
        self._numbers: dict[int, int] = {}
        buffer = io.BytesIO()
        pickler = cloudpickle.Pickler(buffer)
        pickler.persistent_id = self._number
        pickler.dump(call)
        self.message = buffer.getvalue()

    def _number(self, value: Any) -> int | None:
        if type(value) is not np.ndarray or value.nbytes < LARGE or value.dtype.hasobject:
            return None
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.arrays)
            self.arrays.append(value)
        return self._numbers[id(value)]


def _session(
    client: "Client", packed: Sequence[_Packed], left: Collection[int]
) -> Iterator[tuple[int, Any]]:
    """Give out the calls with these numbers, a few at a time, and yield each result."""
    terms = pickle.dumps(Terms(*_state()))
    waiting = deque(left)
    given: dict[str, tuple[int, float]] = {}
    done: SimpleQueue[Future] = SimpleQueue()
    arrays: dict[int, Future] = {}
    uses = Counter(id(array) for number in left for array in packed[number].arrays)
    threads, looked, each = None, -LOOK, 1
    while waiting or given:
        if time.monotonic() - looked >= LOOK:
            threads, looked = _threads(client, threads), time.monotonic()
        while waiting and len(given) < each * threads:
            number = waiting.popleft()
            for array in packed[number].arrays:
                if id(array) not in arrays:
                    message = pickle.dumps(array, protocol=5)
                    key = f"array-{uuid.uuid4().hex}"
                    arrays[id(array)] = client.submit(bytes, message, key=key)
            needed = [arrays[id(array)] for array in packed[number].arrays]
            # A function without a name goes by its code: the scheduler reads it too, and need not
            # have this project.
            future = client.submit(
                lambda *given: __import__("replication.cluster").cluster.compute(*given),
                *(packed[number].message, needed, terms),
                key=f"unit-{uuid.uuid4().hex}",
            )
            given[future.key] = number, time.monotonic()
            future.add_done_callback(done.put)
        try:
            future = done.get(timeout=LOOK)
        except Empty:
            continue
        number, begun = given.pop(future.key)
        each = AHEAD if time.monotonic() - begun < SHORT else 1
        result = _result(future)
        for array in packed[number].arrays:
            uses[id(array)] -= 1
            if not uses[id(array)]:
                del arrays[id(array)]
        yield number, result


def _threads(client: "Client", before: int | None) -> int:
    """How many units the workers can compute at a time; says so once there is no worker."""
    try:
        threads = sum(client.nthreads().values())
    except OSError as error:
        raise _LostError from error
    if not threads and before != 0:
        address = client.scheduler.address
        _say(f"no workers yet: waiting for `dask worker {address} --nthreads 1`.")
    return threads


def _result(future: "Future") -> Any:
    """What a unit returned.

    Raises:
        ClusterError: no worker could compute it; or what the unit raised itself.
    """
    from distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except CancelledError:
        raise _LostError from None
    except KilledWorker as error:
        raise ClusterError(
            f"{error.allowed_failures + 1} workers died over one unit: look whether it needs more "
            "memory than they have; finished units are kept."
        ) from None
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"a worker has no module {error.name}: start workers in an environment made from "
            "requirements.txt, in a checkout of this project, with its folder lib on PYTHONPATH."
        ) from error


# Terms ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Terms:
    """What a worker must have in common with the client: code, and versions of packages.

    ``commit`` is for messages. Every run has a ``run`` of its own, so that each is checked.
    """

    code: str
    commit: str
    versions: tuple[tuple[str, str], ...]
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


def _state() -> tuple[str, str, tuple[tuple[str, str], ...]]:
    about, tree = machine(), tree_state()
    packages = {name: str(version).partition("+")[0] for name, version in about["versions"].items()}
    versions = {"python": _minor(about["python"]), **packages}
    changed = " with uncommitted changes" if tree["dirty"] else ""
    return _code(), f"{str(tree['commit'])[:10]}{changed}", tuple(versions.items())


def _code() -> str:
    """A digest of all files below ``lib``."""
    sha = hashlib.sha256()
    folder = paths.ROOT / "lib"
    for file in sorted(folder.rglob("*.py")):
        sha.update(f"{file.relative_to(folder)}\0".encode())
        sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()


_loaded = cache(_code)
"""The code when this process first computed a unit, which is what it has imported."""


def _minor(version: str) -> str:
    """``3.11`` of ``3.11.7``: the part of a version that files and messages depend on."""
    return ".".join(version.split(".")[:2])


# The worker -----------------------------------------------------------------------------------


def compute(message: bytes, arrays: Sequence[bytes], terms: bytes) -> Any:
    """Compute one call in a worker's process.

    Raises:
        ClusterError: the worker must not compute units of this client.
    """
    _agree(pickle.loads(terms))
    function, arguments, options = _Unpacker(message, arrays).load()
    return function(*arguments, **options)


@cache
def _agree(terms: Terms) -> None:
    """Raise ``ClusterError`` unless this worker's numbers would be the client's."""
    from distributed import get_worker

    worker = get_worker()
    name = f"the worker {worker.address} in {paths.ROOT}"
    code, commit, versions = _state()
    if code != terms.code:
        raise ClusterError(
            f"{name} has other code below lib (commit {commit}) than the client (commit "
            f"{terms.commit}): check out the client's commit there, and start the worker again."
        )
    if code != _loaded():
        raise ClusterError(f"{name} has loaded code that has changed since: start it again.")
    for (package, here), (_, there) in zip(versions, terms.versions, strict=True):
        if here != there:
            raise ClusterError(
                f"{name} has {package} {here}, the client {there}: make both environments from "
                "requirements.txt."
            )
    if worker.state.nthreads != 1 or os.environ.get("OMP_NUM_THREADS") != "1":
        raise ClusterError(
            f"{name} has several threads, and the number of threads may change numbers: start it "
            "with --nthreads 1 and OMP_NUM_THREADS=1, and more processes with --nworkers."
        )


class _Unpacker(pickle.Unpickler):
    """Reads a message of :class:`_Packed`: every unit gets copies of its own."""

    def __init__(self, message: bytes, arrays: Sequence[bytes]) -> None:
        super().__init__(io.BytesIO(message))
        self._messages = arrays
        self._arrays: dict[int, np.ndarray] = {}

    def persistent_load(self, number: int) -> np.ndarray:
        if number not in self._arrays:
            self._arrays[number] = pickle.loads(self._messages[number])
        return self._arrays[number]
