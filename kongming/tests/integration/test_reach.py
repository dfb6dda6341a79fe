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

"""libvirt is reached as nova-compute and virsh reach it: each way with a real libvirtd."""

from dataclasses import dataclass
import os
from pathlib import Path
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

import pytest

from kongming import exception
from kongming.hypervisor.connection import run_event_loop
from kongming.hypervisor.opener import Opener, connect
from kongming.tests.integration.conftest import Cloud, applied, status
from kongming.tests.integration.status import Status
from kongming.tests.testbed.forwarder import Forwarder
from kongming.tests.testbed.process import patience, wait_until
from kongming.tests.testbed.reachable import (
    PASSWORD,
    USER,
    Certificates,
    ReachableLibvirtd,
    auth_conf,
)
from kongming.tests.testbed.silent import Silent
from kongming.tests.testbed.sshd import Sshd
from kongming.tests.thorough import stories

pytestmark = pytest.mark.needs_mounts

MANAGE = Path(sys.executable).with_name("kongming-manage")


@dataclass(frozen=True)
class Way:
    """One way to a libvirtd, for a cloud to take."""

    libvirtd: ReachableLibvirtd
    uri: str

    def connect(self):
        return self.libvirtd.connect()

    def start(self):
        self.libvirtd.start()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A libvirtd without a log-in."""
    run_event_loop()
    with ReachableLibvirtd(tmp_path_factory.mktemp("plain")) as libvirtd:
        yield libvirtd


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A libvirtd that requires a log-in."""
    run_event_loop()
    with ReachableLibvirtd(tmp_path_factory.mktemp("guarded"), login=True) as libvirtd:
        yield libvirtd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory, plain):
    with Sshd(tmp_path_factory.mktemp("ssh") / "sshd", plain.folder) as sshd:
        yield sshd


def by_ssh(sshd, **parameters):
    parameters = {"keyfile": sshd.key, "command": sshd.client("ssh"), **parameters}
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"qemu+ssh://root@127.0.0.1:{sshd.port}/system?{query}"


@pytest.fixture
def way(request, plain, guarded, sshd):
    """The way of a name: transport, and whether a log-in is required."""
    transport, _, login = request.param.partition(" with ")
    libvirtd = guarded if login else plain
    if transport == "ssh":
        return Way(libvirtd, by_ssh(sshd))
    given = {"authfile": libvirtd.auth_file} if login else {}
    return Way(libvirtd, libvirtd.over(transport, **given))


WAYS = (
    "ssh",
    "tcp with a log-in",
    *(
        pytest.param(way, marks=pytest.mark.slow)
        for way in ("unix", "tcp", "tls", "unix with a log-in", "tls with a log-in")
    ),
)


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_a_guest_is_placed_through_every_transport_of_libvirt(broker, way, cpus, tmp_path):
    cloud = Cloud(broker, way, tmp_path)
    guest = cloud.guest(vcpus=2)
    with cloud.daemon() as daemon:
        cloud.publish(guest, str(cpus[0]))
        guest.wait_on(cpus[0])
        applied(daemon, guest)
        found = Status(daemon.conf)
        assert found.results["libvirt"] == 0, found.details
        shown = run_manage(daemon.conf, "host", "show")
        assert shown.returncode == 0, shown.stderr
    assert PASSWORD not in daemon.log() + shown.stdout + str(found.details)
    cloud.close()


def run_manage(conf, *arguments, **env):
    return subprocess.run(
        [MANAGE, "--config-file", conf, *arguments],
        capture_output=True,
        text=True,
        timeout=60 * patience(),
        env={**os.environ, **env},
    )


@stories("place", ["LIBVIRT_AUTH_FILE", "XDG_CONFIG_HOME", "HOME"])
def test_auth_conf_is_found_where_virsh_finds_it(guarded, tmp_path, place):
    conf = tmp_path / "kongming.conf"
    conf.write_text(f"[libvirt]\nconnection_uri = {guarded.over('tcp')}\n")
    path = {
        "LIBVIRT_AUTH_FILE": tmp_path / "any",
        "XDG_CONFIG_HOME": tmp_path / "libvirt/auth.conf",
        "HOME": tmp_path / ".config/libvirt/auth.conf",
    }[place]
    value = path if place == "LIBVIRT_AUTH_FILE" else tmp_path
    without = run_manage(conf, "host", "show", **{place: str(value)})
    assert without.returncode == 1
    assert str(path) in without.stderr
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(auth_conf())
    found = run_manage(conf, "host", "show", **{place: str(value)})
    assert found.returncode == 0, found.stderr


def refusal(uri, **options):
    """Return why there is no connection; it never holds the password."""
    with pytest.raises(exception.HypervisorUnavailable) as raised:
        connect(uri, **options)
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


