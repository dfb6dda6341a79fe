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

"""What tools/setup.sh does on machines of all kinds, with stand-ins for apt, pip and Python."""

from pathlib import Path
import shutil
import subprocess

import pytest

TOP = Path(__file__).resolve().parents[3]
FILES = ("tools/demo", "tools/setup.sh", "bindep.txt", "constraints.txt", "requirements.txt")
PROGRAMS: tuple[str, ...] = ("bash", "cat", "dirname", "env", "flock", "grep", "mkdir", "rm")
PROGRAMS += ("sed", "sha256sum", "sh", "tail", "true")
RELEASE = "3.13.5"
OFFLINE_APT = "echo 'Err: Temporary failure resolving'; echo 'E: Unable to locate gcc'; exit 100"
OFFLINE_PIP = "echo 'NewConnectionError: ...'; echo 'ERROR: No matching distribution'; exit 1"


class Machine:
    """A source tree, an empty virtual environment, and the few programs that there are."""

    def __init__(self, folder):
        self.tree = folder / "a tree"
        self.venv = self.tree / ".venv"
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name in PROGRAMS:
            (self._bin / name).symlink_to(shutil.which(name))
        for name in FILES:
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, self.tree / name)
        for name in ("test-requirements.txt", "setup.cfg", "doc/requirements.txt"):
            (self.tree / name).parent.mkdir(exist_ok=True)
            (self.tree / name).touch()
        self.python = self.program(
            "python",
            f'case "$2" in *executable*) echo "${{BASE:-$0}}";; *print*) echo {RELEASE};; esac',
        )
        self.user(0)
        self.program("dpkg", "exit 0")
        self.program("apt-get", "exit 0")
        self.program("git", "exit 128")

    def program(self, name, script):
        path = self._bin / name
        self._write(path, script)
        return path

    def user(self, number):
        self.program("id", f'if [ "$1" = -u ]; then echo {number}; else echo somebody; fi')

    def make_venv(self, *, missing="", pip="exit 0"):
        """Lay a virtual environment that is ready but for what is missing."""
        (self.venv / "bin").mkdir(parents=True)
        self._write(self.venv / "bin/bindep", f"printf '%s' '{missing}'")
        self.program_of_venv(pip)
        (self.venv / ".kongming-python").write_text(f"{self.venv} {RELEASE}\n")

    def program_of_venv(self, pip):
        # Called with -m pip, or with the demonstration.
        script = f'if [ "$1" = -m ]; then {pip}; else echo "shown: $*"; fi'
        self._write(self.venv / "bin/python", script)

    def demo(self, *arguments, shell='exec "$@"', **environment):
        return subprocess.run(
            ["bash", "-c", shell, "sh", str(self.tree / "tools/demo"), *arguments],
            env={"PATH": str(self._bin), "PYTHON": str(self.python), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def _write(self, path, script):
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def only_line(done):
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


def test_a_complete_machine_shows_the_demonstration_at_once(machine):
    machine.make_venv()
    first = machine.demo("--services")
    assert first.returncode == 0
    assert first.stdout.splitlines()[-1] == f"shown: {machine.tree}/tools/demo.py --services"
    # There is no question.
    machine.program_of_venv("exit 1")
    second = machine.demo()
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == f"shown: {machine.tree}/tools/demo.py\n"


def test_an_active_environment_is_not_created_again(machine):
    # It reports of itself what any Python does, and can't make an environment.
    script = (
        f'case "$*" in *venv*/.venv) exit 1;; *executable*) echo "$0";; *) echo {RELEASE}; esac'
    )
    base = machine.program("base", script)
    machine.make_venv()
    (machine.venv / ".kongming-python").write_text("another place\n")
    assert only_line(machine.demo(BASE=str(base))).startswith(f"ERROR: {base} -m venv failed")


def test_a_user_without_root_or_sudo_gets_one_line_with_the_commands(machine):
    machine.make_venv(missing="gcc qemu-system-x86")
    machine.user(1000)
    assert "'apt-get install gcc qemu-system-x86' as root" in only_line(machine.demo())


def test_a_user_with_sudo_installs_by_it(machine):
    machine.make_venv(missing="gcc")
    machine.user(1000)
    machine.program("sudo", f'echo "$@" >>"{machine.tree}/sudo.log"; exec "$@"')
    assert machine.demo().returncode == 0
    assert "apt-get" in (machine.tree / "sudo.log").read_text()


def test_a_refusal_of_sudo_is_shown_unchanged(machine):
    machine.make_venv(missing="gcc")
    machine.user(1000)
    machine.program("sudo", "echo 'sudo: a password is required'; exit 1")
    assert "sudo: a password is required" in only_line(machine.demo())


def test_a_machine_without_apt_gets_one_line(machine):
    machine.make_venv(missing="gcc")
    machine.program("apt-get", "").unlink()
    assert "not Debian" in only_line(machine.demo())


def test_apt_without_a_network_is_reported_in_one_line(machine):
    machine.make_venv(missing="gcc")
    machine.program("apt-get", OFFLINE_APT)
    line = only_line(machine.demo())
    assert "apt-get can't install gcc: the network can't be reached" in line
    assert str(machine.venv / "setup.log") in line


def test_apt_that_fails_for_another_reason_does_not_blame_the_network(machine):
    machine.make_venv(missing="gcc")
    machine.program("apt-get", "echo 'E: No space left on device'; exit 100")
    line = only_line(machine.demo())
    assert "E: No space left on device" in line
    assert "network" not in line


def test_pip_without_a_network_is_reported_in_one_line(machine):
    machine.make_venv(pip=OFFLINE_PIP)
    assert "pip install failed: the network can't be reached" in only_line(machine.demo())


def test_a_step_that_failed_is_completed_by_the_next_run(machine):
    machine.make_venv(pip=OFFLINE_PIP)
    assert machine.demo().returncode == 1
    machine.program_of_venv("exit 0")
    assert machine.demo().returncode == 0


@pytest.mark.parametrize("stamp", ["/elsewhere/.venv 3.13.5", "{venv} 3.11.2", None])
def test_a_virtual_environment_of_another_place_or_python_is_created_again(machine, stamp):
    machine.make_venv()
    (machine.venv / "pyvenv.cfg").touch()
    (machine.venv / "old").touch()
    if stamp is None:
        (machine.venv / ".kongming-python").unlink()
    else:
        (machine.venv / ".kongming-python").write_text(stamp.format(venv=machine.venv))
    done = machine.demo()
    assert not (machine.venv / "old").exists()
    # The stand-in makes none.
    assert "pip install failed" in only_line(done)


def test_a_virtual_environment_of_another_user_is_never_removed(machine, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").touch()
    machine.demo(KONGMING_VENV=str(other))
    assert (other / "precious").exists()


def test_the_packages_of_the_tests_are_enough_for_the_demonstration(machine):
    machine.make_venv()
    machine.demo()
    (machine.venv / ".kongming-run").rename(machine.venv / ".kongming-test")
    machine.program_of_venv("exit 1")
    assert machine.demo().returncode == 0


def test_changed_requirements_are_installed(machine):
    machine.make_venv()
    machine.demo()
    (machine.tree / "requirements.txt").write_text("six\n")
    machine.program_of_venv("echo 'ERROR: no six'; exit 1")
    assert "no six" in only_line(machine.demo())


def version_for(machine):
    """The version that the installation of the tree gets."""
    log = machine.tree / "version"
    machine.make_venv(pip=f'case "$*" in *" -e "*) echo "${{PBR_VERSION-git}}" >"{log}";; esac')
    assert machine.demo().returncode == 0
    return log.read_text().strip()


def test_a_clone_has_its_version_from_git_whoever_owns_it(machine):
    trusted = '[ "$GIT_CONFIG_KEY_0=$GIT_CONFIG_VALUE_0" = "safe.directory=$2" ] && echo "$2"'
    machine.program("git", trusted)
    assert version_for(machine) == "git"


def test_a_tarball_has_a_version_without_git(machine):
    assert version_for(machine) == "0.0.1"


def test_a_tarball_unpacked_in_another_clone_does_not_take_its_version(machine):
    machine.program("git", 'dirname "$2"')
    assert version_for(machine) == "0.0.1"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_has_no_effect(machine, closed):
    machine.make_venv()
    assert machine.demo(shell=f'exec "$@" {closed}').returncode == 0


def test_only_plain_text_is_written_to_a_pipe(machine):
    machine.make_venv()
    assert "\033" not in machine.demo().stdout


@pytest.mark.parametrize("arguments", [["--fast"], ["--services", "--standalone"]])
def test_an_unknown_option_is_answered_with_the_usage(machine, arguments):
    done = machine.demo(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "tools/demo --standalone" in done.stderr


def test_help_is_no_error(machine):
    done = machine.demo("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tools/demo --services" in done.stdout
