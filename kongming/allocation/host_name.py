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

"""The name of a compute host: exactly what Nova accepts for ``[DEFAULT] host``."""

from __future__ import annotations

import hashlib
import re
import socket
from typing import Any

from oslo_config import cfg, types

from kongming import exception
from kongming.allocation.cpuset import shown

#: Host names in messages and requests, as this or another version accepts them.
PATTERN = r"[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,254}"

RULE = (
    "it must be a name that Nova accepts: an IP address, or parts joined by dots, each of 1 to 63 "
    "letters, digits, _ and -, without - at its ends, the last one with a letter or -; at most "
    "253 characters"
)

# AMQP has 255 bytes for the name of a queue; Kongming adds up to 39 to that of a host.
_MOST = 200
_DIGITS = 40


class HostName(types.HostDomain):
    """Nova's type, without the few non-ASCII characters that it accepts by mistake."""

    def __call__(self, value: Any) -> str:
        """Return a name as Nova has it: without the dot at its end.

        :raises ValueError: if Nova would not accept it.
        """
        if not isinstance(value, str) or not re.fullmatch(PATTERN, value):
            raise ValueError(RULE)
        try:
            return str(super().__call__(value))
        except ValueError:
            raise ValueError(RULE) from None


def of_machine() -> str | None:
    """Return this machine's own name; None if a host can't have it."""
    try:
        return HostName()(socket.gethostname())
    except (OSError, ValueError):
        return None


def of(conf: cfg.ConfigOpts) -> str:
    """Return the name of this host.

    :raises ConfigInvalid: if it is not set, and the machine's own name can't be used.
    """
    if conf.host is None:
        raise exception.ConfigInvalid(
            f"[DEFAULT] host is not set, and {shown(socket.gethostname())}, the name of this "
            f"machine, can't be used: {RULE}; set it to the value of host in this host's nova.conf"
        )
    return str(conf.host)


def in_queues(name: str) -> str:
    """Return a host's part in the names of queues: a long name is cut, with a digest."""
    if len(name) <= _MOST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
    return f"{name[: _MOST - _DIGITS - 1]}:{digest}"
