"""Builds the artifact that all Lambda functions share: the code that they use, with bytecode.

`sam build` runs this script for each Lambda function, through functions/Makefile. `make deploy`
first runs `artifact.py check STAGE`. This command checks whether this machine can compile for the
stage.

SAM's own build would only copy the functions and their packages. This script does four more
things:

- It removes what the functions do not use: the modules that no function imports, and botocore's
  data about operations that no function calls (see `SERVICES`). This reduces botocore's data from
  29 MB to 0.1 MB. docs/benchmarks.md says how much time this saves at a cold start.
- It replaces urllib3, which the functions import but never use, by the stand-in in stand_ins/.
  docs/decisions/our-own-connection.md says why.
- It compiles the modules to bytecode. Normally, bytecode contains the time of its source file, and
  Python uses the bytecode only if the source file still has this time. But SAM changes the times of
  the source files. Lambda's disk is read-only, so Python could not store new bytecode, and every
  cold start would compile the modules again. Therefore the script makes unchecked bytecode, which
  Python uses without comparing the times (https://peps.python.org/pep-0552/).
- It adds the page of the dashboard and its files: see `dashboard.py`.
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

import dashboard
from pip_install import BuildError, install

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = ROOT / "functions"

# Packages that replace the packages of the same name that pip installs.
STAND_INS = ROOT / "scripts" / "stand_ins"

# The directory that keeps the last artifact. If the sources and the interpreters are still the
# same, the script copies this artifact instead of building a new one.
KEPT = ROOT / ".aws-sam" / "artifact"

# The runtimes that template.yaml allows. The build compiles for each runtime whose interpreter is
# on this machine.
RUNTIMES = ("python3.11", "python3.12", "python3.13", "python3.14")

# Files that list all files of a package. These lists are wrong after the build has removed files.
OUTDATED_LISTS = {"RECORD"}

# The data files in functions/ that functions read.
FILES = {"openapi.json"}

# Powertools imports this module only to serialize pydantic models. The artifact does not contain
# pydantic, so this import never runs.
UNREACHABLE = ["aws_lambda_powertools.event_handler"]

# The operations that the functions call. A test compares them with the code of the functions.
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
    "ssm": {"GetParameter"},
}

# The data files that botocore always reads, whatever the service.
DATA = {"endpoints.json", "sdk-default-configuration.json", "_retry.json"}


def main(artifacts: Path) -> None:
    """Put the artifact into a directory: copy the artifact in `KEPT`, or build a new one.

    Args:
        artifacts: the directory for the artifact. SAM has emptied it.

    Raises:
        BuildError: no interpreter of `RUNTIMES` is on the PATH, pip failed, or a package contains
            compiled code.
        subprocess.CalledProcessError: the compiler failed, and printed the reason.
    """
    pythons = interpreters()
    if not pythons:
        message = (
            f"none of {', '.join(RUNTIMES)} is on the PATH. Only a runtime's own interpreter can"
            " compile its bytecode"
        )
        raise BuildError(message)
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # SAM may build several functions at once
        kept = KEPT / key(pythons)
        if not kept.exists():
            for old in KEPT.iterdir():
                if old.is_dir():
                    shutil.rmtree(old, ignore_errors=True)
            # If an earlier build was killed, the pip that it started may still write to the
            # directory of that build. So each build gets a new directory.
            unfinished = Path(tempfile.mkdtemp(dir=KEPT, suffix=".unfinished"))
            unfinished.chmod(0o755)
            make(unfinished, pythons)
            unfinished.rename(kept)
        shutil.copytree(kept, artifacts, dirs_exist_ok=True)
    print("compiled for", *pythons)


def interpreters() -> list[str]:
    """Return the runtimes in `RUNTIMES` whose interpreter is on the PATH and can be started."""
    return [
        name
        for name in RUNTIMES
        if (path := shutil.which(name))
        and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode
    ]


def key(pythons: list[str]) -> str:
    """Return the name of the artifact: a hash of everything that the artifact is built from.

    Args:
        pythons: the interpreters that compile the artifact.
    """
    digest = hashlib.sha256(json.dumps(pythons).encode() + Path(__file__).read_bytes())
    digest.update(Path(dashboard.__file__).read_bytes())
    sources = (FUNCTIONS, STAND_INS, dashboard.SOURCES)
    for path in sorted(path for source in sources for path in source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def make(directory: Path, pythons: list[str]) -> None:
    """Build a new artifact in `directory`, even if `KEPT` has an artifact.

    Args:
        directory: an empty directory.
        pythons: the interpreters that compile the artifact. The last of them also runs pip.

    Raises:
        BuildError: pip failed, or a package contains compiled code.
        subprocess.CalledProcessError: the compiler failed.
    """
    install(pythons[-1], FUNCTIONS / "requirements.txt", directory)
    if compiled := [path.name for path in directory.rglob("*.so")]:
        message = f"compiled code does not run on every architecture: {', '.join(compiled)}"
        raise BuildError(message)
    leave_out_data(directory / "botocore" / "data")
    for stand_in in STAND_INS.iterdir():
        for installed in directory.glob(f"{stand_in.name}*"):  # the package and its .dist-info
            shutil.rmtree(installed)
    unbuilt = shutil.ignore_patterns("__pycache__")
    for source in (FUNCTIONS, STAND_INS):
        shutil.copytree(source, directory, ignore=unbuilt, dirs_exist_ok=True)
    leave_out_modules(directory)
    dashboard.pack(directory / "dashboard", pythons[-1])
    for python in pythons:
        compiler = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        # Write into the bytecode the paths that the files will have on Lambda. If the bytecode had
        # other paths, Python would correct them each time that it loads a module.
        run([*compiler, "-s", directory, "-p", "/var/task", directory])


def run(command: list[Any]) -> None:
    """Run a program and wait for it to finish.

    Raises:
        subprocess.CalledProcessError: the program failed.
    """
    subprocess.run(command, check=True)


def leave_out_data(data: Path) -> None:
    """Reduce botocore's data to the operations and endpoints of the services in `SERVICES`.

    This also removes the endpoint rule sets of the services. Without a rule set, botocore reads the
    address of a service from endpoints.json, and each request takes less time. A test checks that
    the rule sets and endpoints.json give the same address in every region.

    Args:
        data: botocore's directory `data`.
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
    """Return botocore's model of a service, with only the given operations and no documentation.

    Args:
        model: the model: the content of a `service-2.json`.
        operations: the names of the operations to keep.
    """
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
    """Return a part of a service's model without its documentation."""
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
    """Yield the names of the shapes (data types) that a part of a service's model refers to."""
    if isinstance(value, list):
        for each in value:
            yield from named_shapes(each)
    elif isinstance(value, dict):
        if isinstance(value.get("shape"), str):
            yield value["shape"]
        for each in value.values():
            yield from named_shapes(each)


