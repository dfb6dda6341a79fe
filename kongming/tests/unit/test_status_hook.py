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

"""Whether the hook of libvirt is installed so that libvirt runs it."""

import os
from types import SimpleNamespace

from oslo_upgradecheck.upgradecheck import Code
import pytest

from kongming.status import hook

BOOTED = 1_000_000


@pytest.fixture
def host(tmp_path):
    """A host with a libvirtd that started at a moment, and a hook from another."""
    folder, proc = tmp_path / "hooks", tmp_path / "proc"
    folder.mkdir()
    (proc / "12").mkdir(parents=True)
    (proc / "13").mkdir()
    (proc / "self").mkdir()
    (proc / "stat").write_text(f"cpu 1 2\nbtime {BOOTED}\n")

    def process(pid, name, seconds):
        ticks = int(seconds * os.sysconf("SC_CLK_TCK"))
        fields = " ".join(["0"] * 18)
        (proc / str(pid) / "stat").write_text(f"{pid} ({name}) S {fields} {ticks} 0 0\n")

    def installed(mode=0o755):
        path = folder / hook.NAME
        path.write_text("#!/bin/true\n")
        path.chmod(mode)
        return path.stat().st_ctime - BOOTED

    return SimpleNamespace(
        look=lambda: hook.check_folder(folder, proc),
        process=process,
        installed=installed,
        proc=proc,
    )


def found(host):
    result = host.look()
    return result.code, result.details


def test_a_hook_that_libvirt_has_found_at_its_start_is_well(host):
    since = host.installed()
    host.process(12, "libvirtd", since + 5)
    host.process(13, "a) (virtqemud", since - 50)
    code, details = found(host)
    assert (code, details.endswith(" exists")) == (Code.SUCCESS, True)


@pytest.mark.parametrize("name", ["libvirtd", "virtqemud"])
def test_a_libvirt_that_started_before_is_to_be_restarted(host, name):
    since = host.installed()
    host.process(12, name, since - 5)
    code, details = found(host)
    assert code is Code.WARNING
    assert "restart libvirtd" in details


def test_the_daemon_that_started_last_counts(host):
    since = host.installed()
    host.process(12, "virtqemud", since - 5)
    host.process(13, "libvirtd", since + 5)
    assert found(host)[0] is Code.SUCCESS


def test_a_missing_hook_is_reported_with_its_consequences(host):
    code, details = found(host)
    assert code is Code.WARNING
    assert "can't be migrated to this host" in details
    assert "0755" in details


def test_a_hook_that_can_not_be_run_is_reported(host):
    host.process(12, "libvirtd", host.installed(0o644) + 5)
    code, details = found(host)
    assert code is Code.WARNING
    assert "chmod 0755" in details


@pytest.mark.parametrize("content", ["", "btime x\n", "cpu 1\n"])
def test_where_libvirt_is_not_visible_an_existing_hook_is_enough(host, content):
    host.installed()
    assert "is unknown here" in found(host)[1]
    host.process(12, "libvirtd", 5)
    (host.proc / "stat").write_text(content)
    code, details = found(host)
    assert (code, "is unknown here" in details) == (Code.SUCCESS, True)
