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

import ast
from collections.abc import Iterator
import functools
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import kongming

TOP = Path(kongming.__file__).parent

#: From the ground up: a package imports only from floors below its own.
FLOORS = (
    {"exception", "version"},
    {"allocation", "metrics"},
    {"host", "runtime"},
    {"bus", "hypervisor", "policies"},
    {"conf", "rpc"},
    {"db", "nova", "terminal"},
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
    "openstack": {"nova"},
    "osc_lib": {"osc"},
    "sqlalchemy": {"db", "status"},
}

#: Who works where neither a host nor a controller is installed, or has nobody to ask.
ALONE = {
    "allocation": {"exception"},
    "host": {"allocation"},
    "osc": {"allocation", "exception", "runtime", "terminal", "version"},
}


def modules() -> dict[str, Path]:
    found = {}
    for path in TOP.rglob("*.py"):
        parts = path.relative_to(TOP).with_suffix("").parts
        if parts[0] != "tests":
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of what a module imports, wherever in it that stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = modules()
PACKAGES = sorted({name.partition(".")[0] for name in MODULES} - {""})


@functools.cache
def graph() -> dict[str, set[str]]:
    """The modules of the product, each with those that it imports."""
    found: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        ours = (each.removeprefix("kongming.") for each in imports(path) if "kongming." in each)
        named = {each if each in MODULES else each.rpartition(".")[0] for each in ours}
        found[name] = named - {"", name}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_from_floors_below_its_own(package):
    (floor,) = [number for number, floor in enumerate(FLOORS) if package in floor]
    below = set().union(*FLOORS[:floor], {package})
    for name, imported in graph().items():
        if name.partition(".")[0] == package:
            beyond = {each for each in imported if each.partition(".")[0] not in below}
            assert not beyond, f"{name} imports {beyond}, which is not below it"


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


@pytest.mark.parametrize("library", USERS)
def test_a_library_stays_where_it_is_used(library):
    users = {
        name.partition(".")[0]
        for name, path in MODULES.items()
        if any(each.partition(".")[0] == library for each in imports(path))
    }
    assert users == USERS[library]


@pytest.mark.parametrize("package", ALONE)
def test_what_stands_alone_imports_nothing_else(package):
    found = {
        each.partition(".")[0]
        for name, imported in graph().items()
        for each in imported
        if name.partition(".")[0] == package
    }
    assert found - {package} == ALONE[package]