def leave_out_modules(directory: Path) -> None:
    """Remove the files that no function uses.

    A module is used if a Lambda function imports it, directly or through other modules. An import
    statement in the body of a Python function counts, too. Three kinds of file always stay: the
    files of botocore, the files in `.dist-info` directories (licences and versions), and the files
    in `FILES`.
    """
    finder = modulefinder.ModuleFinder(path=[str(directory)], excludes=UNREACHABLE)
    for path in FUNCTIONS.glob("*.py"):
        finder.import_hook(path.stem)
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    used = {Path(file) for file in files if file}
    for path in directory.rglob("*"):
        package = path.relative_to(directory).parts[0]
        stays = package == "botocore" or package.endswith(".dist-info") or package in FILES
        left_out = path not in used and not stays
        if path.is_file() and (left_out or path.name in OUTDATED_LISTS):
            path.unlink()
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def check(stage: str) -> None:
    """Check that this machine can compile for the runtime of a stage.

    `main` cannot check this, because SAM does not tell `main` the runtime.

    Args:
        stage: the stage. samconfig.toml has a table with this name. The runtime of the stage is the
            parameter PythonRuntime in that table. If the table does not set this parameter, the
            runtime is the default in template.yaml.

    Raises:
        BuildError: samconfig.toml has no such stage, or the interpreter of the stage's runtime is
            not on the PATH.
    """
    import tomllib  # noqa: PLC0415  `sam build` may run this file with a python3 that lacks tomllib

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
            f"{found and found[1]} is not on the PATH. Without it there is no bytecode, and every"
            " cold start compiles. Install it, or set another PythonRuntime for the stage in"
            " samconfig.toml"
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
