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

"""Standard streams that are closed, full or broken: one line or none, and the right status."""

import os
import subprocess
import sys

import pytest

from kongming.runtime import streams

# Run in a process of its own: what is done to its streams lasts.
PROGRAM = """
import os, sys
from kongming.runtime import streams

def main():
    {body}

sys.exit(streams.run("program", main))
"""
LONG = "print('x' * 100_000); return 0"
SHORT = "print('x'); return 0"
FULL = "program: the output can't be written: No space left on device\n"


def run(body, redirected="", *, env=None):
    """Run a program in a shell; return its status, output and messages."""
    command = f'exec "$0" -c "$1" {redirected}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, PROGRAM.format(body=body)],
        capture_output=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize("body", [SHORT, LONG])
@pytest.mark.parametrize(
    ("redirected", "status", "stderr"),
    [
        (">/dev/null", 0, ""),
        (">&-", 0, ""),
        ("<&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, FULL),
        (">/dev/full 2>/dev/full", 1, ""),
        (">/dev/full 2>&-", 1, ""),
    ],
)
def test_unwritable_output_is_one_line(body, redirected, status, stderr):
    done = run(body, redirected)
    assert (done[0], done[2]) == (status, stderr)


@pytest.mark.parametrize("body", [SHORT, LONG])
def test_a_closed_pipe_is_not_reported(body):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (streams.BROKEN_PIPE, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_stream(closed):
    body = "import socket; a, b = socket.socketpair(); return int(min(a.fileno(), b.fileno()) < 3)"
    assert run(body, closed)[0] == 0


def test_a_closed_standard_input_is_recognized():
    assert run("return 5 if sys.stdin is None else 0", "<&-")[0] == 5
    assert run("return 5 if sys.stdin is None else 0", "</dev/null")[0] == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [("return 3", 3), ("sys.exit(4)", 4), ("sys.exit()", 0), ("sys.exit('why')", 1)],
)
def test_the_exit_status_is_that_of_the_program(body, status):
    assert run(body)[0] == status


def test_no_text_fails_for_its_characters():
    env = {"PYTHONIOENCODING": "ascii"}
    status, output, stderr = run(
        "print('\u00b5'); print('\u2192', file=sys.stderr); return 0", env=env
    )
    assert (status, output, stderr) == (0, b"\\xb5\n", "\\u2192\n")


def test_a_library_does_not_report_it_as_its_error():
    body = "\n    ".join(
        ("try:", "    print('x' * 100_000)", "except Exception:", "    return 7", "return 0")
    )
    assert run(body, ">/dev/full") == (1, b"", FULL)


def test_the_width_of_a_terminal_is_detected_as_before():
    assert run("return sys.__stdout__.fileno()")[0] == 1
