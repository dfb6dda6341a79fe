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

"""Names of users and groups."""

from __future__ import annotations

import grp
import os
import pwd


def user(uid: int | None = None) -> str:
    """Return the name of a user, or the number if it has none. Default: of this process."""
    uid = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def user_group(gid: int | None = None) -> str:
    """Return the name of a group, or the number if it has none. Default: of this process."""
    gid = os.getegid() if gid is None else gid
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
