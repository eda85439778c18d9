"""Builds a container image for `sam local` that contains this machine's Python.

If CI cannot pull AWS's Lambda image, it uses this image instead (see .ci/sam-local). The script
writes the image to standard output. The output is a tar archive with the files of the image:

- Python
- AWS's runtime client, which gets events and calls the handler
- `/var/runtime/bootstrap`, which starts Python with the runtime client
- sh, mv and chmod, which SAM needs to add its runtime emulator to the image
"""

import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = Path(sys.base_prefix, "bin", VERSION)
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
EXCLUDED = re.compile(r"/(site-packages|test|__pycache__|config-[^/]*)(/|$)")
RUNTIME_CLIENT = ("awslambdaric", "simplejson", "snapshot-restore-py")
BOOTSTRAP = f"""#!/bin/sh
export PYTHONPATH=/var/runtime
exec {PYTHON} -m awslambdaric "$_HANDLER"
"""


def main() -> None:
    """Write the image to standard output, as a tar archive."""
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", dereference=True) as archive:
        for name, path in files().items():
            archive.add(path, name)
        bootstrap = tarfile.TarInfo("var/runtime/bootstrap")
        bootstrap.mode, bootstrap.size = 0o755, len(BOOTSTRAP)
        archive.addfile(bootstrap, io.BytesIO(BOOTSTRAP.encode()))
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(temporary)


def files() -> dict[str, Path]:
    """Return the files to copy into the image. The keys are their paths in the image."""
    commands = {f"/bin/{name}": Path(str(shutil.which(name))) for name in ("sh", "mv", "chmod")}
    library = [
        path
        for path in STANDARD_LIBRARY.rglob("*")
        if path.is_file() and not EXCLUDED.search(str(path))
    ]
    client = {
        f"/var/runtime/{file}": Path(str(file.locate()))
        for name in RUNTIME_CLIENT
        for file in importlib.metadata.files(name) or []
        if file.suffix in {".py", ".so"}
    }
    found = {**commands, **client, **{str(path): path for path in [PYTHON, *library]}}
    binaries = [
        *commands.values(),
        PYTHON,
        *(each for each in found.values() if ".so" in each.name),
    ]
    return {**found, **{str(path): path for path in shared_libraries(binaries)}}


def shared_libraries(binaries: list[Path]) -> Iterator[Path]:
    """Yield the shared libraries of the binaries, and the dynamic loader that loads them."""
    ldd = [str(shutil.which("ldd")), *map(str, binaries)]
    done = subprocess.run(ldd, stdout=subprocess.PIPE, text=True, check=False)
    for match in re.finditer(r"(?:=> |^\s+)(/\S+) \(", done.stdout, re.MULTILINE):
        yield Path(match[1])


if __name__ == "__main__":
    main()
