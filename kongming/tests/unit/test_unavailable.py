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

"""Why libvirt is unavailable: who it is, which file, and what to do."""

import errno
import getpass
import grp
import os
from pathlib import Path

import libvirt
import pytest

from kongming.hypervisor import auth_file, unavailable
from kongming.hypervisor.auth_file import AuthFile
from kongming.hypervisor.unavailable import explain, forbidden
from kongming.tests.libvirt_errors import error

HERE = "qemu:///system"
TCP = "qemu+tcp://compute-1/system"
TLS = "qemu+tls://compute-1/system"
SSH = "qemu+ssh://compute-1/system"
ME = getpass.getuser()

AUTH = """\
[credentials-nova]
authname=nova
password=secret-word

[auth-libvirt-compute-1]
credentials=nova
"""


def system(text, number):
    return error(libvirt.VIR_ERR_SYSTEM_ERROR, text, number)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Where auth.conf is looked for: the user's folder, and the system's file."""
    monkeypatch.delenv("LIBVIRT_AUTH_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(auth_file, "_SYSTEM", tmp_path / "system/auth.conf")
    for folder in ("config/libvirt", "system"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path / "config/libvirt/auth.conf", tmp_path / "system/auth.conf"


@pytest.mark.parametrize(
    ("uri", "raised", "expected"),
    [
        (
            HERE,
            system("Failed to connect socket to '/run/x-sock': No such file", errno.ENOENT),
            "no process listens at /run/x-sock: is libvirtd",
        ),
        (
            f"{HERE}?socket=/run/y-sock",
            system("Failed to connect: Connection refused", errno.ECONNREFUSED),
            "no process listens at /run/y-sock",
        ),
        (HERE, system("Failed to find user record for uid '999'", -1), f"does not know user {ME}"),
        (HERE, system("Failed to find group record for gid '9'", -1), f"does not know user {ME}"),
        (
            TCP,
            system("unable to connect", errno.ECONNREFUSED),
            "no process listens at compute-1: ",
        ),
        (TCP, system("unable to connect", errno.EHOSTUNREACH), "compute-1 can't be reached (No r"),
        (TCP, system("Unable to resolve address 'compute-1'", 22), "compute-1 can't be resolved"),
        (SSH, system("Cannot recv data: Host key verification failed.", 104), "known_hosts"),
        (SSH, system("x: Permission denied (publickey).", 5), "?keyfile="),
        (SSH, system("ssh: connect to host x: Connection refused", 5), "no SSH server answers"),
        (SSH, system("ssh: Could not resolve hostname x", 5), "compute-1 can't be resolved"),
        (
            TLS,
            system("Cannot read CA certificate '/etc/pki/CA/cacert.pem': No such file", 2),
            "can't read the certificates (/etc/pki/CA/cacert.pem)",
        ),
        (
            TLS,
            system("Server verification (of our certificate or IP address) failed", 5),
            "tls_al",
        ),
        (
            TLS,
            system("Unable to read TLS confirmation: Input/output error", 5),
            "the client certificate",
        ),
        (TLS, system("The certificate hasn't got a known issuer.", 5), "is not trusted"),
        (TLS, system("unable to connect", errno.ECONNREFUSED), "no process listens at compute-1"),
        ("qemu://compute-1/system", system("TLS handshake failed x", 5), "16514 for tls"),
        (HERE, system("something else", errno.EIO), "libvirt's error 38, «something else»"),
        (TCP, system("something else", errno.EIO), "libvirt's error 38, «something else»"),
        (
            HERE,
            error(libvirt.VIR_ERR_AUTH_UNAVAILABLE, "no polkit agent available to authenticate"),
            f"'usermod -aG libvirt {ME}'",
        ),
        (HERE, error(libvirt.VIR_ERR_AUTH_FAILED, "access denied by policy"), "in /etc/group"),
        (HERE, error(libvirt.VIR_ERR_AUTH_CANCELLED, "user cancelled"), "in /etc/group"),
        (TCP, system("Cannot recv data: Connection reset", errno.ECONNRESET), "closed the conne"),
        (
            TLS,
            system("Our own certificate /x failed validation", -1),
            "the client certificate is re",
        ),
        (
            TCP,
            error(libvirt.VIR_ERR_AUTH_FAILED, "SASL(-4): no mechanism: No worthy mechs found"),
            "install the package libsasl2-modules",
        ),
        (TCP, error(libvirt.VIR_ERR_ACCESS_DENIED), "org.libvirt.api.connect.*"),
        (TCP, error(libvirt.VIR_ERR_OPERATION_DENIED), "the connection is read-only"),
    ],
)
def test_each_error_is_reported_with_its_remedy(files, uri, raised, expected):
    message = explain(raised, uri)
    assert message.startswith(f"libvirt at {uri} is unavailable: ")
    assert expected in message


def test_the_output_of_a_program_is_quoted_in_part_and_made_harmless():
    message = explain(error(1, "\x1b[31m at amqp://me:secret@host " + "x" * 1000), HERE)
    assert "\x1b" not in message
    assert "secret" not in message
    assert len(message) < 400


def test_a_password_in_the_uri_is_not_shown():
    message = explain(error(1, "x"), "qemu+tcp://me:secret-word@host/system")
    assert "secret-word" not in message
    assert "host/system" in message


def group_of_others():
    mine = {os.getegid(), *os.getgroups()}
    return next(each for each in grp.getgrall() if each.gr_gid not in mine)


def test_a_closed_socket_names_the_group_that_opens_it_and_the_command():
    group = group_of_others()
    message = unavailable._closed_by(Path("/run/x"), 0o770, group.gr_gid)
    assert f"'usermod -aG {group.gr_name} {ME}'" in message
    assert "restart the service" in message


@pytest.mark.parametrize(("mode", "gid"), [(0o700, 12345), (0o750, 12345), (0o770, 0)])
def test_a_socket_that_no_group_opens_is_reported_as_that(mode, gid):
    message = unavailable._closed_by(Path("/run/x"), mode, gid)
    assert 'unix_sock_group = "libvirt"' in message
    assert "usermod" not in message


def test_a_group_without_a_name_is_reported_by_its_number():
    assert "usermod -aG 4294901 " in unavailable._closed_by(Path("/run/x"), 0o770, 4294901)


def test_a_socket_of_the_users_group_is_closed_by_another_cause(monkeypatch):
    group = group_of_others()
    monkeypatch.setattr(os, "getgroups", lambda: [group.gr_gid])
    assert "SELinux or AppArmor" in unavailable._closed_by(Path("/run/x"), 0o770, group.gr_gid)


def test_the_socket_of_the_error_is_the_checked_one(tmp_path):
    (tmp_path / "socket").touch()
    (tmp_path / "socket").chmod(0o600)
    text = f"Failed to connect socket to '{tmp_path}/socket': Permission denied"
    assert f"may open {tmp_path}/socket" in explain(system(text, errno.EACCES), HERE)
    gone = text.replace("/socket", "/none/socket")
    assert "may not enter the directory" in explain(system(gone, errno.EACCES), HERE)


def login(text="authentication failed: authentication failed"):
    return error(libvirt.VIR_ERR_AUTH_FAILED, text)


def test_without_an_auth_conf_both_places_are_named_and_the_lines_to_write(files):
    message = explain(login(), TCP)
    own, system_wide = files
    assert f"there is no auth.conf for user {ME}: write {own} or {system_wide}" in message
    assert "[auth-libvirt-compute-1] with credentials=NAME" in message


@pytest.mark.parametrize("which", [0, 1])
def test_an_auth_conf_that_may_not_be_read_is_named(files, monkeypatch, which):
    files[which].write_text(AUTH)
    monkeypatch.setattr(os, "access", lambda *_: False)
    message = explain(login(), TCP)
    assert f"may not read {files[which]}: chown" in message


def test_an_auth_conf_of_another_host_is_reported_as_that(files):
    files[1].write_text(AUTH)
    message = explain(login(), "qemu+tcp://elsewhere/system")
    assert f"{files[1]} has no section [auth-libvirt-elsewhere]" in message


@pytest.mark.parametrize("section", ["auth-libvirt-compute-1", "auth-libvirt-default"])
def test_an_auth_conf_that_fits_has_a_wrong_name_or_password(files, section):
    files[0].write_text(AUTH.replace("auth-libvirt-compute-1", section))
    message = explain(login(), TCP)
    assert f"refuses the user name or the password that {files[0]} has" in message
    assert "secret-word" not in message


def test_an_auth_conf_without_name_or_password_is_reported_as_that(files):
    files[0].write_text(AUTH.replace("password", "passwort"))
    message = explain(login("Failed to collect auth credentials"), TCP)
    assert f"{files[0]} can't be used for host compute-1" in message
    assert "secret-word" not in message


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (libvirt.VIR_ERR_CONF_SYNTAX, "bad line secret-word"),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "An error occurred, but the cause is unknown"),
    ],
)
def test_the_message_of_libvirt_about_a_malformed_auth_conf_is_not_quoted(files, code, text):
    files[0].write_text(AUTH + "secret-word")
    message = explain(error(code, text), TCP)
    assert f"{files[0]} can't be used" in message
    assert "secret-word" not in message


def test_the_auth_conf_of_the_user_precedes_that_of_the_system(files):
    for path in files:
        path.write_text(AUTH)
    assert AuthFile.of(TCP).path == files[0]
    files[0].unlink()
    assert AuthFile.of(TCP).path == files[1]


def test_an_explicit_auth_conf_is_the_only_one(files, monkeypatch):
    files[0].write_text(AUTH)
    named = AuthFile.of(f"{TCP}?authfile=/in/the/uri")
    assert named.path == Path("/in/the/uri")
    assert "can't read /in/the/uri (No such file" in named.problem()
    monkeypatch.setenv("LIBVIRT_AUTH_FILE", "/in/the/environment")
    assert AuthFile.of(f"{TCP}?authfile=/in/the/uri").path == Path("/in/the/environment")


def test_a_local_socket_is_looked_up_as_localhost(files):
    assert AuthFile.of(HERE).host == "localhost"


def test_an_operation_that_libvirt_forbids_is_reported_with_the_forbidding_rule():
    assert "read-only socket" in forbidden(error(libvirt.VIR_ERR_OPERATION_DENIED))
    denied = forbidden(error(libvirt.VIR_ERR_ACCESS_DENIED))
    assert "access_drivers" in denied
    assert ME in denied
