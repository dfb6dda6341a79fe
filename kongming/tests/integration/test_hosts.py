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


"""The main story on hosts of which a service sees less than there is.

A guest is placed, what others move behind libvirt's back is found or reported as unknown, and the
guest is released. The service is real, and so are libvirtd and QEMU.
"""

import contextlib
import json
import os
from pathlib import Path
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import libvirt
import pytest

from kongming.allocation import metadata
from kongming.allocation.request import Request, Source
from kongming.executor.store.store import Store
from kongming.hypervisor.connection import run_event_loop
from kongming.tests.integration.conftest import Guest
from kongming.tests.testbed import file_faults, threads
from kongming.tests.testbed.daemon import Daemon
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.odd_host import (
    SERVICE_USER,
    SYSTEM,
    UNIT,
    OddHost,
    denied,
    empty,
    over,
)
from kongming.tests.testbed.process import run, wait_until
from kongming.tests.testbed.tcp_libvirtd import TcpLibvirtd
from kongming.tests.thorough import stories

pytestmark = pytest.mark.needs_mounts

OPTIONS = "[executor]\ncheck_interval = 1\n"
PROC = Path("/proc")
HIDEPID = "mount -t proc -o hidepid={} proc /proc"
CPU = f"{SYSTEM}/cpu"

#: The hosts, and what a service on each can't observe, with a part of the reason; None: nothing.
HOSTS = {
    "as it is": (OddHost(), None),
    "as the unit has it": (OddHost(capabilities=UNIT), None),
    "no capabilities": (OddHost(capabilities=()), None),
    "its own processes": (OddHost(own_pids=True), "its own PID namespace"),
    "its own processes and the machine's /proc": (OddHost(own_pids=True, own_proc=False), None),
    "a /proc that can't be listed": (
        OddHost((denied("/proc"),), capabilities=UNIT),
        "/proc can't be listed",
    ),
    "hidepid=1": (OddHost((HIDEPID.format(1),), capabilities=()), "hidepid="),
    "hidepid=2": (OddHost((HIDEPID.format(2),), capabilities=()), "hidepid="),
    "hidepid=invisible": (
        OddHost((HIDEPID.format("invisible"),), capabilities=("sys_nice",)),
        "hidepid=",
    ),
    "hidepid=2 with the capability": (OddHost((HIDEPID.format(2),), capabilities=UNIT), None),
    "no /proc": (OddHost(("mount -t tmpfs none /proc",)), "there is no /proc"),
    "a /proc of processes only": (OddHost(("mount -t proc -o subset=pid proc /proc",)), None),
    "no /sys": (OddHost(("mount -t tmpfs none /sys",)), None),
    "next to nothing in /sys": (
        OddHost((empty(SYSTEM, "cpu/present", "cpu/online"),)),
        None,
    ),
    "lxcfs": (
        OddHost(
            (
                over(f"{CPU}/online", "0\n"),
                over(f"{CPU}/present", "0\n"),
                over("/proc/stat", "cpu 1 0 1 9 0 0 0 0 0 0\n"),
                over("/proc/cpuinfo", "processor : 0\n"),
                over("/proc/meminfo", "MemTotal: 1024 kB\nMemFree: 512 kB\n"),
            )
        ),
        None,
    ),
    "denied files": (
        OddHost(
            (
                denied(f"{SYSTEM}/node/has_memory"),
                denied(f"{CPU}/online"),
                denied(f"{CPU}/cpu0/topology/core_id"),
            ),
            capabilities=UNIT,
        ),
        None,
    ),
    "denied folders": (
        OddHost((denied(f"{SYSTEM}/node"), denied(CPU)), capabilities=UNIT),
        None,
    ),
    "no visible control groups": (
        OddHost(("umount -R /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup",)),
        None,
    ),
}
#: One of each kind runs whenever the others' tests do.
DEFAULT = ("its own processes", "hidepid=2", "denied files", "lxcfs")


@contextlib.contextmanager
def running(**options):
    """A libvirtd below a folder that ordinary users may go into."""
    run_event_loop()
    root = Path(tempfile.mkdtemp(prefix="kongming-"))
    root.chmod(0o755)
    try:
        with TcpLibvirtd(root / "libvirt", **options) as libvirtd:
            yield libvirtd
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def libvirtd():
    with running() as libvirtd:
        yield libvirtd


