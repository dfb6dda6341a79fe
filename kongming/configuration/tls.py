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

"""The check of the files that options name for TLS."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import ssl
from typing import Any

from oslo_config import cfg

from kongming.runtime.users import user

# By section: the options for the CA certificates, the own certificate, and its key.
_NAMES = {
    "oslo_messaging_rabbit": ("ssl_ca_file", "ssl_cert_file", "ssl_key_file"),
    "nova": ("cafile", "certfile", "keyfile"),
    "keystone_authtoken": ("cafile", "certfile", "keyfile"),
}


def problems(conf: cfg.ConfigOpts) -> Iterator[str]:
    """Yield the problems of the files of TLS for this user."""
    for section, names in _NAMES.items():
        if section not in conf or ("ssl" in conf[section] and not conf[section].ssl):
            continue
        options = {**conf[section]}
        paths = [options.get(name) for name in names]
        yield from _of_section(section, names, paths)


def _of_section(section: str, names: tuple[str, ...], paths: list[Any]) -> Iterator[str]:
    unusable = [
        f"[{section}] {name}: {path} {problem}"
        for name, path in zip(names, paths, strict=True)
        if path and (problem := _unusable(path))
    ]
    if unusable:
        yield from unusable
        return
    authorities, certificate, key = paths
    try:
        if authorities and Path(authorities).is_file():
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(authorities)
    except (ssl.SSLError, OSError):
        yield f"[{section}] {names[0]}: {authorities} has no certificates in PEM form"
    try:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # Without a prompt for a password.
            context.load_cert_chain(certificate, key or None, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError):
        yield (
            f"[{section}] {names[1]}: {certificate} is not a certificate in PEM form, or "
            f"{names[2]} is not its key or has a password"
        )


def _unusable(path: str) -> str | None:
    """Return the problem that keeps this process from reading a file."""
    try:
        Path(path).stat()
    except OSError as error:
        return f"can't be read by user {user()}: {error.strerror}"
    except ValueError:
        return "is not a path"
    may_read = os.access(path, os.R_OK, effective_ids=True)
    return None if may_read else f"is not readable for user {user()}"
