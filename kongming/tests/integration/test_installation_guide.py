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

"""The installation guide, followed command by command on a machine with a strict umask.

What it writes goes to a layer above this machine's folders, and away with the test.
"""

from itertools import takewhile
import json
import re
import shlex
import shutil
import subprocess

import pytest

from kongming.tests.testbed.pages import INSTALL, TOP, blocks, typed
from kongming.tests.testbed.process import find_program

pytestmark = pytest.mark.needs_mounts

PAGES = sorted(INSTALL.glob("*.rst"))
README = [TOP / "README.rst", TOP / "README.zh_CN.rst"]
GUIDE = INSTALL / "index.rst"
LAYERED = ("/etc", "/opt", "/usr", "/var")
CONF = """[DEFAULT]
transport_url = rabbit://u:p@127.0.0.1:1/
[libvirt]
connection_uri = test:///default
[oslo_messaging_notifications]
transport_url = rabbit://u:p@127.0.0.1:1/
"""
# What the machine of the test has already, or can't do in a namespace.
STANDS_IN = """
apt-get() { :; }
systemctl() { install -d -o kongming -g kongming -m 0750 /var/lib/kongming; }
virsh() { :; }
editor() { cat "$KONGMING_CONF" > "$1"; }
runuser() { case "$*" in *virsh*) ;; *) command runuser "$@" ;; esac; }
"""


def commands(page, until="5. Check the log"):
    """Return the commands that root types, up to a section."""
    return typed(takewhile(lambda block: block.section != until, blocks(page)))


@pytest.mark.parametrize("page", [*PAGES, *README], ids=lambda page: page.name)
def test_a_page_sets_the_umask_before_it_installs_files(page):
    lines = commands(page, until=None)
    installs = [at for at, line in enumerate(lines) if re.search(r"pip install|-m venv", line)]
    if installs and "/opt/kongming" in "".join(lines):
        assert "umask 022" in lines[: installs[0]]
    assert not [line for line in lines if line.startswith("cp ")], "its modes go by the umask"


@pytest.fixture
def machine(tmp_path):
    """Run lines of a shell above the folders of this machine, one after another."""
    source, conf = tmp_path / "source", tmp_path / "conf"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TOP / name, source / name)
    conf.write_text(CONF)
    layers = ["mount -t tmpfs none /mnt"]
    for folder in LAYERED:
        at = f"/mnt{folder}"
        options = f"lowerdir={folder},upperdir={at}/upper,workdir={at}/work"
        layers += [
            f"mkdir -p {at}/upper {at}/work",
            f"mount -t overlay none -o {options} {folder}",
        ]
    # As if nobody had ever installed it here.
    layers += [f"rm -rf {folder}/kongming" for folder in ("/etc", "/opt", "/var/lib")]

    def run(*lines):
        script = "\n".join(
            ["set -e", *layers, f"cd {source}", f"export KONGMING_CONF={conf}", STANDS_IN, *lines]
        )
        unshare = [find_program("unshare", "util-linux"), "--mount", "--propagation", "private"]
        # As a login of root's has them: nothing of the environment that the tests run in.
        kept = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        bare = ["env", "-u", "PYTHONPATH", "-u", "VIRTUAL_ENV", "PBR_VERSION=1.0", *kept]
        return run([*bare, *unshare, "bash", "-c", script], 900)

    return run


JUDGE = "kongming-status --config-file /etc/kongming/kongming.conf upgrade check --json"


@pytest.mark.slow
@pytest.mark.parametrize("umask", ["077", "027"])
def test_the_guide_leads_to_a_program_that_its_user_can_run(machine, umask):
    done = machine(
        f"umask {umask}",
        *(f"{line} >&2" for line in commands(GUIDE)),
        "runuser -u kongming -- /usr/bin/kongming-notification-handler --version >&2",
        "runuser -u kongming -- cat /etc/kongming/kongming.conf >/dev/null",
        "stat -c %a /etc/systemd/system/kongming-notification-handler.service",
        "stat -c '%a %U %G' /etc/kongming/kongming.conf",
        f"{JUDGE} || true",
    )
    assert done.returncode == 0, done.stderr
    unit, conf, report = done.stdout.splitlines()[-3:]
    assert (unit, conf) == ("644", "640 root kongming")
    checks = {each["check"]: each for each in json.loads(report)["checks"]}
    assert checks["Service's user"]["details"] == (
        "checked as user kongming (kongming-notification-handler.service)"
    )
    assert {name: checks[name]["result"] for name in ("Configuration", "State path")} == {
        "Configuration": 0,
        "State path": 0,
    }, checks


@pytest.mark.slow
def test_the_status_finds_files_installed_without_that_line(machine):
    lines = [line for line in commands(GUIDE) if line != "umask 022"]
    done = machine("umask 077", *(f"{line} >&2" for line in lines), f"{JUDGE} || true")
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout.splitlines()[-1])["checks"]
    assert only["result"] == 2
    assert "has user kongming, who can't run /opt/kongming/bin/python" in only["details"]
    assert "'chmod -R go+rX /opt/kongming'" in only["details"]


def test_the_commands_of_the_guide_are_found():
    lines = commands(GUIDE)
    for expected in ("umask 022", "python3 -m venv /opt/kongming", "systemctl daemon-reload"):
        assert expected in lines
    assert all(shlex.split(line) for line in lines)
