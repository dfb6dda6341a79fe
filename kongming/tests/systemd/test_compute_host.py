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

"""The guide for compute hosts, typed as it is written, and the unit that it leads to."""

from itertools import takewhile
import os
import signal
import socket
import uuid

import pytest

from kongming.tests.systemd.machine import Unit, capabilities, sh
from kongming.tests.testbed import threads
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.pages import INSTALL, blocks, typed
from kongming.tests.testbed.process import wait_until

GUIDE = blocks(INSTALL / "index.rst")
URL = "rabbit://guest:guest@127.0.0.1:5672/"
HOST = socket.gethostname()
KEY = "kongming-vcpu-pinning"
NAME = "kongming-notification-handler"
CAPABILITIES = ("CAP_SYS_NICE", "CAP_SYS_PTRACE")
#: systemd's figure for the unit at most: a service with the least of rights has about 1.
EXPOSURE_MAX = 2.0


@pytest.fixture(scope="module")
def nova():
    return Nova(URL)


@pytest.fixture(scope="module")
def handler(nova):
    """The service, as the page leads to it."""
    steps = takewhile(lambda block: block.section != "5. Check the log", GUIDE)
    smallest = next(
        block
        for block in GUIDE
        if block.kind == "ini" and block.section == "3. Write kongming.conf"
    )
    written = smallest.text.replace("rabbit://user:password@host:5672/", URL)
    # Nova has published to it before.
    nova.publish(str(uuid.uuid4()), "another", {})
    sh(*typed(steps), written=written + "\n")
    yield Unit(NAME)
    sh(f"systemctl disable --now {NAME}")


@pytest.fixture
def place(handler, nova, guest):
    """Have Nova request a CPU for the guest, and wait until it is there."""

    def place(cpu):
        nova.publish(guest.UUIDString(), HOST, {KEY: str(cpu)})
        wait(cpu)

    def wait(cpu):
        wait_until(
            lambda: set(threads.vcpu_affinity(guest.UUIDString()).values()) == {frozenset([cpu])},
            60,
            f"the guest is on CPU {cpu}; {handler.log()[-2000:]}",
        )

    place.wait = wait
    return place


def test_the_guide_leads_to_a_service_that_places_guests(handler, place):
    # On the page start returns when it is ready.
    assert "Ready: listening to Nova's notifications, libvirt is available" in handler.log()
    assert handler.show("ActiveState") == "active"
    place(0)
    place(1)
    output = sh("kongming-status upgrade check || [ $? = 1 ]")
    assert "checked as user kongming" in output
    assert "Failure" not in output


def test_the_hook_is_installed_as_the_guide_says(handler):
    steps = [block for block in GUIDE if block.section.startswith("6. Install the libvirt hook")]
    sh(*typed(steps), "systemctl restart libvirtd")
    output = sh("kongming-status upgrade check --json || [ $? = 1 ]")
    assert '"check": "libvirt hook", "result": 0' in output, output


def test_a_tree_of_another_user_or_without_git_is_installed_as_the_guide_says(handler):
    page = "\n".join((INSTALL / "index.rst").read_text().splitlines())
    install = "/opt/kongming/bin/pip install --no-deps --no-build-isolation --force-reinstall"
    sh("cp -a . /tmp/tree", "/opt/kongming/bin/pip install -c constraints.txt pbr setuptools")
    sh("rm -rf /tmp/plain", "cp -a /tmp/tree /tmp/plain", "rm -rf /tmp/plain/.git")
    assert "export PBR_VERSION=0.1.0" in page
    sh("cd /tmp/plain", "export PBR_VERSION=0.1.0", f"{install} .")
    assert "0.1.0" in sh(f"{NAME} --version")
    sh("chown -R kongming: /tmp/tree")
    assert "Versioning for this project requires" in sh("cd /tmp/tree", f"{install} .", fails=True)
    added = 'git config --global --add safe.directory "$PWD"'
    assert added in " ".join(page.replace("--global\n--add", "--global --add").split())
    sh("cd /tmp/tree", added, f"{install} .", "git config --global --unset-all safe.directory")


def test_a_start_waits_until_the_service_is_ready(handler, place):
    sh(f"systemctl stop {NAME}", "systemctl stop rabbitmq-server")
    sh(f"systemctl start --no-block {NAME}")
    handler.wait_log("RabbitMQ is unavailable")
    assert handler.show("ActiveState") == "activating"
    sh("systemctl start rabbitmq-server")
    handler.wait_state("active")
    place(0)


def test_a_restart_loses_no_event(handler, nova, guest, place):
    for number in range(9):
        nova.publish(guest.UUIDString(), HOST, {KEY: str(number % 2)}, "instance.update")
        if number % 3 == 1:
            sh(f"systemctl restart {NAME}")
    place.wait(0)
    nova.publish(guest.UUIDString(), HOST, {KEY: "1"}, "instance.update")
    sh(f"systemctl stop {NAME}")
    nova.publish(guest.UUIDString(), HOST, {KEY: "0"}, "instance.update")
    sh(f"systemctl start {NAME}")
    place.wait(0)


def test_a_reload_puts_options_in_force_in_the_same_process(handler, nova, guest, place):
    place(1)
    before = handler.pid
    sh("printf '[guard]\\nreserved_cpus = 0\\n' >> /etc/kongming/kongming.conf")
    sh(f"systemctl reload {NAME}")
    handler.wait_log("Configuration reloaded")
    assert handler.pid == before
    nova.publish(guest.UUIDString(), HOST, {KEY: "0"}, "instance.update")
    handler.wait_log("cpu_reserved")
    place.wait(1)
    sh("sed -i '/^.guard/,$d' /etc/kongming/kongming.conf", f"systemctl reload {NAME}")
    place(0)


def test_a_killed_service_is_started_again(handler, place):
    before = handler.pid
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: handler.pid not in (0, before), 60, "another process")
    handler.wait_state("active")
    place(1)


def test_a_service_that_hangs_is_started_again(handler, place):
    handler.drop_in("[Service]\nWatchdogSec=5\n")
    sh(f"systemctl restart {NAME}")
    before = handler.pid
    os.kill(before, signal.SIGSTOP)
    wait_until(lambda: handler.pid not in (0, before), 90, "another process")
    assert "watchdog" in handler.log().lower()
    handler.wait_state("active")
    place(0)


def test_the_restrictions_of_the_unit_are_in_force(handler):
    status = handler.process_status()
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for kind in ("CapBnd", "CapEff", "CapPrm"):
        assert int(status[kind], 16) == capabilities(CAPABILITIES), kind
    owner = sh("id -u kongming").strip()
    assert status["Uid"].split() == [owner] * 4
    into = f"nsenter --target {handler.pid} --mount --root"
    for path in ("/usr/x", "/etc/x", "/var/x"):
        assert "Read-only" in sh(f"{into} touch {path}", fails=True)
    sh(f"{into} touch /var/lib/kongming/x", "rm /var/lib/kongming/x")
    for folder in ("/home", "/root"):
        assert sh(f"{into} ls -A {folder}") == ""
    exposure = handler.exposure()
    assert exposure <= EXPOSURE_MAX, exposure


def test_the_state_directory_belongs_to_the_service(handler):
    assert sh("stat -c '%a %U %G' /var/lib/kongming").split() == ["750", "kongming", "kongming"]


def test_the_journal_has_one_line_for_each_record(handler):
    lines = handler.log().splitlines()
    assert not [line for line in lines if "Traceback" in line or "guest:guest" in line]
