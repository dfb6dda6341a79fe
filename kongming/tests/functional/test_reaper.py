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

"""A command whose orphans are reaped, and that leaves none behind."""

from pathlib import Path
import signal
import subprocess
import sys

import pytest

from kongming.tests.testbed.process import patience, run, wait_until

REAPER = [sys.executable, "-m", "kongming.tests.testbed.reaper"]


def is_over(process):
    return not Path(f"/proc/{process}").exists()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -9 $$"], 137),
    ],
)
def test_the_exit_status_of_a_command_is_that_of_a_shell(command, status):
    assert subprocess.run([*REAPER, *command], check=False).returncode == status


def test_orphans_end_with_the_command():
    done = subprocess.run(
        [*REAPER, "sh", "-c", "(setsid sleep 1000 & echo $!); exit 5"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert is_over(done.stdout.strip())


def test_an_orphan_is_reaped_while_the_command_runs():
    # It waits until /proc shows its orphan no more, not even as a zombie.
    script = "orphan=$( (sh -c : & echo $!) ); while [ -e /proc/$orphan ]; do :; done"
    assert run([*REAPER, "sh", "-c", script]).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command(number):
    script = f"trap 'exit 7' {number.name.removeprefix('SIG')}; echo ready; while :; do :; done"
    with subprocess.Popen(
        [*REAPER, "sh", "-c", script],
        stdout=subprocess.PIPE,
        # What nohup has ignored no shell can trap.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(60 * patience()) == 7


def test_orphans_of_a_killed_command_end_too():
    with subprocess.Popen(
        [*REAPER, "sh", "-c", "setsid sleep 1000 & echo $! $$; wait"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        orphan, command = process.stdout.readline().split()
        subprocess.run(["kill", "-9", command], check=True)
        assert process.wait(60 * patience()) == 137
    wait_until(lambda: is_over(orphan), 10, "the orphan is over")
