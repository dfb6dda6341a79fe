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

"""What a command meets in a plain container, as `tools/debian-root` emulates it."""

import errno

import pytest

from kongming.tests.testbed import container

X86_64, I386 = 0xC000003E, 0x40000003
ALLOWED = 0x7FFF0000
REFUSED = 0x00050000 | errno.EPERM
UNKNOWN = 0x00050000 | errno.ENOSYS
CLONE_VM, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x100, 0x20000, 0x10000000, 0x40000000


def answer(number, *, architecture=X86_64, argument=0):
    """Return the result of the filter for one system call, as the kernel computes it."""
    fields = {0: number, 4: architecture, 16: argument}
    instructions = container.seccomp_filter()
    at, value = 0, None
    while True:
        code, if_true, if_false, operand = instructions[at]
        if code == 0x06:
            return operand
        if code == 0x20:
            value = fields[operand]
            at += 1
        else:
            holds = value == operand if code == 0x15 else bool(value & operand)
            at += 1 + (if_true if holds else if_false)


@pytest.mark.parametrize("name", sorted(container.REFUSED))
def test_forbidden_system_calls_of_a_container_are_refused(name):
    assert answer(container.REFUSED[name]) == REFUSED


def test_every_other_call_is_allowed():
    refused = {*container.REFUSED.values(), container.CLONE3}
    for number in set(range(512)) - refused:
        assert answer(number) == ALLOWED


@pytest.mark.parametrize("flag", [CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET])
def test_a_clone_into_a_new_namespace_is_refused(flag):
    assert answer(container.CLONE, argument=flag | CLONE_VM) == REFUSED
    assert answer(container.CLONE, argument=CLONE_VM) == ALLOWED


def test_clone3_is_reported_as_missing_so_that_libc_falls_back():
    assert answer(container.CLONE3) == UNKNOWN


def test_a_call_of_another_architecture_is_refused():
    assert answer(0, architecture=I386) == REFUSED


def test_the_filter_is_short_enough_for_the_kernel():
    assert len(container.seccomp_filter()) <= 4096


def test_a_container_keeps_fourteen_capabilities_and_inherits_none():
    command = container.with_capabilities(["id", "-u"])
    assert command[-3:] == ["--", "id", "-u"]
    bounding = command[command.index("--bounding-set") + 1].split(",")
    assert bounding[0] == "-all"
    assert len(set(bounding[1:])) == 14
    assert "+sys_admin" not in bounding
    assert "+sys_nice" not in bounding
    assert command[command.index("--inh-caps") + 1] == "-all"