class Story:
    """A guest, and a service on an odd host that keeps it placed."""

    def __init__(self, libvirtd, host, uri=None):
        self.root = Path(tempfile.mkdtemp(prefix="kongming-"))
        os.chown(self.root, SERVICE_USER, SERVICE_USER)
        self.root.chmod(0o755)
        self._connection = libvirt.open(libvirtd.uri)
        self.guest = Guest(self._connection, iothreads=1)
        self.daemon = Daemon(
            self.root / "service",
            transport_url="fake://",
            connection_uri=uri or libvirtd.uri,
            host="compute-1",
            options=OPTIONS,
        )
        os.chown(self.root / "service", SERVICE_USER, SERVICE_USER)
        command = host.command(self.daemon.process.command, self.root / "mounts")
        self.daemon.process.command = command

    def __enter__(self):
        self.daemon.start()
        self.store = Store(self.daemon.state_path, create=False)
        return self

    def __exit__(self, *_):
        # A service with processes of its own gets no signal through unshare.
        self.daemon.kill()
        self.store.close()
        destroy(self.guest.domain)
        self._connection.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def set_request(self, **values):
        keys = {f"{metadata.PREFIX}{name.replace('_', '-')}": values[name] for name in values}
        request = Request(Source.OPERATOR, metadata.parse(keys), "a test", time.time())
        self.store.request(self.guest.uuid, request)

    def withdraw(self):
        self.store.withdraw(self.guest.uuid, Source.OPERATOR, "a test")

    def applied(self):
        return self._wait(lambda: self.record and self.record.status == "applied", "applied")

    def released(self):
        self._wait(lambda: self.record is None, "released")

    @property
    def record(self):
        return self.store.get(self.guest.uuid)

    def lines(self, level):
        found = re.findall(rf" {level} kongming\S* (?:\[.*?\] )?(.*)", self.daemon.log())
        return [line for line in found if "fake" not in line]

    def _wait(self, condition, what):
        try:
            wait_until(condition, 60, what)
        except TimeoutError as error:
            error.add_note(f"{self.record}\n{self.daemon.log()[-6000:]}")
            raise


def emulator_threads(guest):
    """The threads of QEMU that are neither vCPUs nor iothreads."""
    others = {*threads.vcpu_threads(guest.uuid).values(), *threads.iothreads(guest.uuid).values()}
    folder = threads.process_folder(guest.uuid) / "task"
    return {int(task.name) for task in folder.iterdir()} - others


def emulator(guest):
    return {threads.affinity(each) for each in emulator_threads(guest)}


def placed_and_released(story, cpus, hidden):
    """Go through the story.

    :param hidden: a part of why the emulator's threads can't be observed; None if they can.
    """
    guest, one, both = story.guest, frozenset(cpus[-1:]), frozenset(cpus)
    story.set_request(vcpu_pinning=str(cpus[-1]), emulator_pinning=str(cpus[-1]))
    story.applied()
    assert set(guest.affinity().values()) == emulator(guest) == {one}
    assert (hidden or "") in story.record.unobserved
    assert bool(hidden) == ("emulator pin can't be observed" in story.record.unobserved)

    # A group confines threads more than others can: only in a wider one can they be moved.
    listed = ",".join(map(str, cpus))
    story.set_request(vcpu_pinning=listed, emulator_pinning=listed)
    guest.wait_affinity(dict.fromkeys((0, 1), both))
    story.applied()
    guest.move_thread(0, cpus[0])
    threads.set_affinity(threads.emulator_thread(guest.uuid), cpus[:1])
    # libvirt reads these from the kernel itself.
    guest.wait_affinity(dict.fromkeys((0, 1), both))
    if hidden is None:
        wait_until(lambda: emulator(guest) == {both}, 30, "the emulator is moved back")
    else:
        assert frozenset(cpus[:1]) in emulator(guest)

    story.set_request(vcpu_pinning=str(cpus[-1]))
    guest.wait_on(cpus[-1])
    story.applied()
    story.withdraw()
    story.released()
    assert set(guest.affinity().values()) == {threads.online_cpus()}
    assert "Traceback" not in story.daemon.log()


def reported_once(story, text):
    (line,) = [line for line in story.lines("WARNING") if text in line]
    return line


@pytest.mark.parametrize(
    "name",
    [each if each in DEFAULT else pytest.param(each, marks=pytest.mark.slow) for each in HOSTS],
)
def test_a_guest_is_placed_and_released_on_a_host_with(libvirtd, cpus, name):
    host, hidden = HOSTS[name]
    with Story(libvirtd, host) as story:
        placed_and_released(story, cpus, hidden)
        if hidden is not None:
            assert hidden in reported_once(story, "The threads of guests can't be observed")
            line = next(each for each in story.lines("INFO") if "emulator pin" in each)
            assert "libvirt confirmed it" in line
            assert "observed on the threads" not in line
        else:
            assert not [each for each in story.lines("WARNING") if "threads of guests can" in each]


