"""Commands that are killed, interrupted or left without disk, and then run again.

``run(seed, count)`` makes a small project in a folder of its own, draws a moment ``count`` times,
ends a command there, looks at what it has left, and runs it again. It is right if nobody could have
read half of a file, no process is left, and the second run gives what an undisturbed one gives: the
same files, the same bytes, and no finished unit computed twice.
"""

import contextlib
import gzip
import hashlib
import http.server
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.poisoning.datasets.published import listening

NAME = "interruption"
ROOT = Path(__file__).parents[1]
MARK = "FUZZ_PROCESS"
"""Set in every process of a command, however it was started, so that survivors are found."""

PARAMETERS = """\
seed: 1
device: cpu
workers: {backend: loky, jobs: 2, scheduler: }
profiles: {demo: {data: standin}, quick: {data: real}, paper: {data: real}}
toy:
  one:
    repeats: 4
"""
CELLS = (
    """\
import time

import matplotlib.pyplot as plt
import pandas as pd

from poisoning.metrics import mean_interval
from replication.notebook import Notebook

notebook = Notebook("toy/one", profile)""",
    """\
def draw(rng):
    time.sleep(0.1)
    return rng.normal(size=1000)


found = notebook.map(draw, {i: {"rng": notebook.rng(i)} for i in range(repeats)}, "draws")
notebook.metric("toy.clean_error", mean_interval([float(abs(v).mean()) for v in found.values()]))
notebook.table(pd.DataFrame({"mean": [v.mean() for v in found.values()]}), "means")""",
    """\
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([v.mean() for v in found.values()])
notebook.figure(figure, "means")""",
    'notebook.finish(clean="toy.clean_error")',
)
UNITS = """\
import io
import sys
import time
from pathlib import Path

import numpy as np

from poisoning.datasets import files
from poisoning.errors import DataError
from replication.params import Workers
from replication.units import Units


def draw(seed):
    time.sleep(0.05)
    return np.random.default_rng(seed).normal(size=1000)


workers = Workers(backend="serial", jobs=1, scheduler=None)
try:
    found = Units("toy/one", workers).map(draw, [{"seed": seed} for seed in range(8)], "draws")
    text = io.StringIO()
    np.savetxt(text, found)
    files.write_text(Path("found.txt"), text.getvalue())
except DataError as error:
    sys.exit(str(error))
"""
AT_AN_OPERATION = """\
import os, signal, sys

left = int(os.environ.get("FUZZ_OPERATIONS", "0"))
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + "/"


def count(event, arguments):
    global left
    if event == "open":
        writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    else:
        writes = event in {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.move"}
    if not (writes and isinstance(arguments[0], str | os.PathLike)):
        return
    name = os.path.abspath(os.fspath(arguments[0]))
    if name.startswith(root) and "__pycache__" not in name:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if left:
    sys.addaudithook(count)
"""
"""A process that is told to ends at its n-th change of a file: moments that no clock would hit."""


@dataclass
class Command:
    """What is run, what it makes, and what an undisturbed run made."""

    name: str
    arguments: list[str]
    makes: tuple[str, ...]
    """Below the project's folder: what is there must be whole at every moment."""

    needs: tuple[str, ...] = ()
    seconds: float = 0.0
    tree: dict[str, bytes] = field(default_factory=dict)


COMMANDS = (
    Command("fetch", ["-m", "poisoning.datasets", "fetch", "mnist"], ("data/raw/mnist",)),
    Command(
        "prepare", ["-m", "poisoning.datasets", "prepare", "mnist", "--source", "real"],
        ("data/real/mnist",), needs=("data/raw",),
    ),
    Command("unit", ["units.py"], ("found.txt",)),
    Command(
        "notebook", ["-m", "replication.run", "toy/one", "--profile", "demo"],
        ("results/demo/toy/one",),
    ),
    Command(
        "scorecard", ["-m", "replication.claims", "--profile", "paper"],
        ("results/paper/scorecard.json",),
    ),
)  # fmt: skip
OUTPUTS = ("data", ".cache", "results/demo", "results/paper/scorecard.json", "found.txt")
CHANGING = ("provenance.json", "timings.json", "units.csv")
"""Files that differ from run to run: they hold seconds."""


