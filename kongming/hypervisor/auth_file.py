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

"""auth.conf: the file in which libvirt looks up user name and password for a libvirtd."""

from __future__ import annotations

from dataclasses import dataclass
import os
from pathlib import Path
import re
from urllib.parse import parse_qs, urlsplit

from kongming.runtime.users import user

_SYSTEM = Path("/etc/libvirt/auth.conf")
_SECTION = re.compile(r"^\[(.+)\]\s*$", re.MULTILINE)
_FORM = (
    "[credentials-NAME] with authname and password, [auth-libvirt-{host}] with credentials=NAME"
)


@dataclass(frozen=True, slots=True)
class AuthFile:
    """The file that libvirt reads for a URI.

    :ivar host: the name of the URI's host in it.
    :ivar path: the file; None if this user can read none.
    :ivar candidates: the possible files.
    """

    host: str
    path: Path | None
    candidates: tuple[Path, ...]

    @classmethod
    def of(cls, uri: str) -> AuthFile:
        """Find the file in libvirt's own order."""
        parts = urlsplit(uri)
        host = parts.hostname or "localhost"
        named = os.environ.get("LIBVIRT_AUTH_FILE") or "".join(
            parse_qs(parts.query).get("authfile", [])[:1]
        )
        if named:
            return cls(host, Path(named), (Path(named),))
        home = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
        candidates = (Path(home, "libvirt/auth.conf"), _SYSTEM)
        path = next((path for path in candidates if os.access(path, os.R_OK)), None)
        return cls(host, path, candidates)

    def problem(self) -> str:
        """Return what is wrong with it, for a sentence; empty if nothing is.

        Only the names of its sections are read.
        """
        form = _FORM.format(host=self.host)
        if self.path is None:
            hidden = [str(path) for path in self.candidates if _is_there(path)]
            if hidden:
                return f"user {user()} may not read {' nor '.join(hidden)}: chown and chmod it"
            places = " or ".join(map(str, self.candidates))
            return f"there is no auth.conf for user {user()}: write {places} ({form})"
        try:
            sections = set(_SECTION.findall(self.path.read_text(errors="replace")))
        except OSError as error:
            return f"user {user()} can't read {self.path} ({error.strerror})"
        if not sections & {f"auth-libvirt-{self.host}", "auth-libvirt-default"}:
            return (
                f"{self.path} has no section [auth-libvirt-{self.host}], and no "
                f"[auth-libvirt-default]: add it ({form})"
            )
        return ""


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # It may exist in a folder that this user may not enter.
        return True
