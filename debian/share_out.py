# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Share out the files of the virtual environment that runs this among the Debian packages.

share_out.py ROOT DEBIAN: the environment is below ROOT at its later place; DEBIAN/<package> gets
the files of a package.
"""

from collections.abc import Iterable, Iterator
import compileall
from importlib.metadata import Distribution, distribution, distributions
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode
import shutil
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ALL = "python3-kongming"
PROGRAMS = {
    "kongming-conductor": "kongming-conductor",
    "kongming-executor": "kongming-compute",
    "kongming-manage": "kongming-common",
    "kongming-notification-handler": "kongming-compute",
    "kongming-status": "kongming-common",
}


def needed_by(*requirements: str) -> set[str]:
    """Return the names of the distributions that fulfil requirements, directly or not."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        requirement, for_extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": for_extra}):
            continue
        for extra in ("", *requirement.extras):
            name = canonicalize_name(requirement.name)
            if (name, extra) not in found:
                found.add((name, extra))
                needs = distribution(name).requires or ()
                waiting += [(Requirement(each), extra) for each in needs]
    return {name for name, _ in found}


def owners() -> dict[str, str]:
    """Return the package of each distribution: the smallest one that all who need it have."""
    core = needed_by("kongming")
    compute = needed_by("kongming[compute]")
    controller = needed_by("kongming[controller,mysql,postgresql]", "python-memcached")
    api = needed_by("gunicorn")
    return {
        **dict.fromkeys(api, "kongming-api"),
        **dict.fromkeys(controller, "kongming-controller"),
        **dict.fromkeys(compute, "kongming-compute"),
        **dict.fromkeys(compute & controller, "kongming-common"),
        **dict.fromkeys(core, ALL),
    }


def files_of(each: Distribution) -> Iterator[Path]:
    """Yield the files of a distribution that are there, with the compiled ones."""
    for file in each.files or ():
        path = Path(sys.prefix, each.locate_file(file)).resolve()
        yield path
        if path.suffix == ".py":
            yield Path(cache_from_source(str(path)))


def relocate(venv: Path, root: Path) -> None:
    """Remove what is of use only here, and the present place from all that names it."""
    for each in (*venv.glob("bin/[aA]ctivate*"), *venv.glob("lib/*/site-packages/pip*")):
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    for each in (
        *venv.glob("bin/pip*"),
        *venv.glob("lib/*/*/kongming-*.dist-info/direct_url.json"),
    ):
        each.unlink()
    # These are installed from the source.
    for folder in ("etc", "share", "include"):
        shutil.rmtree(venv / folder, ignore_errors=True)
    for each in (venv / "pyvenv.cfg", *venv.glob("bin/*")):
        if not each.is_symlink():
            each.write_bytes(each.read_bytes().replace(bytes(root), b""))
    # So that neither root nor anybody else writes compiled files later.
    compileall.compile_dir(
        venv / "lib",
        force=True,
        quiet=2,
        workers=0,
        stripdir=str(root),
        prependdir="/",
        invalidation_mode=PycInvalidationMode.CHECKED_HASH,
    )


def move(files: Iterable[Path], root: Path, into: Path) -> None:
    """Move those of the files that are there."""
    for file in files:
        if file.exists() or file.is_symlink():
            target = into / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)


def main() -> None:
    """Do what the docstring of this file says."""
    root, debian = (Path(each).resolve() for each in sys.argv[1:])
    venv = Path(sys.prefix)
    shares = owners()
    installed = [each for each in distributions() if each.name != "pip"]
    files = {canonicalize_name(each.name): list(files_of(each)) for each in installed}
    relocate(venv, root)
    for program, package in PROGRAMS.items():
        move([venv / "bin" / program], root, debian / package)
    for name, paths in files.items():
        move(paths, root, debian / shares[name])
    # The environment itself: its interpreter, and what says that it is one.
    rest = [each for each in venv.rglob("*") if each.is_symlink() or each.is_file()]
    assert not [each for each in rest if "site-packages" in each.parts], rest
    move(rest, root, debian / ALL)


if __name__ == "__main__":
    main()
