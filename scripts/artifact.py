"""Makes the functions' artifact, which is one for them all: what they use, with valid bytecode.

`sam build` runs it for each function, by way of functions/Makefile; `make deploy` asks it before
whether it can compile for the stage. Beyond what SAM's own build does, it

- leaves out what nothing in the functions imports, and all of botocore's data but the operations
  that they call (`SERVICES`): 29 MB of data become 0.1, and docs/benchmarks.md has the time;
- compiles. Lambda's disk is read-only, and SAM sets the time of each file to another, so ordinary
  bytecode is never valid there, and every cold start would compile again. Unchecked, it is valid
  wherever it is (https://peps.python.org/pep-0552/).
"""

import fcntl
import gzip
import hashlib
import json
import modulefinder
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import environment

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = ROOT / "functions"

# Builds of the same sources and interpreters are copies of one, which is kept here.
KEPT = ROOT / ".aws-sam" / "artifact"

# The runtimes that template.yaml allows. Bytecode is made for each whose interpreter is here.
RUNTIMES = ("python3.11", "python3.12", "python3.13", "python3.14")

# Of a package, what lists its files.
NOT_TRUE_ANY_MORE = {"RECORD"}

# What only code imports that cannot run here: Powertools looks there for how to write models of
# pydantic's, which does not ship.
UNREACHABLE = ["aws_lambda_powertools.event_handler"]

# The operations that the functions call: a test holds them to the code.
SERVICES = {
    "dynamodb": {
        "BatchGetItem",
        "BatchWriteItem",
        "DeleteItem",
        "GetItem",
        "PutItem",
        "Query",
        "Scan",
        "TransactWriteItems",
        "UpdateItem",
    },
    "sqs": {
        "ChangeMessageVisibility",
        "DeleteMessage",
        "ReceiveMessage",
        "SendMessage",
        "SendMessageBatch",
    },
}

# Of botocore's data, what it reads for any service.
DATA = {"endpoints.json", "sdk-default-configuration.json", "_retry.json"}


class BuildError(Exception):
    """The artifact cannot be made; the message says why."""


def main(artifacts: Path) -> None:
    """Make the artifact in the directory `artifacts`, which SAM empties before.

    Raises:
        BuildError: there is no interpreter for it, pip failed, or a package is not what it was.
        subprocess.CalledProcessError: the compiler failed; it has said why.
    """
    pythons = interpreters()
    if not pythons:
        message = f"none of {', '.join(RUNTIMES)} is on PATH: bytecode needs the runtime's own"
        raise BuildError(message)
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # SAM may build functions side by side
        kept = KEPT / key(pythons)
        if not kept.exists():
            for old in KEPT.iterdir():
                if old.is_dir():
                    shutil.rmtree(old, ignore_errors=True)
            # A new one each time: the pip of a build that was killed may still write to its own.
            unfinished = Path(tempfile.mkdtemp(dir=KEPT, suffix=".unfinished"))
            unfinished.chmod(0o755)
            make(unfinished, pythons)
            unfinished.rename(kept)
        shutil.copytree(kept, artifacts, dirs_exist_ok=True)
    print("bytecode for", *pythons)


def interpreters() -> list[str]:
    """Return those of RUNTIMES whose interpreter is on PATH and runs."""
    return [
        name
        for name in RUNTIMES
        if (path := shutil.which(name))
        and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode
    ]


