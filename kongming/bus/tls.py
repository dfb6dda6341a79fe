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

"""The files of TLS to RabbitMQ: which of them this user can't read.

The libraries report only that some file is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kongming.runtime.users import user

_OPTIONS = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")


def unreadable(options: Any) -> str:
    """Return the problems of these files; empty if all can be read.

    :param options: the options of ``[oslo_messaging_rabbit]``.
    """
    if not options.ssl:
        return ""
    found = [
        f"{option} {path}: {why}"
        for option in _OPTIONS
        if (path := getattr(options, option)) and (why := _why_not(path))
    ]
    return f"[oslo_messaging_rabbit] {'; '.join(found)}" if found else ""


def _why_not(path: str) -> str:
    try:
        with Path(path).open("rb"):
            return ""
    except PermissionError:
        return f"user {user()} may not read it"
    except OSError as error:
        return error.strerror or type(error).__name__