@stories("transport", ["unix", "tcp", "tls"])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (auth_conf(password="another"), "refuses the user name or the password that"),
        (auth_conf(user="nobody-knows"), "refuses the user name or the password that"),
        (auth_conf(host="elsewhere"), "has no section [auth-libvirt-localhost]"),
        ("", "has no section [auth-libvirt-localhost]"),
        (auth_conf() + f"{PASSWORD}\n", "needs credentials=NAME, and [credentials-NAME]"),
        (f"{PASSWORD}\n" + auth_conf(), "needs credentials=NAME, and [credentials-NAME]"),
        (auth_conf().replace("password=", "passwort="), "needs authname and password"),
        (auth_conf().replace("[credentials-of-it]", "[credentials-x]"), "needs credentials=NAME"),
        (None, "can't read"),
    ],
)
def test_each_unusable_auth_conf_is_reported_with_its_fault(
    guarded, tmp_path, transport, text, fault
):
    path = tmp_path / "auth.conf"
    if text is not None:
        path.write_text(text)
    message = refusal(guarded.over(transport, authfile=path))
    assert str(path) in message
    assert fault in message


def test_an_auth_conf_for_all_hosts_serves_each(guarded, tmp_path):
    path = tmp_path / "auth.conf"
    path.write_text(auth_conf(host="default"))
    for transport in ("unix", "tcp", "tls"):
        assert connect(guarded.over(transport, authfile=path)).isAlive()