def key(pythons: list[str]) -> str:
    """Return what names the artifact: a hash of all that it is made of."""
    digest = hashlib.sha256(json.dumps(pythons).encode() + Path(__file__).read_bytes())
    for path in sorted(FUNCTIONS.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(FUNCTIONS)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def make(directory: Path, pythons: list[str]) -> None:
    """Make the artifact in `directory`.

    Raises:
        BuildError: pip failed, or a package brings compiled code.
        subprocess.CalledProcessError: the compiler failed.
    """
    pip = [pythons[-1], "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    requirements = str(FUNCTIONS / "requirements.txt")
    target = ["--no-deps", "--no-compile", "--target", str(directory)]
    done = environment.captured(*pip, *target, "-r", requirements)
    if done.returncode:
        if environment.is_offline(done.stdout):
            raise BuildError(environment.NOT_DOWNLOADED)
        message = f"pip could not install {requirements}:\n{done.stdout}"
        raise BuildError(message)
    if compiled := [path.name for path in directory.rglob("*.so")]:
        message = f"not for every architecture: {', '.join(compiled)}"
        raise BuildError(message)
    leave_out_data(directory / "botocore" / "data")
    unbuilt = shutil.ignore_patterns("__pycache__")
    shutil.copytree(FUNCTIONS, directory, ignore=unbuilt, dirs_exist_ok=True)
    leave_out_modules(directory)
    for python in pythons:
        compiler = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        # The paths in it are those on Lambda: else each module's are put right when it is loaded.
        run([*compiler, "-s", directory, "-p", "/var/task", directory])


def run(command: list[Any]) -> None:
    """Run a program to its end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    subprocess.run(command, check=True)


def leave_out_data(data: Path) -> None:
    """Reduce botocore's data to the operations of SERVICES, and where these services are.

    Without a service's rules for endpoints, botocore takes the address from endpoints.json, which
    is quicker at each request; a test holds the two to each other, in every region.
    """
    for path in data.iterdir():
        if path.is_dir() and path.name not in SERVICES:
            shutil.rmtree(path)
        elif path.is_file() and path.name not in DATA:
            path.unlink()
    for service, operations in SERVICES.items():
        *old, latest = sorted((data / service).iterdir())
        for version in old:
            shutil.rmtree(version)
        model = latest / "service-2.json.gz"
        reduced = reduced_model(json.loads(gzip.decompress(model.read_bytes())), operations)
        for path in latest.iterdir():
            path.unlink()
        (latest / "service-2.json").write_text(json.dumps(reduced))
    endpoints = json.loads((data / "endpoints.json").read_text())
    for partition in endpoints["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in SERVICES if name in services}
    (data / "endpoints.json").write_text(json.dumps(endpoints))


def reduced_model(model: Mapping[str, Any], operations: set[str]) -> dict[str, Any]:
    """Return a service's model with these operations only, and without documentation."""
    reduced: dict[str, Any] = without_documentation(model)
    reduced["operations"] = {name: reduced["operations"][name] for name in sorted(operations)}
    shapes = set[str]()
    waiting = list(named_shapes(reduced["operations"]))
    while waiting:
        name = waiting.pop()
        if name not in shapes:
            shapes.add(name)
            waiting += named_shapes(reduced["shapes"][name])
    reduced["shapes"] = {name: reduced["shapes"][name] for name in sorted(shapes)}
    return reduced


def without_documentation(value: Any) -> Any:  # noqa: ANN401  any JSON
    """Return a part of a service's model without the texts for readers."""
    if isinstance(value, list):
        return [without_documentation(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: without_documentation(each)
        for name, each in value.items()
        if not (name == "documentation" and isinstance(each, str))
    }


def named_shapes(value: Any) -> Iterator[str]:  # noqa: ANN401  any JSON
    """Give the names of the shapes that a part of a service's model refers to."""
    if isinstance(value, list):
        for each in value:
            yield from named_shapes(each)
    elif isinstance(value, dict):
        if isinstance(value.get("shape"), str):
            yield value["shape"]
        for each in value.values():
            yield from named_shapes(each)


def leave_out_modules(directory: Path) -> None:
    """Remove the modules that nothing reachable from a function imports, not even inside one.

    Of the packages' other files only licences, what tells their versions, and botocore's stay.
    """
    finder = modulefinder.ModuleFinder(path=[str(directory)], excludes=UNREACHABLE)
    for path in FUNCTIONS.glob("*.py"):
        finder.import_hook(path.stem)
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    used = {Path(file) for file in files if file}
    for path in directory.rglob("*"):
        package = path.relative_to(directory).parts[0]
        left_out = path not in used and package != "botocore" and not package.endswith(".dist-info")
        if path.is_file() and (left_out or path.name in NOT_TRUE_ANY_MORE):
            path.unlink()
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def check(stage: str) -> None:
    """Make sure that what a stage is deployed with gets its bytecode: SAM does not tell `main`.

    Args:
        stage: a table of samconfig.toml; its PythonRuntime, or else the template's default, counts.

    Raises:
        BuildError: there is no such stage, or the runtime's interpreter is not here.
    """
    import tomllib  # noqa: PLC0415  `sam build` takes the python3 that is there: it may lack it

    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    if stage not in config:
        message = f"samconfig.toml has no stage {stage}"
        raise BuildError(message)
    overrides = str(config[stage]["deploy"]["parameters"].get("parameter_overrides"))
    template = (ROOT / "template.yaml").read_text()
    found = re.search(r"PythonRuntime=[\"']?(python[\d.]+)", overrides) or re.search(
        r"  PythonRuntime:.*?Default: (python[\d.]+)", template, re.DOTALL
    )
    if not found or found[1] not in interpreters():
        message = (
            f"{found and found[1]} is not on PATH, and without its bytecode every cold start"
            " compiles: install it, or give the stage another PythonRuntime in samconfig.toml"
        )
        raise BuildError(message)


if __name__ == "__main__":
    command, argument = sys.argv[1:]
    try:
        if command == "check":
            check(argument)
        else:
            main(Path(argument))
    except BuildError as error:
        sys.exit(str(error))
