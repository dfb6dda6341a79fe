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

"""The fences of the house: which package may import which, and who may use a library."""

from collections.abc import Mapping
import configparser
import functools
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
import re
import subprocess
import sys

from packaging.utils import canonicalize_name
import pytest

import kongming
from kongming.tests.sources import imports

TOP = Path(kongming.__file__).parent

#: From the ground up: a package imports only from floors below its own.
FLOORS = (
    {"exception", "version"},
    {"allocation", "metrics"},
    {"host", "runtime"},
    {"bus", "hypervisor", "policies"},
    {"conf", "rpc"},
    {"client", "db", "nova", "terminal"},
    {"configuration", "osc"},
    {"api", "conductor", "executor"},
    {"notification", "standalone"},
    {"manage", "status"},
    {"cmd"},
    {"wsgi"},
)

#: Who may use a library whose types and errors must not spread.
USERS = {
    "alembic": {"db"},
    "cliff": {"cmd", "manage", "osc", "terminal"},
    "falcon": {"api"},
    "libvirt": {"hypervisor", "status"},
    "openstack": {"client", "nova", "osc"},
    "osc_lib": {"osc"},
    "sqlalchemy": {"db", "status"},
}

#: Who runs with the packages of an extra; the empty one is that of users.
EXTRAS = {
    "": ["client", "osc."],
    "compute": ["cmd.launch", "notification.service", "standalone.service", "manage.allocation",
                "manage.host", "manage.resync", "status.hypervisor", "status.nova"],
    "controller": ["cmd.launch", "conductor.service", "api.application", "manage.db"],
}  # fmt: skip
#: Modules that import packages which need not be there.
GUARDED = {"conf.database", "configuration.options"}

#: Packages that work where neither a host nor a controller is installed.
ALONE = {
    "allocation": {"exception"},
    "client": {"allocation", "exception", "runtime", "version"},
    "host": {"allocation"},
    "osc": {"allocation", "client", "exception", "runtime", "terminal", "version"},
}


def modules() -> dict[str, Path]:
    found = {}
    for path in TOP.rglob("*.py"):
        parts = path.relative_to(TOP).with_suffix("").parts
        if parts[0] != "tests":
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def package_of(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def graph() -> dict[str, set[str]]:
    """The modules of the product, each with those that it imports."""
    found: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        ours = (each.removeprefix("kongming.") for each in imports(path) if "kongming." in each)
        named = {each if each in MODULES else each.rpartition(".")[0] for each in ours}
        found[name] = named - {"", name}
    return found


def test_a_package_imports_only_from_floors_below_its_own():
    floors = {package: number for number, floor in enumerate(FLOORS) for package in floor}
    assert {package_of(name) for name in MODULES} - {""} == floors.keys()
    for name, imported in graph().items():
        for other in imported if name else ():
            here, there = package_of(name), package_of(other)
            below = here == there or floors[there] < floors[here]
            assert below, f"{name} imports {other}, which is not below it"


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


def test_a_library_stays_where_it_is_used():
    users = {library: set() for library in USERS}
    for name, path in MODULES.items():
        for library in USERS.keys() & {package_of(each) for each in imports(path)}:
            users[library].add(package_of(name))
    assert users == USERS


def test_a_standalone_package_imports_no_other_package():
    found = {package: set() for package in ALONE}
    for name, imported in graph().items():
        if name and (package := package_of(name)) in ALONE:
            found[package] |= {package_of(each) for each in imported} - {package}
    assert found == ALONE


def test_a_test_module_imports_nothing_from_another():
    paths = list((TOP / "tests").rglob("*.py"))
    modules = {path.stem for path in paths if path.stem.startswith("test_")}
    for path in paths:
        # What names no other module does not import it.
        if modules.isdisjoint(re.findall(r"\btest_\w+", path.read_text())):
            continue
        shared = {each for each in imports(path) if ".test_" in each}
        assert not shared, f"{path} imports {shared}: move it to a module of its own"


@functools.cache
def distributions_of_modules() -> Mapping[str, list[str]]:
    return packages_distributions()


def packages_of(extra: str) -> set[str]:
    """Return the modules that pip installs with an extra, without their own requirements."""
    setup = configparser.ConfigParser()
    setup.read(TOP.parent / "setup.cfg")
    named = (TOP.parent / "requirements.txt").read_text() + setup["extras"].get(extra, "")
    required = {canonicalize_name(each) for each in re.findall(r"^([\w.-]+)", named, re.MULTILINE)}
    return {
        module
        for module, distributions in distributions_of_modules().items()
        if required & {canonicalize_name(each) for each in distributions}
    }


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_service_imports_only_the_packages_of_its_extra(extra):
    todo = [name for name in MODULES if name and name.startswith(tuple(EXTRAS[extra]))]
    assert len(todo) >= len(EXTRAS[extra])
    installed, visited = packages_of(extra), set()
    while todo:
        if (name := todo.pop()) in visited:
            continue
        visited.add(name)
        todo += [each for each in graph()[name] if each in MODULES]
        # A package is imported with each of its modules.
        todo += [package_of(name)] if package_of(name) in MODULES else []
        foreign = {package_of(each) for each in imports(MODULES[name])}
        foreign -= sys.stdlib_module_names | {"kongming", "_typeshed"}
        missing = foreign - installed
        assert not missing or name in GUARDED, f"{name} imports {missing}, not in [{extra}]"


def test_a_command_without_the_bus_loads_no_oslo_messaging():
    # That loads oslo.service which, unless threads are chosen, takes eventlet and warns of it.
    starts = ("client", "osc", "cmd.manage", "manage")
    names = [name for name in MODULES if name.startswith(starts)]
    load = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    check = "print(*sys.modules.keys() & {'oslo_messaging', 'oslo_service', 'eventlet'})"
    command = [sys.executable, "-c", f"{load}; {check}", *(f"kongming.{name}" for name in names)]
    assert subprocess.check_output(command, text=True) == "\n"
