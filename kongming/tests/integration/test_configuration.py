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

"""Wrong configurations and early signals, on real processes that need no other service."""

from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys

import pytest

from kongming.tests.testbed.daemon import CONDUCTOR, EXECUTOR, HANDLER, ServiceProcess
from kongming.tests.testbed.process import patience, run, wait_until

GOOD = """[DEFAULT]
host = compute-1
state_path = {folder}/state
transport_url = fake://
[libvirt]
connection_uri = test:///default
"""
SECRET = "Tr0ub4dor"
WRONG = {
    "executor-check_interval": "[executor]\ncheck_interval = soon",
    "executor-history_days": "[executor]\nhistory_days = -1",
    "conductor-poll_interval": "[conductor]\npoll_interval =",
    "guard-reserved_cpus": "[guard]\nreserved_cpus = 0-x",
    "guard-overlap": "[guard]\noverlap = never",
    "metrics-listen_port": "[metrics]\nlisten_port = many",
    "DEFAULT-debug": "[DEFAULT]\ndebug = maybe",
    "DEFAULT-log_config_append": "[DEFAULT]\nlog_config_append = /absent",
    "DEFAULT-log_dir": "[DEFAULT]\nlog_dir = /absent",
    "DEFAULT-log_file": "[DEFAULT]\nlog_file = /",
    "DEFAULT-syslog_log_facility": "[DEFAULT]\nuse_syslog = true\nsyslog_log_facility = x",
    "DEFAULT-default_log_levels": "[DEFAULT]\ndefault_log_levels = amqp=LOUD",
    "DEFAULT-logging_default_format_string": "[DEFAULT]\nlogging_default_format_string = %(x)s",
    "DEFAULT-transport_url": f"[DEFAULT]\ntransport_url = rabbit://u:{SECRET}#and3@h/",
    "oslo_messaging_notifications-transport_url": "[oslo_messaging_notifications]\n"
    f"transport_url = rabbit://u:{SECRET}$and3@h/",
    "oslo_messaging_rabbit-ssl_ca_file": "[oslo_messaging_rabbit]\nssl = 1\nssl_ca_file = /absent",
    "libvirt-connection_uri": "[libvirt]\nconnection_uri = quemu:///system",
    "-byte": b"# gr\xfcn",
    "-line": f"transport_url {SECRET}",
    "-section": "[guard",
}


def written(folder, more=""):
    more = more if isinstance(more, bytes) else more.encode()
    path = folder / "kongming.conf"
    path.write_bytes(GOOD.format(folder=folder).encode() + more + b"\n")
    return path


def program(name):
    return str(Path(sys.executable).with_name(name))


def is_one_line(text, path, key):
    section, _, option = key.partition("-")
    assert text.count("\n") == 1, text
    assert str(path) in text
    assert f"[{section}] {option}" in text or not section, text
    assert SECRET not in text
    assert "and3" not in text
    return True


def ends(folder, key, command):
    folder.mkdir()
    path = written(folder, WRONG[key])
    ended = run([program(command), "--config-file", path])
    return key, path, ended


def test_each_service_ends_with_2_and_one_line(tmp_path):
    commands = [HANDLER, EXECUTOR, CONDUCTOR]
    # The others are tried by a reload, which is quicker; the check is the same.
    jobs = [
        (tmp_path / str(number), key, commands[number % 3])
        for number, key in enumerate([*WRONG][::2])
    ]
    with ThreadPoolExecutor(4) as pool:
        for key, path, ended in pool.map(lambda job: ends(*job), jobs):
            assert ended.returncode == 2, (key, ended)
            assert ended.stdout == ""
            assert is_one_line(ended.stderr, path, key)


class Handler(ServiceProcess):
    """A handler, which the test starts itself."""

    def __init__(self, folder, more=""):
        super().__init__(folder, HANDLER, GOOD.format(folder=folder) + more)

    def start(self):
        pass

    def caught(self):
        """Whether the process has a handler for SIGTERM, as the kernel shows."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except FileNotFoundError:
            return False
        mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_reload_with_a_wrong_file_has_no_effect_and_stops_no_service(tmp_path):
    with Handler(tmp_path / "handler") as handler:
        handler.start_soon()
        handler.wait_ready()
        # The last line of its start.
        handler.wait_log("is on no machine")
        for number, (key, more) in enumerate(WRONG.items(), 1):
            before = len(handler.log())
            path = written(tmp_path / "handler", more)
            handler.reload()
            handler.wait_log("Configuration reload failed: ", times=number)
            assert is_one_line(handler.log()[before:], path, key)
        before = len(handler.log())
        written(tmp_path / "handler", "[gaurd]\nreserved_cpus = 0\n[guard]\nreserved_cpus = 0")
        handler.reload()
        handler.wait_log("Configuration reloaded")
        handler.wait_log(
            "Settings without effect: [gaurd] reserved_cpus, did you mean [guard] reserved_cpus?"
        )
        assert "Traceback" not in handler.log()
        assert handler.stop() == 0


def test_a_running_service_writes_a_report_on_request_and_goes_on(tmp_path):
    with Handler(tmp_path / "handler") as handler:
        handler.start_soon()
        handler.wait_ready()
        os.kill(handler.process.pid, signal.SIGUSR2)
        handler.wait_log("A report was written to the standard error")
        assert "Guru Meditation" in handler.log()
        assert "check_interval = " in handler.log()
        handler.reload()
        handler.wait_log("Configuration reloaded")
        assert handler.stop() == 0


def test_a_signal_is_not_lost_however_early_it_arrives(tmp_path):
    with Handler(tmp_path / "handler") as handler:
        # The installed program, whose modules are not loaded yet.
        handler.process.command = ["env", *handler.process.command]
        handler.start_soon()
        wait_until(handler.caught, 60, "there is a handler for SIGTERM")
        # It is there before the libraries are.
        assert "libvirt" not in Path(f"/proc/{handler.process.pid}/maps").read_text()
        handler.reload()
        handler.wait_ready()
        handler.wait_log("Configuration reloaded")
        assert handler.stop() == 0


def test_a_service_that_is_ended_early_ends_well(tmp_path):
    with Handler(tmp_path / "handler") as handler:
        # The installed program, whose modules are not loaded yet.
        handler.process.command = ["env", *handler.process.command]
        handler.start_soon()
        wait_until(handler.caught, 60, "there is a handler for SIGTERM")
        os.kill(handler.process.pid, signal.SIGTERM)
        assert handler.process._child.wait(60 * patience()) == 0
        assert "Traceback" not in handler.log()


@pytest.mark.needs_mounts
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces of processes")
def test_process_1_of_a_container_receives_signals(tmp_path):
    (tmp_path / "one").mkdir()
    path = written(tmp_path / "one")
    log = tmp_path / "log"
    with log.open("wb") as output:
        unshared = subprocess.Popen(
            [shutil.which("unshare"), "--pid", "--fork", program(HANDLER), "--config-file", path],
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: "Ready" in log.read_text(), 60, "it is ready")
        (first,) = Path(f"/proc/{unshared.pid}/task/{unshared.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGHUP)
        wait_until(lambda: "Configuration reloaded" in log.read_text(), 30, "it reloads")
        os.kill(int(first), signal.SIGTERM)
        assert unshared.wait(30 * patience()) == 0
    finally:
        unshared.kill()
