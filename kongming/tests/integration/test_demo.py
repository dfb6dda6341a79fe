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

"""The demonstrations, as `tools/demo` runs them once all is set up."""

from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from kongming.tests.testbed.process import patience, run
from kongming.tests.thorough import stories

DEMO = Path(__file__).resolve().parents[3] / "tools/demo.py"
PROC = Path("/proc")
CONFINED = """
import os, sys
from kongming.tests.testbed import container
container.refuse_system_calls()
command = container.with_capabilities(sys.argv[1:])
os.execvp(command[0], command)
"""
MODES: list[list[str]] = [[], ["--services"], ["--standalone"]]


@pytest.fixture
def folder(monkeypatch):
    """Where the demonstrations keep their files, with a name that nobody else has."""
    # Not tmp_path: they don't take a folder whose path is long.
    path = Path(tempfile.mkdtemp(prefix="k-", dir="/var/tmp"))
    path.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(path))
    yield path
    shutil.rmtree(path)


def processes(folder):
    """The command lines that name a folder."""
    found = []
    for file in PROC.glob("[0-9]*/cmdline"):
        try:
            line = file.read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def nothing_is_left(folder):
    return not processes(folder) and not list(folder.iterdir())


@pytest.mark.parametrize("mode", MODES)
def test_a_demonstration_shows_threads_on_their_requested_cpus(mode, folder):
    done = run([sys.executable, DEMO, *mode], 300)
    assert (done.returncode, done.stderr) == (0, "")
    assert " right" in done.stdout
    assert "WRONG" not in done.stdout
    assert nothing_is_left(folder)


@pytest.mark.needs_mounts
@stories("mode", MODES)
def test_a_plain_container_is_shown_the_same_except_for_one_line(mode, folder):
    done = run([sys.executable, "-c", CONFINED, sys.executable, DEMO, *mode], 300)
    assert (done.returncode, done.stderr) == (0, "")
    (left_out,) = [line for line in done.stdout.splitlines() if line.startswith("Left out")]
    assert "CAP_SYS_ADMIN is missing" in left_out
    assert "WRONG" not in done.stdout
    assert nothing_is_left(folder)


@pytest.mark.needs_mounts
def test_tests_that_need_mounts_are_left_out_in_a_plain_container():
    selected = ["-m", "pytest", "-q", Path(__file__).with_name("test_controllers.py")]
    done = run([sys.executable, "-c", CONFINED, sys.executable, *selected])
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ deselected in ", done.stdout, re.MULTILINE)


@pytest.mark.needs_mounts
def test_a_plain_container_can_not_make_a_debian_root_and_says_why_in_one_line():
    command = ["-m", "kongming.tests.testbed.debian_root", "run", "bookworm", "true"]
    done = run([sys.executable, "-c", CONFINED, sys.executable, *command])
    why = "this machine can't mount file systems: the capability CAP_SYS_ADMIN is missing"
    assert (done.returncode, done.stderr) == (1, f"tools/debian-root: {why}\n")


@stories("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@stories(
    ("mode", "moment"),
    [
        ([], "-- Start a guest"),
        ([], "-- Nova sends instance.update"),
        (["--services"], "-- Start a libvirtd"),
        (["--services"], "-- Start a guest"),
    ],
    usual=3,
)
def test_an_interrupted_demonstration_leaves_no_process_behind(mode, moment, number, folder):
    with subprocess.Popen(
        [sys.executable, DEMO, *mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        while not demo.stdout.readline().startswith(moment):
            pass
        demo.send_signal(number)
        output = demo.stdout.read()
        assert demo.wait(60 * patience()) == 128 + number
    assert "Interrupted" in output
    assert "Traceback" not in output
    assert nothing_is_left(folder)


def test_a_demonstration_whose_story_is_killed_leaves_no_process_behind(folder):
    with subprocess.Popen(
        [sys.executable, DEMO], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        while not demo.stdout.readline().startswith("-- Nova sends"):
            pass
        children = PROC / f"{demo.pid}/task/{demo.pid}/children"
        subprocess.run(["kill", "-9", *children.read_text().split()], check=True)
        assert demo.wait(60 * patience()) == 128 + signal.SIGKILL
    assert nothing_is_left(folder)


def test_a_reader_that_goes_ends_the_demonstration_quietly(folder):
    with subprocess.Popen(
        [sys.executable, DEMO], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        demo.stdout.readline()
        demo.stdout.close()
        assert demo.wait(120 * patience()) == 128 + signal.SIGPIPE
        assert demo.stderr.read() == ""
    assert nothing_is_left(folder)


def test_a_full_disk_behind_stdout_is_reported_in_one_line(folder):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, DEMO], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    error, logs = done.stderr.splitlines()
    assert error == "ERROR: [Errno 28] No space left on device"
    assert logs.startswith("The logs are kept in ")