def run(seed: int, count: int, commands: tuple[str, ...] = ()) -> dict[str, Any]:
    """Interrupt ``count`` commands, drawn by ``seed``: how many ended how, and what went wrong.

    ``right``: the interruption left nothing and the next run gave the undisturbed result.
    ``refused``: the same, after a full disk was told of in a sentence. ``wrong`` and ``crashed`` (a
    traceback, a process left, no end) stand one by one in ``faults``.
    """
    rng = np.random.default_rng(seed)
    found = Counter(tried=0, right=0, refused=0, wrong=0, crashed=0)
    faults = []
    with _project() as (root, url, disk):
        chosen = [c for c in COMMANDS if not commands or c.name in commands]
        for command in COMMANDS:
            if command in chosen or command.name == "fetch":  # `prepare` needs what it brings
                _undisturbed(command, root, url)
        for number in range(count):
            command = chosen[number % len(chosen)]
            told, outcome = _trial(command, root, url, disk, rng)
            found["tried"] += 1
            found[outcome] += 1
            if outcome in ("wrong", "crashed"):
                faults.append(f"{number}, {told}")
            print(f"{number} {told}: {outcome}", file=sys.stderr, flush=True)
    return {**found, "seed": seed, "disk": "tmpfs" if disk else "RLIMIT_FSIZE", "faults": faults}


# A project to run in ---------------------------------------------------------------------------


@contextlib.contextmanager
def _project() -> Iterator[tuple[Path, str, bool]]:
    """A small project, a server for its one data set, and whether its disk can be filled."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        root = Path(folder)
        disk = _mount(root)
        try:
            published = _build(root)
            with _serving(published) as url:
                yield root, url, disk
        finally:
            if disk:
                subprocess.run(["umount", folder], check=True)
            _told(root).unlink(missing_ok=True)


def _mount(folder: Path) -> bool:
    """Lay a small disk of its own over a folder, as only root may."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _build(root: Path) -> dict[str, bytes]:
    """Write the project; the files of its data set."""
    shutil.copytree(ROOT / "lib", root / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "claims.yaml", "results/bench.json"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    for file in (ROOT / "results" / "paper").glob("*/*/metrics.json"):
        copy = root / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True)
        shutil.copyfile(file, copy)
    (root / "params.yaml").write_text(PARAMETERS, encoding="utf-8")
    (root / "units.py").write_text(UNITS, encoding="utf-8")
    (root / "lib" / "sitecustomize.py").write_text(AT_AN_OPERATION, encoding="utf-8")
    knobs = 'profile = "demo"\nrepeats: "Count" = 4'
    made = new_notebook(cells=[new_markdown_cell("# Toy"), new_code_cell(knobs)])
    made.cells[1].metadata["tags"] = ["parameters"]
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    made.cells += [new_code_cell(code) for code in CELLS]
    (root / "notebooks" / "toy").mkdir(parents=True)
    nbformat.write(made, root / "notebooks" / "toy" / "one.ipynb")
    return _register(root / "lib" / "poisoning" / "datasets" / "sources.yaml")


def _register(registry: Path) -> dict[str, bytes]:
    """Random images of MNIST's form, known to the project's registry; by name of their files."""
    rng = np.random.default_rng(0)
    entries = yaml.safe_load(registry.read_text(encoding="utf-8"))
    published = {}
    for name in entries["mnist"]["files"]:
        n = 200 if name.startswith("train") else 100
        shape = (n, 28, 28) if "images" in name else (n,)
        values = rng.integers(0, 10, shape).astype(np.uint8)
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        published[name] = gzip.compress(header + values.tobytes(), mtime=0)
    fingerprints = {
        name: {"size": len(raw), "checksum": f"sha256:{hashlib.sha256(raw).hexdigest()}"}
        for name, raw in published.items()
    }
    about = {"note": "random", "n": 200, "n_test": 100, "d": 784, "files": fingerprints}
    entries["mnist"]["variants"] = {"random": about}
    registry.write_text(yaml.safe_dump(entries), encoding="utf-8")
    return published