def test_missing_sasl_mechanisms_are_reported_with_their_package(guarded):
    code = "import sys; from kongming.hypervisor.opener import connect; connect(sys.argv[1])"
    ended = subprocess.run(
        [sys.executable, "-c", code, guarded.uri],
        env={**os.environ, "SASL_PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60 * patience(),
    )
    assert "install the package libsasl2-modules" in ended.stderr


@pytest.fixture
def other_pki(tmp_path):
    return Certificates.make(tmp_path / "other").folder


def test_unusable_certificates_are_reported_with_their_fault(plain, other_pki, tmp_path):
    assert "can't read the certificates" in refusal(plain.over("tls", pkipath=tmp_path / "none"))
    assert "its certificate is not trusted" in refusal(plain.over("tls", pkipath=other_pki))
    shutil.copy(plain.certificates / "cacert.pem", other_pki)
    assert "the client certificate is rejected" in refusal(plain.over("tls", pkipath=other_pki))
    other_name = plain.over("tls").replace("localhost", "127.0.0.1")
    assert "has the name in the URI" in refusal(other_name)


def test_a_client_without_a_certificate_is_reported(plain, tmp_path):
    shutil.copy(plain.certificates / "cacert.pem", tmp_path)
    assert "clientcert.pem" in refusal(plain.over("tls", pkipath=tmp_path))


def test_a_port_of_another_kind_is_reported_as_that(plain):
    tls, tcp = str(plain.tls_port), str(plain.tcp_port)
    assert "16514 for tls" in refusal(plain.over("tls").replace(tls, tcp))
    assert "16509 for tcp" in refusal(plain.over("tcp").replace(tcp, tls))
    assert "no process listens" in refusal(plain.over("tcp").replace(tcp, "1"))


def test_ssh_that_would_prompt_is_refused_with_the_remedy(sshd, tmp_path):
    stranger = sshd.client("stranger", knows=False)
    assert "ssh does not know the key" in refusal(by_ssh(sshd, command=stranger))
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    assert "ssh rejects user root" in refusal(by_ssh(sshd, keyfile=key))
    locked = tmp_path / "locked"
    shutil.copy(sshd.key, locked)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a-passphrase", "-f", locked]
    subprocess.run(change, check=True)
    assert "ssh rejects user root" in refusal(by_ssh(sshd, keyfile=locked))


def test_the_read_only_socket_is_refused_once_without_any_undoing(broker, plain, cpus, tmp_path):
    socket_ro = plain.folder / "libvirt-sock-ro"
    cloud = Cloud(broker, Way(plain, plain.over("unix", socket=socket_ro)), tmp_path)
    guest = cloud.guest()
    options = "[executor]\ncheck_interval = 1\nretry_interval_max = 1\n"
    with cloud.daemon(options=options) as daemon:
        cloud.publish(guest, str(cpus[0]))
        refused = status(daemon, guest, "refused")
        assert refused.reason == "libvirt_forbids"
        cloud.settle(daemon)
        daemon.reload()
        daemon.wait_log("Configuration reloaded")
        cloud.settle(daemon)
        log = daemon.log()
        assert log.count(f"Instance {guest.uuid}: refused (libvirt_forbids)") == 1
        assert "undone" not in log
        assert "failed" not in log
        found = Status(daemon.conf)
    assert found.results["libvirt"] == 2
    assert "the connection is read-only" in found.details["libvirt"]
    with Cloud(broker, Way(plain, plain.uri), tmp_path / "rw").daemon() as daemon:
        assert Status(daemon.conf).results["libvirt"] == 0
    cloud.close()


def test_an_unresponsive_libvirtd_is_reported_and_found_when_it_answers(cloud, cpus):
    guest = cloud.guest()
    daemon = cloud.daemon(options="[libvirt]\nkeepalive_interval = 1\nkeepalive_count = 1\n")
    cloud.libvirtd.pause()
    try:
        daemon.start_soon()
        daemon.wait_log("did not answer within 10 s")
        assert not daemon.is_ready()
        assert threads_of(daemon).count("libvirt-open") <= 1
    finally:
        cloud.libvirtd.resume()
    daemon.wait_ready()
    cloud.publish(guest, str(cpus[0]))
    guest.wait_on(cpus[0])
    assert daemon.log().count("did not answer within 10 s") == 1
    assert daemon.stop() == 0


def threads_of(daemon):
    names = Path(f"/proc/{daemon.process.pid}/task").glob("*/comm")
    return [name.read_text().strip() for name in names]


def hanging(uri):
    """Try again and again where an attempt hangs; return how many threads that leaves."""
    opener = Opener.of(uri)
    opener._timeout = 0.2
    before = set(threading.enumerate())
    for _ in range(4):
        with pytest.raises(exception.HypervisorUnavailable, match=r"did not answer within 0\.2 s"):
            opener.open()
    return len(set(threading.enumerate()) - before)


def test_attempts_at_a_socket_without_an_accepting_server_do_not_accumulate(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(1)
        assert hanging(f"qemu:///system?socket={tmp_path}/socket") == 1


@stories("transport", ["tcp", "tls"])
def test_attempts_at_an_unresponsive_server_do_not_accumulate(plain, transport):
    with Silent() as unresponsive:
        uri = plain.over(transport)
        for port in (plain.tcp_port, plain.tls_port):
            uri = uri.replace(str(port), str(unresponsive.port))
        assert hanging(uri) == 1


def test_attempts_with_an_unanswered_log_in_do_not_accumulate(guarded):
    with Forwarder(guarded.tcp_port) as between:
        between.stop_answering_at(b"DIGEST-MD5")
        uri = guarded.uri.replace("qemu:///", f"qemu+tcp://localhost:{between.port}/")
        assert hanging(uri) == 1
        between.resume()
        wait_until(lambda: "libvirt-open" not in {t.name for t in threading.enumerate()}, 30, "go")


def test_an_ssh_that_hangs_is_left_alone(plain, tmp_path):
    command = tmp_path / "ssh"
    command.write_text("#!/bin/sh\nexec sleep 3\n")
    command.chmod(0o755)
    assert hanging(f"qemu+ssh://localhost/system?command={command}") == 1


def test_a_libvirtd_that_accepts_no_further_clients_is_reported_and_waited_for(broker, cpus):
    root = Path(tempfile.mkdtemp(prefix="kongming-few-"))
    settings = {"max_clients": 6, "max_anonymous_clients": 6}
    hold = (
        "import sys, time, libvirt; held = [libvirt.open(sys.argv[1]) for _ in range(4)]; "
        "print(len(held)); time.sleep(600)"
    )
    with ReachableLibvirtd(root, settings=settings) as few:
        cloud = Cloud(broker, Way(few, few.uri), root / "cloud")
        guest = cloud.guest()
        daemon = cloud.daemon(options="[executor]\nretry_interval_max = 1\n")
        holder = subprocess.Popen([sys.executable, "-uc", hold, few.uri], stdout=subprocess.PIPE)
        holder.stdout.readline()
        with daemon:
            cloud.publish(guest, str(cpus[0]))
            daemon.wait_log("did not answer within 10 s")
            holder.kill()
            applied(daemon, guest)
            assert daemon.log().count("did not answer within 10 s") == 1
            assert "Traceback" not in daemon.log()
        holder.wait()
        cloud.close()
    shutil.rmtree(root)


def test_the_credentials_of_auth_conf_are_not_logged(broker, guarded, tmp_path):
    path = tmp_path / "auth.conf"
    path.write_text(auth_conf(password=f"{PASSWORD}-wrong"))
    uri = guarded.over("tcp", authfile=path)
    cloud = Cloud(broker, Way(guarded, uri), tmp_path)
    daemon = cloud.daemon(options="[DEFAULT]\ndebug = true\n")
    daemon.start_soon()
    daemon.wait_log("refuses the user name or the password")
    found = Status(daemon.conf)
    daemon.stop()
    assert found.results["libvirt"] == 2
    assert PASSWORD not in daemon.log() + str(found.details) + found.errors
    assert not re.search(rf"\b{USER}\b.*{PASSWORD}", daemon.log())
