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

"""What this machine lets the testbed do: not every one is the testbed's to rearrange.

    python -m kongming.tests.testbed.abilities

prints in one line which tests a plain container leaves out, and nothing on a machine.
"""

from __future__ import annotations

from dataclasses import dataclass
import functools

from kongming.tests.testbed import cgroup, namespace

#: Parts of tools/test that need mounts.
PARTS = ("nova", "tempest", "soak", "demos", "systemd", "packages", "--on")
#: Fixtures of the integration tests that do: each is a libvirtd beside the first one.
FIXTURES = frozenset({"bare", "hooked", "second_libvirtd"})


@dataclass(frozen=True)
class Abilities:
    """What a machine refuses, each with the reason; None: it lets us.

    :ivar no_mounts: mounts in a namespace of their own
    :ivar no_control_groups: control groups with the controllers that guests need
    """

    no_mounts: str | None = None
    no_control_groups: str | None = None


@functools.cache
def abilities() -> Abilities:
    """Try what this machine lets us do."""
    no_mounts = namespace.refusal()
    # A libvirtd makes control groups of its own only below those that a namespace shows it.
    return Abilities(no_mounts, cgroup.refusal() or no_mounts)


def left_out(found: Abilities, *, embedded: bool, nodes: int = 1) -> str | None:
    """Return, in one line, what can't be shown of Kongming and why; None: all can be.

    :param embedded: whether guests run in libvirt's embedded driver
    :param nodes: how many NUMA nodes have memory
    """
    if found.no_control_groups is not None:
        return f"CPU time and memory moves: no control groups here ({found.no_control_groups})"
    if embedded:
        return "CPU time and memory moves: they need control groups, as --services has them"
    if nodes < 2:
        return "memory moves: this machine has a single NUMA node"
    return None


def limits(found: Abilities) -> str | None:
    """Return, in one line, which tests this machine does not run and why; None: it runs all."""
    if found.no_mounts is None:
        return None
    return (
        f"no mounts are allowed here ({found.no_mounts}): {', '.join(PARTS)} can't be run, and "
        "tests that are marked needs_mounts are left out"
    )


if __name__ == "__main__":
    if line := limits(abilities()):
        print(line)