@contextlib.contextmanager
def _serving(published: dict[str, bytes]) -> Iterator[str]:
    """A slow server of these files, which knows ranges; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = published[self.path.rpartition("/")[2]]
            begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            if begin >= len(content):
                self.send_response(416)
                span = f"bytes */{len(content)}"
            else:
                self.send_response(206 if begin else 200)
            self.send_header("Content-Range", span)
            self.send_header("Content-Length", str(len(content[begin:])))
            self.end_headers()
            with contextlib.suppress(OSError):
                for place in range(begin, len(content), 8192):
                    self.wfile.write(content[place : place + 8192])
                    time.sleep(0.02)

        def log_message(self, *arguments: object) -> None:
            pass

    with listening(Handler) as url:
        yield url


# A command, undisturbed or not -------------------------------------------------------------------


def _undisturbed(command: Command, root: Path, url: str) -> None:
    """Run a command from nothing, and note what it makes and how long it takes."""
    for _ in range(2):  # the first run compiles
        _clear(command, root)
        begun = time.monotonic()
        process, told = _start(command, root, url)
        process.wait()
        command.seconds = time.monotonic() - begun
        text = told.read_text(encoding="utf-8")
        if process.returncode != 0:
            raise RuntimeError(f"{command.name} fails by itself: {text}")
    command.tree = _tree(root)
    if command.name == "fetch":
        shutil.copytree(root / "data" / "raw", root / "kept" / "data" / "raw")


def _clear(command: Command, root: Path) -> None:
    for name in OUTPUTS:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in command.needs:
        shutil.copytree(root / "kept" / name, root / name)


def _start(
    command: Command,
    root: Path,
    url: str,
    prepare: Callable[[], None] = lambda: None,
    **variables: str,
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a command in a group of its own; its process, and the file with what it prints."""

    def before() -> None:
        # What a shell runs in its background ignores SIGINT, and so does all that it starts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare()

    told = _told(root)
    away = ("POISON_RESULTS", "POISON_CACHE", "POISON_PROGRESS", "PYTEST_CURRENT_TEST")
    own = {
        "PYTHONPATH": str(root / "lib"),
        "DATA_MIRROR": url,
        MARK: root.name,
        **variables,
    }
    environment = {k: v for k, v in os.environ.items() if k not in away} | own
    with told.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command.arguments],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
            preexec_fn=before,
        )
    return process, told


def _told(root: Path) -> Path:
    """The file with what a command prints: on another disk than the one that is filled."""
    return root.with_name(f"{root.name}-told")


def _tree(root: Path) -> dict[str, bytes]:
    """Every file that commands have made, and its bytes; of folders nothing."""
    found = {}
    for name in OUTPUTS:
        path = root / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            place = str(file.relative_to(root))
            if file.is_file() and not place.startswith((".cache/locks", ".cache/failed")):
                seconds = file.name in CHANGING or place.startswith(".cache/units")
                found[place] = b"" if seconds else file.read_bytes()
    return found


def _records(root: Path) -> dict[str, tuple[int, int]]:
    """The unit records that are visible, each by its inode and time."""
    records = root.glob(".cache/units/*/[!.]*.npz")
    return {r.name: (r.stat().st_ino, r.stat().st_mtime_ns) for r in records}


