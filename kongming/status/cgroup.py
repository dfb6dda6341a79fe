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

"""Check whether libvirt has the kernel's controllers that a placement needs.

Without cpu there are no shares and no quota, without cpuset memory stays where it is. libvirt
reports that only when a guest is to be changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.hypervisor.hypervisor import Hypervisor
from kongming.hypervisor.kernel_files import CGROUP
from kongming.status import host
from kongming.status.finding import bad, doubtful, good
from kongming.status.observation import NOT_CHECKED

_NEEDED = ("cpu", "cpuset")
_BOTH = " and ".join(_NEEDED)


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Check the control groups of running guests, or else those that are mounted."""
    with host.opened(conf) as hypervisor:
        if hypervisor is None:
            yield good(NOT_CHECKED)
            return
        found = list(of_guests(hypervisor))
        elsewhere = not hypervisor.locality().here
    if not found and elsewhere:
        yield good("not checked: the guests of [libvirt] connection_uri are elsewhere")
    yield from found if found or elsewhere else check_mounts(CGROUP)


def of_guests(hypervisor: Hypervisor) -> Iterator[Result]:
    """Check the controllers of the guests' groups; yield nothing if no guest can be observed."""
    lacking, observed = set(), False
    for guest in host.guests(hypervisor):
        if not guest.is_found:
            continue
        observed = True
        there = (guest.has_cpu_controller, guest.has_cpuset_controller)
        lacking |= {name for name, has in zip(_NEEDED, there, strict=True) if not has}
    if lacking:
        yield doubtful(
            f"a running guest lacks the controller {' and '.join(sorted(lacking))}: check "
            "cgroup_controllers of /etc/libvirt/qemu.conf, and [Slice] DisableControllers of "
            "machine.slice; a change applies to guests at their next start"
        )
    elif observed:
        yield good(f"the running guests have {_BOTH}")


def check_mounts(base: Path) -> Iterator[Result]:
    """Check the control groups of either version that are mounted at ``base``."""
    try:
        mounts = list(base.iterdir())
    except OSError as error:
        yield doubtful(
            f"{base} can't be listed ({error.strerror}): control groups can't be checked"
        )
        return
    # Several may be mounted together, as cpu,cpuacct; some have a name and no controller.
    v1 = {name for mount in mounts if _exists(mount / "tasks") for name in mount.name.split(",")}
    roots = [root for root in (base, base / "unified") if _exists(root / "cgroup.controllers")]
    v2 = {name for root in roots for name in _read_words(root / "cgroup.controllers")}
    missing = [name for name in _NEEDED if name not in v1 | v2]
    if not v1 and not roots:
        yield bad(f"no control groups are mounted at {base}: mount them, or start systemd")
    elif missing:
        versions = [f"v{number}" for number, there in ((1, v1), (2, roots)) if there]
        yield bad(
            f"the control groups at {base} ({' and '.join(versions)}) lack the controller "
            f"{' and '.join(missing)}: check cgroup_disable on the kernel's command line, the "
            "kernel's build options, and, in a container, whether it may use them"
        )
    else:
        yield good(f"{_BOTH} are available (cgroup v{1 if v1.issuperset(_NEEDED) else 2})")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _read_words(path: Path) -> set[str]:
    try:
        return set(path.read_text(errors="replace").split())
    except OSError:
        return set()