@stories("name", ["as it is", "its own processes"])
def test_the_tools_of_an_operator_name_unobserved_values(libvirtd, cpus, name):
    host, hidden = HOSTS[name]
    with Story(libvirtd, host) as story:
        story.set_request(emulator_pinning=str(cpus[-1]))
        story.applied()
        config = ("--config-file", str(story.daemon.conf))

        def run_json(program, *arguments):
            tool = str(Path(sys.executable).parent / program)
            command = host.command([tool, *config, *arguments], story.root / "mounts")
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return json.loads(done.stdout)

        shown = run_json("kongming-manage", "allocation", "show", story.guest.uuid, "-f", "json")
        assert (hidden or "") in shown["unobserved"]
        assert bool(shown["unobserved"]) is bool(hidden)
        checks = run_json("kongming-status", "upgrade", "check", "--json")["checks"]
        (found,) = [each for each in checks if each["check"] == "Observation"]
        assert (found["result"], (hidden or "are observed") in found["details"]) == (
            1 if hidden else 0,
            True,
        )


@pytest.mark.parametrize(
    "name",
    [
        "127.0.0.1",
        pytest.param("localhost", marks=pytest.mark.slow),
        pytest.param(socket.gethostname(), marks=pytest.mark.slow),
    ],
)
def test_a_libvirt_of_this_machine_that_is_named_by_tcp_is_on_this_machine(libvirtd, cpus, name):
    # Not every machine's own name has an address.
    named = over("/etc/hosts", f"127.0.0.1 localhost {socket.gethostname()}\n")
    with Story(libvirtd, OddHost([named]), libvirtd.tcp_uri(name)) as story:
        placed_and_released(story, cpus, None)
        assert any("is on this machine (libvirt reports" in each for each in story.lines("INFO"))
        assert not any("on another machine" in each for each in story.lines("WARNING"))


@pytest.mark.parametrize(
    "controllers",
    [pytest.param((), id="none"), pytest.param(("cpu",), id="cpu", marks=pytest.mark.slow)],
)
def test_without_the_cpuset_controller_all_threads_of_the_emulator_are_set(cpus, controllers):
    with running(controllers=controllers) as libvirtd:
        for host, uri in (
            (OddHost(), libvirtd.tcp_uri()),
            (OddHost(capabilities=UNIT), libvirtd.uri),
        ):
            with Story(libvirtd, host, uri) as story:
                placed_and_released(story, cpus, None)


@pytest.mark.slow
def test_no_file_of_the_kernel_is_needed(libvirtd, cpus, tmp_path):
    """Each file that the executor opens is denied, missing and odd once."""
    connection = libvirt.open(libvirtd.uri)
    guest = Guest(connection, iothreads=1)
    keys = dict.fromkeys(file_faults.PINNED, str(cpus[-1])) | {
        "cpu-shares": "500",
        "vcpu-quota": "50%",
        "numa-nodes": "0",
    }
    job = {"uri": libvirtd.uri, "guest": guest.uuid, "keys": keys, "cases": []}
    trace = tmp_path / "trace"
    (whole,) = results(file_faults.command(job, trace))
    assert (whole["status"], whole["unobserved"], whole.get("error")) == ("applied", "", None)
    opened = kernel_files(trace.read_text(), guest)
    # If it is less, what the executor opens was not observed.
    assert {f"{SYSTEM}/cpu/online", f"{SYSTEM}/node/has_memory", "/proc/stat"} <= opened
    assert len(opened) > 30

    job["cases"] = [(path, fault) for path in sorted(opened) for fault in file_faults.FAULTS]
    done = results(file_faults.command(job))
    destroy(guest.domain)
    connection.close()
    assert [(each["path"], each["fault"]) for each in done] == job["cases"]
    wrong = [each for each in done if not is_right(each, cpus[-1], whole["cpus"])]
    assert wrong == []
    # Whatever is denied is named, once.
    for each in done:
        warnings = [line for line in each["log"] if line.startswith("WARNING")]
        assert len(warnings) == len(set(warnings)), each


def results(command):
    done = run(command, 900)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def kernel_files(trace, guest):
    """The files of the kernel that were opened, but for what is about other processes."""
    begin = trace.index("allocations.sqlite")
    found = re.findall(r'openat\(AT_FDCWD, "((?:/sys|/proc)/[^"]+)", [^)]*\) = \d', trace[begin:])
    of_guest = {task.name for task in (threads.process_folder(guest.uuid) / "task").iterdir()}
    owners = [path.split("/")[2] for path in found]
    return {
        path.rstrip("/")
        for path, owner in zip(found, owners, strict=True)
        if owner in of_guest or not (owner.isdecimal() or owner == "self")
    }


def is_right(found, cpu, cpus):
    """The guest is placed, or what can't be had is refused with a reason; and it is released."""
    log = "\n".join(found["log"])
    if found.get("error") or not found.get("released") or "Traceback" in log or "ERROR" in log:
        return False
    if found["cpus"] != cpus or found["affinity"] != [[cpu]] * 2:
        return False
    return found["status"] == "applied" or (found["status"], bool(found["reason"])) == (
        "refused",
        True,
    )
