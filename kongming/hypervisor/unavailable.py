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

"""Why there is no connection to libvirt, and what to do about it.

libvirt's messages name what it was doing, but seldom the user or the file. They are quoted only if
nothing better is known.
"""

from __future__ import annotations

from collections.abc import Callable
import errno
import os
from pathlib import Path
import re
import stat
from urllib.parse import SplitResult, parse_qs, urlsplit

import libvirt

from kongming import exception
from kongming.hypervisor.auth_file import AuthFile
from kongming.runtime.cleaning import clean, without_credentials
from kongming.runtime.users import user, user_group

#: libvirt, or its access control, denies an operation to this connection.
FORBIDS = frozenset({libvirt.VIR_ERR_OPERATION_DENIED, libvirt.VIR_ERR_ACCESS_DENIED})

_LOGIN = frozenset(
    {
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    }
)
# libvirt's message for an auth.conf that is malformed, or is named and missing.
_UNKNOWN = "the cause is unknown"
_QUOTED_MOST = 300
_SOCKET = re.compile(r"socket to '([^']+)'")
_SOCKETS = ("/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock")
_NO_SERVER = frozenset({errno.ENOENT, errno.ECONNREFUSED})
_TRUST = (
    "check cacert.pem in /etc/pki/CA (or ?pkipath= of the URI), and that the server's certificate "
    "has the name in the URI"
)
_PORTS = "is it the port for this (16509 for tcp, 16514 for tls)?"
_SHOWN = (
    "the client certificate is rejected: check clientcert.pem in /etc/pki/libvirt, "
    "private/clientkey.pem there, and tls_allowed_dn_list of libvirtd.conf"
)


def explain(error: libvirt.libvirtError, uri: str) -> str:
    """Return why a connection could not be opened, as a sentence without its end."""
    return f"libvirt at {without_password(uri)} is unavailable: {_why(error, uri)}"


def without_password(uri: str) -> str:
    """Return a URI as it may be shown."""
    return without_credentials(uri) if ":" in urlsplit(uri).netloc.rpartition("@")[0] else uri


def forbids(error: libvirt.libvirtError, doing: str) -> exception.LibvirtForbids | None:
    """Return an exception if an error is one of :data:`FORBIDS`; otherwise None.

    :param doing: what was denied, for a sentence.
    """
    if error.get_error_code() not in FORBIDS:
        return None
    return exception.LibvirtForbids(f"{doing}: {forbidden(error)}")


def forbidden(error: libvirt.libvirtError) -> str:
    """Return what to do about an error of :data:`FORBIDS`."""
    if error.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED:
        return (
            "the connection is read-only: [libvirt] connection_uri must not lead to libvirt's "
            "read-only socket (libvirt-sock-ro)"
        )
    return (
        f"libvirt's access control (access_drivers in libvirtd.conf) denies it to user {user()}: "
        "let polkit grant that user the reading actions of org.libvirt.api.connect.*, and "
        "getattr, read, write and save of org.libvirt.api.domain.*"
    )


def _why(error: libvirt.libvirtError, uri: str) -> str:
    code, message = error.get_error_code(), error.get_error_message() or ""
    parts = urlsplit(uri)
    # A URI without a transport leads to a local socket, or by TLS to a host.
    transport = parts.scheme.partition("+")[2] or ("tls" if parts.netloc else "unix")
    if code == libvirt.VIR_ERR_CONF_SYNTAX or _UNKNOWN in message:
        return _auth_file(uri)
    if code in FORBIDS:
        return forbidden(error)
    known = _BY_TRANSPORT.get(transport, _unknown)(error, message, parts)
    if known:
        return known
    if code in _LOGIN:
        return _login(code, message, uri)
    # The message may contain anything, even the output of a program that libvirt ran.
    quoted = without_credentials(clean(message, _QUOTED_MOST))
    return f"libvirt's error {code}, «{quoted}»"


def _login(code: int, message: str, uri: str) -> str:
    """Return why a log-in was refused; libvirt has one code for all reasons."""
    if code != libvirt.VIR_ERR_AUTH_FAILED or "polic" in message or "polkit" in message:
        return (
            f"polkit does not let user {user()} manage libvirt (org.libvirt.unix.manage). "
            "Debian's rule requires the group libvirt in /etc/group, the groups of the process "
            f"do not count: 'usermod -aG libvirt {user()}'; elsewhere write a rule for that user "
            "in /etc/polkit-1/rules.d"
        )
    if "No worthy mechs" in message or "no mechanism available" in message:
        return (
            "none of the SASL mechanisms that it offers is installed here: install the package "
            "libsasl2-modules (for GSSAPI libsasl2-modules-gssapi-mit); a mechanism without "
            "encryption, such as SCRAM-SHA-256, needs a Unix socket or TLS"
        )
    if problem := AuthFile.of(uri).problem():
        return f"it asks for a user name and a password (SASL), and {problem}"
    found = AuthFile.of(uri)
    if "collect" in message:
        return _auth_file(uri)
    return (
        f"it refuses the user name or the password that {found.path} has for host {found.host}: "
        "compare authname and password there with libvirt's ('saslpasswd2 -a libvirt')"
    )


