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

"""Has libvirt the kernel's controllers that a placement needs?

Without cpu there is no share and no quota, without cpuset memory stays where
it is; libvirt says so only when a guest is to be changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.hypervisor import host
from kongming.status.finding import bad, doubtful, good

_NEEDED = ("cpu", "cpuset")
# Where libvirt puts guests: with systemd, and without.
_HOMES = ("machine.slice", "machine")


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Look at this machine's control groups."""
    if not host.is_here(conf.libvirt.connection_uri):
        yield good("not checked: the guests of [libvirt] connection_uri are elsewhere")
        return
    yield from look(host.CGROUP)


def look(base: Path) -> Iterator[Result]:
    """Look at the control groups that are mounted at ``base``, of either version."""
    v1 = _v1(base)
    v2 = _words(base / "cgroup.controllers")
    missing = [name for name in _NEEDED if name not in v1 | v2]
    if not v1 and not v2:
        yield bad(f"no control groups are mounted at {base}: mount them, or start systemd")
    elif missing:
        yield bad(
            f"the kernel does not offer {' and '.join(missing)} at {base}: see cgroup_disable on "
            "its command line, and whether it was built with them"
        )
    else:
        yield from _delegated(base, [name for name in _NEEDED if name not in v1])


def _delegated(base: Path, needed: list[str]) -> Iterator[Result]:
    """Tell whether guests that run have those of version 2 that are needed."""
    for guest in (guest for home in _HOMES for guest in (base / home).glob("*qemu*")):
        missing = [name for name in needed if name not in _words(guest / "cgroup.controllers")]
        if missing:
            yield doubtful(
                f"a guest that runs has no controller {' and '.join(missing)}: see [Slice] "
                "DisableControllers of machine.slice, and cgroup_controllers of "
                "/etc/libvirt/qemu.conf; guests have them from their next start on"
            )
            return
    yield good(f"{' and '.join(_NEEDED)} are there (cgroup v{2 if needed else 1})")


def _v1(base: Path) -> set[str]:
    # Several may be mounted together, as cpu,cpuacct.
    try:
        mounts = [folder for folder in base.iterdir() if (folder / "tasks").exists()]
    except OSError:
        return set()
    return {name for mount in mounts for name in mount.name.split(",")}


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()
