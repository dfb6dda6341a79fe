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

"""Keys that authenticate compute hosts and controllers to each other.

All are derived from one master key, which only the controllers have. A host has the key that was
derived for its name, and can sign as no other host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import hashlib
import hmac
from pathlib import Path
import re
import secrets

from kongming import exception
from kongming.allocation.host_name import PATTERN

_BYTES = 32
_LINE = re.compile(rf"(master|host ({PATTERN})) ([0-9a-f]{{{2 * _BYTES}}})")
_HOW = "'kongming-manage broker key' creates such files"


class Keys:
    """The keys of a service.

    :param masters: master keys; the first one signs, all are accepted.
    :param hosts: keys of hosts, in the same order.
    """

    def __init__(
        self, masters: Sequence[bytes] = (), hosts: Mapping[str, Sequence[bytes]] | None = None
    ) -> None:
        self._masters = tuple(masters)
        self._hosts = dict(hosts or {})

    def of(self, host: str | None) -> tuple[bytes, ...]:
        """Return the keys that a host shares with the controllers, the signing key first.

        :param host: None for the keys of the controllers among each other.
        """
        if not self._masters:
            return tuple(self._hosts.get(host or "", ()))
        return tuple(derive(master, host) for master in self._masters)


def derive(master: bytes, host: str | None) -> bytes:
    """Return the key of a host; None: the key of the controllers."""
    name = "kongming controllers" if host is None else f"kongming host {host}"
    return hmac.digest(master, name.encode(), hashlib.sha256)


def new_master() -> bytes:
    """Return a new random master key."""
    return secrets.token_bytes(_BYTES)


def written(key: bytes, host: str | None = None) -> str:
    """Return the line of a key file.

    :param host: the owner of the key; None for a master key.
    """
    return f"{'master' if host is None else f'host {host}'} {key.hex()}"


def read(path: str, host: str | None) -> Keys:
    """Read a key file: one key a line, the signing key first.

    :param host: the host whose keys the file must have; None for a controller, whose file must
        have master keys.
    :raises ConfigInvalid: if the file can't be read, or has keys of others. No key is quoted.
    """
    where = f"[rpc] key_file {path}"
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not ASCII text"
        raise exception.ConfigInvalid(f"{where}: {why}") from error
    masters: list[bytes] = []
    own: list[bytes] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise exception.ConfigInvalid(f"{where}, line {number}: not a key; {_HOW}")
        key = bytes.fromhex(found[3])
        _check_owner(f"{where}, line {number}", found[2], host)
        (masters if found[2] is None else own).append(key)
    if not masters and not own:
        raise exception.ConfigInvalid(f"{where}: it has no key; {_HOW}")
    return Keys(masters, {host: own} if host is not None else {})


def _check_owner(where: str, owner: str | None, host: str | None) -> None:
    if owner == host:
        return
    if host is None:
        raise exception.ConfigInvalid(
            f"{where}: this is the key of host {owner}; API and conductors need the master key"
        )
    if owner is None:
        raise exception.ConfigInvalid(
            f"{where}: this is the master key, which no compute host may hold: give this host the "
            f"key that 'kongming-manage broker key derive {host}' prints, and create a new master "
            "key"
        )
    raise exception.ConfigInvalid(
        f"{where}: this is the key of host {owner}; [DEFAULT] host is {host} here"
    )
