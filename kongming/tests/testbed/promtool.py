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

"""Prometheus's checker of rules. Debian's package would start a Prometheus: only unpacked."""

from pathlib import Path
import shutil

from kongming.tests.testbed.debian_package import cache_folder, keep, unpack


def fetch() -> Path:
    """The program; downloaded at the first use."""
    folder = cache_folder() / "promtool"
    keep(folder, _fill)
    return folder / "promtool"


def _fill(kept: Path, scratch: Path) -> None:
    try:
        package = unpack("promtool", scratch / "promtool")
    except RuntimeError:
        # Up to Debian 12 it is part of the server's.
        package = unpack("prometheus", scratch / "prometheus")
    shutil.copy(package / "usr/bin/promtool", kept)
