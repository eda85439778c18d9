"""What makes our artifact start fast, undone: each function undoes one step in a copy of it."""

import py_compile
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import artifacts


def without_bytecode(directory: Path) -> None:
    """Delete the bytecode: Lambda then compiles all that is imported, at every start.

    Raises:
        LookupError: there is none.
    """
    caches = _found(directory.rglob("__pycache__"), "bytecode")
    for cache in caches:
        shutil.rmtree(cache)


def with_all_of_botocore(directory: Path) -> None:
    """Put in all the data of botocore: that of some hundred services, whole.

    Raises:
        LookupError: it is there already.
    """
    data = Path("botocore") / "data"
    whole = artifacts.peers()["bare_boto3"].directory / data
    if len(list((directory / data).iterdir())) == len(list(whole.iterdir())):
        message = "the artifact has all of botocore's data"
        raise LookupError(message)
    shutil.rmtree(directory / data)
    shutil.copytree(whole, directory / data)


def with_garbage_collector(directory: Path) -> None:
    """Let the garbage collector run while the modules are imported.

    Raises:
        LookupError: it does run.
    """
    switch = re.compile(r"\bgc\.(disable|freeze)\(\)")
    ours = [*directory.glob("*.py"), *directory.glob("counters/**/*.py")]
    switched = [path for path in ours if switch.search(path.read_text(encoding="utf-8"))]
    for path in _found(switched, "gc.disable() and no gc.freeze()"):
        rewrite(path, switch.sub("None", path.read_text(encoding="utf-8")))


# By what is undone, in the words of the table.
STEPS: dict[str, Callable[[Path], None]] = {
    "without bytecode": without_bytecode,
    "with all of botocore's data": with_all_of_botocore,
    "with the garbage collector on": with_garbage_collector,
}


def rewrite(path: Path, text: str) -> None:
    """Replace the text of a module, and its bytecode if it has any."""
    path.write_text(text, encoding="utf-8")
    if list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")):
        py_compile.compile(
            str(path),
            # What is in the artifact names no directory of the machine that built it.
            dfile=path.name,
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def _found(paths: Iterable[Path], what: str) -> list[Path]:
    found = list(paths)
    if not found:
        message = f"the artifact has no {what}"
        raise LookupError(message)
    return found
