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
"""Finds guests that have got vCPUs or iothreads since they were placed.

libvirt sends no event for them, but makes a control group for each, so their number is that of
a folder's links.
"""

from __future__ import annotations

from pathlib import Path
import threading


class ThreadWatch:
    """The number of thread groups of each guest. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: dict[str, tuple[Path, int]] = {}

    def note(self, instance_uuid: str, folder: Path | None) -> None:
        """Note what a guest has now.

        :param folder: its domain's control group; None forgets the guest.
        """
        links = None if folder is None else _links(folder)
        with self._lock:
            if folder is None or links is None:
                self._links.pop(instance_uuid, None)
            else:
                self._links[instance_uuid] = (folder, links)

    def changed(self) -> list[str]:
        """Return the guests whose number has changed since they were noted; each once."""
        with self._lock:
            noted = dict(self._links)
        found = [
            instance_uuid
            for instance_uuid, (folder, links) in noted.items()
            if _links(folder) != links
        ]
        with self._lock:
            for instance_uuid in found:
                # The next pass notes it again.
                self._links.pop(instance_uuid, None)
        return found


def _links(folder: Path) -> int | None:
    try:
        return folder.stat().st_nlink
    except OSError:
        return None
