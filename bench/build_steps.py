"""Undoes the optimizations of Tally, to measure what each optimization saves.

In this module, an optimization is called a step, and an artifact is a built program. For each step,
the artifact is copied, and only this step is undone in the copy.
"""

import compileall
import py_compile
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import artifacts
from bench.artifacts import Artifact

_VALID = py_compile.PycInvalidationMode.UNCHECKED_HASH  # skips the check of the source


def without_bytecode(directory: Path) -> None:
    """Delete the bytecode. At every start, Python must then compile all modules that it imports.

    Raises:
        LookupError: if there is no bytecode.
    """
    caches = _found(directory.rglob("__pycache__"), "bytecode")
    for cache in caches:
        shutil.rmtree(cache)


def with_all_of_botocore(directory: Path) -> None:
    """Add all of botocore's data, which describes hundreds of services.

    Raises:
        LookupError: if the artifact has all of that data already.
    """
    data = Path("botocore") / "data"
    whole = artifacts.peers()["bare_boto3"].directory / data
    if len(list((directory / data).iterdir())) == len(list(whole.iterdir())):
        message = "the artifact has all of botocore's data"
        raise LookupError(message)
    shutil.rmtree(directory / data)
    shutil.copytree(whole, directory / data)


def with_garbage_collector(directory: Path) -> None:
    """Let the garbage collector run while modules are imported.

    Raises:
        LookupError: if the artifact does not stop the garbage collector.
    """
    switch = re.compile(r"\bgc\.(disable|freeze)\(\)")
    ours = [*directory.glob("*.py"), *directory.glob("counters/**/*.py")]
    switched = [path for path in ours if switch.search(path.read_text(encoding="utf-8"))]
    for path in _found(switched, "gc.disable() and no gc.freeze()"):
        rewrite(path, switch.sub("None", path.read_text(encoding="utf-8")))


def with_boto3(directory: Path) -> None:
    """Make the artifact import boto3, too. botocore still creates the clients.

    Raises:
        LookupError: if `counters.clients` does not import botocore.
    """
    for name in ("boto3", "s3transfer"):
        source = artifacts.peers()["bare_boto3"].directory / name
        shutil.copytree(source, directory / name)
        compileall.compile_dir(directory / name, quiet=1, invalidation_mode=_VALID)
    botocore = "import botocore.session\n"
    without(botocore, "clients", directory, instead=f"import boto3\n{botocore}")


def with_urllib3(directory: Path) -> None:
    """Put urllib3 in the place of its stand-in.

    Raises:
        FileNotFoundError: if the artifact has no stand-in.
    """
    stand_in = directory / "urllib3"
    shutil.rmtree(stand_in)
    shutil.copytree(artifacts.peers()["bare_boto3"].directory / "urllib3", stand_in)
    compileall.compile_dir(stand_in, quiet=1, invalidation_mode=_VALID)


def over_urllib3(directory: Path) -> None:
    """Let botocore send the requests, with urllib3.

    Raises:
        LookupError: if `counters.connection` does not compare the address of a request.
    """
    with_urllib3(directory)
    without("if request.url != self._url:", "connection", directory, instead="if request.url:")


def without(text: str, module: str, directory: Path, instead: str = "") -> None:
    """Replace a piece of code in `counters`.

    Args:
        text: the code.
        module: the name of the module in `counters`.
        directory: the artifact.
        instead: the new code.

    Raises:
        LookupError: if the module does not contain the code.
    """
    path = directory / "counters" / f"{module}.py"
    before = path.read_text(encoding="utf-8")
    _found(re.findall(re.escape(text), before), f"{text!r} in {module}.py")
    rewrite(path, before.replace(text, instead))


Steps = Mapping[str, Callable[[Path], None]]

# The steps. The keys are the names of the steps in the tables. The values are the functions that
# undo the steps.
COLD: Steps = {
    "without bytecode": without_bytecode,
    "with all of botocore's data": with_all_of_botocore,
    "with urllib3": with_urllib3,
    "with boto3 imported": with_boto3,
    "with the garbage collector on": with_garbage_collector,
}
WARM: Steps = {
    "over botocore's own urllib3": over_urllib3,
    "with botocore's User-Agent": partial(without, "user_agent=_USER_AGENT,", "clients"),
    "with botocore's validation of parameters": partial(
        without, "parameter_validation=False,", "clients"
    ),
}


@contextmanager
def undone(artifact: Artifact, steps: Steps) -> Iterator[dict[str, Artifact]]:
    """Make a copy of the artifact for each step, and undo the step in that copy.

    The copies are deleted when the with block ends.

    Yields:
        The copies, by the names of the steps.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copies = {}
        for number, (name, undo) in enumerate(steps.items()):
            directory = Path(scratch) / str(number)
            shutil.copytree(artifact.directory, directory)
            undo(directory)
            copies[name] = replace(artifact, directory=directory)
        yield copies


def rewrite(path: Path, text: str) -> None:
    """Replace the code of a module. If the module has bytecode, compile the new code."""
    path.write_text(text, encoding="utf-8")
    if list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")):
        py_compile.compile(
            str(path),
            # The bytecode must not contain paths of the machine that compiled it.
            dfile=path.name,
            doraise=True,
            invalidation_mode=_VALID,
        )


def _found(paths: Iterable[Path], what: str) -> list[Path]:
    found = list(paths)
    if not found:
        message = f"the artifact has no {what}"
        raise LookupError(message)
    return found
