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

"""On which NUMA nodes a guest's memory is, as the kernel reports it.

It reads only /proc, on purpose: what libvirt reports is checked against it.
"""

from __future__ import annotations

from collections import Counter
import re

from kongming.tests.testbed.threads import PROC, process_folder

ANONYMOUS = " anon="
FILE = "/libvirt/qemu/"
"""In the path of each file that libvirt makes for a guest's memory, of huge pages or not."""

PAGES = re.compile(r" N(\d+)=(\d+)")
PAGE_SIZE = re.compile(r" kernelpagesize_kB=(\d+)")


def memory_kib(instance_uuid: str, kind: str = ANONYMOUS) -> dict[int, int]:
    """The memory of a guest's process by node.

    :param kind: in which kind of memory the guest's own is: `ANONYMOUS` or `FILE`
    :returns: node → KiB; without the nodes that hold nothing
    :raises LookupError: no QEMU process runs this guest
    """
    kib: Counter[int] = Counter()
    for mapping in (process_folder(instance_uuid) / "numa_maps").read_text().splitlines():
        size = PAGE_SIZE.search(mapping)
        if kind in mapping and size:
            for node, pages in PAGES.findall(mapping):
                kib[int(node)] += int(pages) * int(size.group(1))
    return dict(sorted(kib.items()))


def allowed_nodes(thread: int) -> str:
    """The nodes that a thread may take memory from, as the kernel writes them."""
    for line in (PROC / str(thread) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Mems_allowed_list":
            return value.strip()
    raise LookupError(f"the kernel does not report the nodes of thread {thread}")
