"""Installs packages into a directory with pip, and says why if that fails."""

from pathlib import Path

import environment


class BuildError(Exception):
    """The artifact cannot be built. The message says why."""


def install(python: str, requirements: Path, target: Path, *options: str) -> None:
    """Install exactly the packages of a requirements file, without those that they depend on.

    Args:
        python: the interpreter that runs pip.
        requirements: the requirements file.
        target: the directory for the packages.
        options: more options of pip.

    Raises:
        BuildError: pip failed.
    """
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    place = ["--no-deps", "--no-compile", "--target", str(target)]
    done = environment.captured(*pip, *place, *options, "-r", str(requirements))
    if done.returncode:
        if environment.is_offline(done.stdout):
            raise BuildError(environment.NOT_DOWNLOADED)
        message = f"pip could not install {requirements}:\n{done.stdout}"
        raise BuildError(message)