def _survivors(root: Path) -> list[psutil.Process]:
    """Processes that a command has started, whatever their parents and groups are by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ended = process.status() == psutil.STATUS_ZOMBIE
            if not ended and process.environ().get(MARK) == root.name:
                found.append(process)
    return found


# One trial ---------------------------------------------------------------------------------------

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WAYS = ("process", "group", "process", "group", "operation", "operation", "disk", "child")


def _trial(
    command: Command, root: Path, url: str, disk: bool, rng: np.random.Generator
) -> tuple[str, str]:
    """Interrupt a command once or twice and run it again: what was done, and how it ended."""
    _clear(command, root)
    done = []
    outcome = "right"
    if rng.random() < 0.2:  # the results of an earlier run are there, and are replaced
        process, _ = _start(command, root, url)
        process.wait()
        done.append("again")
    for _ in range(1 + (rng.random() < 0.2)):
        way = str(rng.choice(WAYS[: None if command.name == "notebook" else -1]))
        what, ended = _interrupted(command, root, url, disk, way, rng)
        done.append(what)
        if ended != "right":
            outcome = ended
        if outcome in ("wrong", "crashed"):
            return f"{command.name}: {', '.join(done)}", outcome
    finished = _records(root)
    process, told = _start(command, root, url)
    try:
        process.wait(timeout=120 + 10 * command.seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        done.append("the next run does not end")
    text = told.read_text(encoding="utf-8", errors="replace")
    if process.returncode != 0:
        done.append(f"the next run failed: {text[-500:]!r}")
        outcome = "crashed"
    elif any(_records(root).get(name) != was for name, was in finished.items()):
        done.append("a finished unit was computed twice")
        outcome = "wrong"
    elif _tree(root) != command.tree:
        found = _tree(root)
        names = sorted(n for n in {*found, *command.tree} if found.get(n) != command.tree.get(n))
        done.append(f"the next run left other files: {', '.join(names)}")
        outcome = "wrong"
    return f"{command.name}: {', '.join(done)}", outcome


def _interrupted(
    command: Command, root: Path, url: str, disk: bool, way: str, rng: np.random.Generator
) -> tuple[str, str]:
    """Run a command until it is ended from outside; what was done, and right, refused or not."""
    kind = SIGNALS[int(rng.integers(len(SIGNALS)))]
    delay = float(rng.uniform(0.0, command.seconds))
    filler = root / "filler"
    variables, prepare = {}, lambda: None
    if way == "operation":
        number = int(np.exp(rng.uniform(0.0, np.log(80.0))))
        what, variables = f"SIGKILL at file operation {number}", {"FUZZ_OPERATIONS": str(number)}
    elif way == "disk":
        size = sum(map(len, command.tree.values())) + 50_000
        free = int(rng.uniform(0.0, size))
        what = f"a disk with {free} bytes left"
        if disk:
            _fill(filler, free)
        else:
            free //= 10
            what = f"files of at most {free} bytes"

            def prepare() -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (free, free))

    else:
        what = f"{kind.name} to the {way} after {delay:.2f} s"
    process, told = _start(command, root, url, prepare, **variables)
    try:
        if way in ("process", "group", "child"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            _send(process, kind, way, rng)
        process.wait(timeout=120 + 10 * command.seconds)
        left = _survivors(root)
        deadline = time.monotonic() + 20
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            left = _survivors(root)
        if left:
            names = " and ".join(" ".join(p.cmdline()[:5]) for p in left)
            return f"{what}: {names} left", "crashed"
    except subprocess.TimeoutExpired:
        return f"{what}: no end", "crashed"
    finally:
        for other in _survivors(root):
            other.kill()
        process.wait()
        filler.unlink(missing_ok=True)
    text = told.read_text(encoding="utf-8", errors="replace")
    # An interruption while Python still imports is told by Python itself.
    if "Traceback" in text and "KeyboardInterrupt" not in text:
        return f"{what}: {text[-1500:]!r}", "crashed"
    half = _half(command, root)
    if half:
        return f"{what}: {half} is not whole", "wrong"
    return what, "refused" if way == "disk" and process.returncode != 0 else "right"


def _send(
    process: subprocess.Popen[bytes], kind: signal.Signals, way: str, rng: np.random.Generator
) -> None:
    with contextlib.suppress(ProcessLookupError, psutil.Error):
        if way == "group":
            os.killpg(process.pid, kind)
        elif way == "process":
            process.send_signal(kind)
        else:
            children = psutil.Process(process.pid).children(recursive=True)
            if children:
                children[int(rng.integers(len(children)))].kill()


def _fill(filler: Path, free: int) -> None:
    """Leave ``free`` bytes on the disk of a file."""
    with filler.open("wb") as file:
        space = os.statvfs(filler)
        os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - free))


def _half(command: Command, root: Path) -> str:
    """What a reader could see of a result that is not all of it; "" where there is none."""
    there = _tree(root)
    for made in command.makes:
        whole = {n: b for n, b in command.tree.items() if n == made or n.startswith(f"{made}/")}
        seen = {n: b for n, b in there.items() if n == made or n.startswith(f"{made}/")}
        if seen and seen != whole:
            return made
    return ""


if __name__ == "__main__":
    print(run(int(sys.argv[1]), int(sys.argv[2]), tuple(sys.argv[3:])))
