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

"""The control groups of a guest."""

from pathlib import Path


def group_of(guest, thread, controller="cpuset"):
    """The folder of a thread's control group."""
    for line in Path(f"/proc/{thread}/cgroup").read_text().splitlines():
        _number, controllers, group = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup", controllers, group.lstrip("/"))
        if not controllers and (found := Path("/sys/fs/cgroup", group.lstrip("/"))).exists():
            return found
    raise LookupError(controller)