def _auth_file(uri: str) -> str:
    found = AuthFile.of(uri)
    return found.problem() or (
        f"{found.path} can't be used for host {found.host}: [auth-libvirt-{found.host}] or "
        "[auth-libvirt-default] needs credentials=NAME, and [credentials-NAME] needs authname and "
        "password, each as name=value"
    )


def _unix(error: libvirt.libvirtError, message: str, parts: SplitResult) -> str:
    found = _SOCKET.search(message)
    named = parse_qs(parts.query).get("socket", [])
    path = Path(found[1] if found else named[0] if named else _SOCKETS[-1])
    if "user record" in message or "group record" in message:
        return (
            f"libvirtd, perhaps in a container, does not know user {user()} (uid {os.geteuid()}), "
            f"which opens {path}: connect as nova-compute does, by TCP or TLS"
        )
    number = error.get_int1()
    if number == errno.EACCES:
        return _closed(path)
    if number in _NO_SERVER:
        return (
            f"no process listens at {path}: is libvirtd (or virtqemud) running, and is this the "
            "socket that nova-compute uses?"
        )
    return ""


def _closed(path: Path) -> str:
    """Return why this user may not open a socket."""
    try:
        found = path.stat()
    except OSError:
        return f"user {user()} may not enter the directory of {path}"
    return _closed_by(path, found.st_mode, found.st_gid)


def _closed_by(path: Path, mode: int, gid: int) -> str:
    if not mode & stat.S_IWGRP or not gid:
        return (
            f"neither user {user()} nor any group may open {path}: set unix_sock_group = "
            '"libvirt" and unix_sock_rw_perms = "0770" in libvirtd.conf, or SocketGroup= and '
            "SocketMode= of libvirtd.socket if systemd opens it"
        )
    group = user_group(gid)
    if gid in {os.getegid(), *os.getgroups()}:
        return f"the group {group} may open {path}, but SELinux or AppArmor denies it"
    return (
        f"user {user()} is not in the group {group}, which may open {path}: 'usermod -aG {group} "
        f"{user()}', then restart the service"
    )


def _tcp(error: libvirt.libvirtError, message: str, parts: SplitResult) -> str:
    if "resolve" in message:
        return f"the name {parts.hostname} can't be resolved: is it in DNS, or in /etc/hosts?"
    if error.get_int1() == errno.ECONNRESET:
        return f"{parts.hostname} closed the connection: {_PORTS}"
    if error.get_int1() == errno.ECONNREFUSED:
        return (
            f"no process listens at {parts.hostname}: does libvirtd listen (libvirtd-tcp."
            "socket or libvirtd-tls.socket; listen_tcp or listen_tls), at this address and port?"
        )
    if error.get_int1() in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT}:
        return f"{parts.hostname} can't be reached ({os.strerror(error.get_int1())})"
    return ""


def _tls(error: libvirt.libvirtError, message: str, parts: SplitResult) -> str:
    lower = message.lower()
    if "cannot read" in lower or "unable to import" in lower or "error loading" in lower:
        return (
            f"user {user()} can't read the certificates ({_quoted_path(message)}): /etc/pki/CA/"
            "cacert.pem, and in /etc/pki/libvirt clientcert.pem and private/clientkey.pem, or all "
            "of them in ?pkipath= of the URI"
        )
    if re.search(r"of our certificate|our\sown certificate|tls confirmation", lower):
        return _SHOWN
    if "certificate" in lower or "issuer" in lower:
        return f"its certificate is not trusted: {_TRUST}"
    if "tls handshake" in lower or "gnutls" in lower:
        return f"the TLS handshake failed: {_PORTS} Otherwise {_SHOWN}"
    return _tcp(error, message, parts)


def _ssh(_error: libvirt.libvirtError, message: str, parts: SplitResult) -> str:
    if "ost key" in message:
        return (
            f"ssh does not know the key of {parts.hostname}: put it into known_hosts of user "
            f"{user()} (ssh-keyscan)"
        )
    if "ermission denied" in message or "uthentication" in message:
        return (
            f"ssh rejects user {user()} at {parts.hostname}: a password can't be entered here; "
            "name the private key with ?keyfile= and add its public key to authorized_keys there"
        )
    if "resolve" in message:
        return f"the name {parts.hostname} can't be resolved: is it in DNS, or in /etc/hosts?"
    if "onnection refused" in message or "timed out" in message or "unreachable" in message:
        return f"no SSH server answers at {parts.hostname}"
    return ""


def _unknown(_error: libvirt.libvirtError, _message: str, _parts: SplitResult) -> str:
    return ""


def _quoted_path(message: str) -> str:
    found = re.search(r"(/[^\s':]+)", message)
    return found[1] if found else "one of them"


_BY_TRANSPORT: dict[str, Callable[[libvirt.libvirtError, str, SplitResult], str]] = {
    "unix": _unix,
    "tcp": _tcp,
    "tls": _tls,
    "ssh": _ssh,
    "libssh": _ssh,
    "libssh2": _ssh,
}
