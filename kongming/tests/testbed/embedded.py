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

"""libvirt's QEMU driver inside the calling process: real guests, no daemon.

The caller runs libvirt's event loop, and must have registered it before opening.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from kongming.tests.testbed.qemu import qemu_conf

# sockaddr_un's limit, less what libvirt appends for the monitor of a guest with a
# name as long as Nova's: /lib/qemu/domain-9999-instance-00000001/monitor.sock
LONGEST_ROOT = 107 - 52


def embedded_uri(root: Path) -> str:
    """Prepare a folder for the embedded driver, and the URI to open.

    The guests of one process are lost to the next: destroy them before it ends.
    On a machine whose /dev/kvm opens but doesn't work each guest takes 18 s or
    more to start; `qemu.without_kvm` gives the command line that avoids it.

    :raises ValueError: the folder's path is too long for QEMU's sockets
    """
    if len(str(root)) > LONGEST_ROOT:
        raise ValueError(f"{root} has over {LONGEST_ROOT} characters: take tempfile.mkdtemp()")
    (root / "etc").mkdir(parents=True, exist_ok=True)
    # The guests stay in the caller's control group, so nothing is left behind there.
    conf = qemu_conf(root=os.geteuid() == 0, controllers=())
    (root / "etc/qemu.conf").write_text(conf)
    return f"qemu:///embed?root={quote(str(root))}"
