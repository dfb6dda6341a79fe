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

"""The microversion that a client requests, from the version that a user configures."""

from __future__ import annotations

import re

DEFAULT = "1.0"

_VERSION = re.compile(r"1(\.[0-9]{1,4})?", re.ASCII)


def is_known(version: str) -> bool:
    """Return whether a client can speak a version; the service checks whether it can, too."""
    return _VERSION.fullmatch(version) is not None


def microversion(version: str | None) -> str:
    """Return the microversion of a version such as 1 or 1.0; None means the default."""
    requested = version or DEFAULT
    return requested if "." in requested else f"{requested}.0"
