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

"""What the demonstrations and the testbed choose by what the machine is and allows."""

from pathlib import Path

import pytest

from kongming.tests.testbed import abilities, folder, namespace, qemu
from kongming.tests.testbed.abilities import Abilities, left_out, limits
from kongming.tests.testbed.cgroup import Cgroup
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.process import Process
from kongming.tests.testbed.session_libvirtd import SessionLibvirtd, private_libvirtd

READ_ONLY = Abilities(no_control_groups="/sys/fs/cgroup: Read-only file system")


def emulators(folder, *names):
    for name in names:
        (folder / name).touch()
    return folder / "qemu-system-x86_64"


def test_all_emulators_except_the_selected_one_are_masked(tmp_path):
    selected = emulators(tmp_path, "qemu-system-x86_64", "qemu-system-i386", "qemu-img")
    assert qemu.other_emulators(selected) == [tmp_path / "qemu-system-i386"]


def test_an_emulator_that_is_a_link_is_not_masked_by_the_name_of_its_target(tmp_path):
    selected = emulators(tmp_path, "qemu-system-amd64", "qemu-system-i386")
    selected.symlink_to("qemu-system-amd64")
    assert qemu.other_emulators(selected) == [tmp_path / "qemu-system-i386"]


def test_an_emulator_is_not_masked_by_a_link_that_leads_to_it(tmp_path):
    selected = emulators(tmp_path, "qemu-system-x86_64")
    (tmp_path / "qemu-system-amd64").symlink_to(selected.name)
    (tmp_path / "qemu-system-gone").symlink_to("nowhere")
    assert qemu.other_emulators(selected) == []


def test_an_emulator_is_not_masked_through_a_chain_of_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/qemu-real").touch()
    (tmp_path / "qemu-system-amd64").symlink_to("elsewhere/qemu-real")
    selected = tmp_path / "qemu-system-x86_64"
    selected.symlink_to("qemu-system-amd64")
    (tmp_path / "qemu-system-arm").symlink_to("qemu-system-aarch64")
    (tmp_path / "qemu-system-aarch64").touch()
    assert qemu.other_emulators(selected) == [tmp_path / "qemu-system-aarch64"]


@pytest.mark.parametrize("root", [True, False])
def test_qemus_user_is_configured_by_root_only(root):
    assert ('user = "root"' in qemu.qemu_conf(root=root, controllers=None)) == root


@pytest.mark.parametrize(
    ("controllers", "line"),
    [
        ((), "cgroup_controllers = []\n"),
        (("cpuset", "cpu"), 'cgroup_controllers = ["cpuset", "cpu"]\n'),
    ],
)
def test_the_controllers_of_guests_are_configured_in_libvirt(controllers, line):
    assert line in qemu.qemu_conf(root=True, controllers=controllers)


def test_no_controllers_are_configured_where_guests_get_every_controller():
    assert "cgroup_controllers" not in qemu.qemu_conf(root=True, controllers=None)


def test_full_abilities_start_a_libvirtd_with_control_groups(tmp_path):
    libvirtd = private_libvirtd(tmp_path, Abilities())
    assert type(libvirtd) is Libvirtd
    assert libvirtd.has_control_groups
    assert libvirtd.uri.startswith("qemu:///system?")


def test_no_control_groups_make_a_libvirtd_without(tmp_path):
    libvirtd = private_libvirtd(tmp_path, READ_ONLY)
    assert type(libvirtd) is Libvirtd
    assert not libvirtd.has_control_groups


def test_without_mounts_libvirtd_runs_for_one_user(tmp_path):
    # Even where control groups could be made: it could not be given any.
    libvirtd = private_libvirtd(tmp_path, Abilities(no_mounts="Operation not permitted"))
    assert type(libvirtd) is SessionLibvirtd
    assert not libvirtd.has_control_groups
    assert libvirtd.uri.startswith("qemu:///session?")


@pytest.mark.parametrize(
    ("abilities", "embedded", "nodes", "expected"),
    [
        (READ_ONLY, False, 2, "Read-only file system"),
        (READ_ONLY, True, 1, "Read-only file system"),
        (Abilities(), True, 2, "--services"),
        (Abilities(), False, 1, "single NUMA node"),
        (Abilities(), False, 2, None),
    ],
)
def test_a_missing_ability_is_one_line_with_its_reason(abilities, embedded, nodes, expected):
    line = left_out(abilities, embedded=embedded, nodes=nodes)
    assert (line is None) == (expected is None)
    if expected is not None:
        assert expected in line
        assert "\n" not in line


ADMIN, OTHERS = f"{1 << 21:016x}", f"{(1 << 21) - 1:016x}"


@pytest.mark.parametrize(
    ("capabilities", "root", "reason"),
    [
        (OTHERS, "/", "the capability CAP_SYS_ADMIN is missing"),
        (ADMIN, "/proc", "the root directory is not a mount point: mount --bind it on itself"),
        (ADMIN, "/", "unshare: not permitted"),
    ],
)
def test_a_refused_namespace_is_reported_with_its_reason_in_one_line(
    monkeypatch, tmp_path, capabilities, root, reason
):
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho first >&2\necho unshare: not permitted >&2\nexit 1\n")
    refusing.chmod(0o755)
    (tmp_path / "status").write_text(f"Name:\tpython\nCapEff:\t{capabilities}\n")
    (tmp_path / "mountinfo").write_text(f"21 1 0:20 / {root} rw - proc proc rw\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(namespace, "PROC", tmp_path)
    message = namespace.refusal()
    assert message.startswith(reason)
    assert "\n" not in message


def test_a_granted_namespace_is_no_refusal(monkeypatch, tmp_path):
    granting = tmp_path / "unshare"
    granting.write_text("#!/bin/sh\nexit 0\n")
    granting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert namespace.refusal() is None


INTEGRATION = Path(__file__).parents[1] / "integration"


def test_the_fixtures_that_need_mounts_exist():
    everything = "".join(file.read_text() for file in INTEGRATION.glob("*.py"))
    assert [name for name in abilities.FIXTURES if f"def {name}(" not in everything] == []


def test_only_refused_mounts_limit_what_is_tested():
    assert limits(Abilities()) is limits(READ_ONLY) is None
    line = limits(Abilities(no_mounts="the capability CAP_SYS_ADMIN is missing"))
    assert "(the capability CAP_SYS_ADMIN is missing): nova, tempest" in line
    assert "\n" not in line


def test_a_process_whose_log_has_gone_is_reported_as_ended(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    process = Process(["rm", "-r", str(folder)], folder / "ended.log")
    process.start()
    with pytest.raises(RuntimeError, match=r"(?s)ended before it serves: .*\(No such file"):
        process.wait_ready(lambda: False, 60, "it serves")


@pytest.fixture
def mounts(monkeypatch, tmp_path):
    """Lay control groups: the hierarchy's name → its kind."""

    def lay(**kinds):
        lines = []
        for name, kind in kinds.items():
            (tmp_path / name).mkdir()
            lines.append(f"cgroup {tmp_path / name} {kind} rw 0 0\n")
        (tmp_path / "mounts").write_text("".join(lines))
        monkeypatch.setattr("kongming.tests.testbed.cgroup.MOUNTS", tmp_path / "mounts")

    return lay


def test_the_controllers_of_a_group_are_those_of_both_versions(mounts, tmp_path):
    mounts(**{"cpu,cpuacct": "cgroup", "unified": "cgroup2"})
    group = Cgroup()
    (folder,) = (group for group in group.groups if group.parent.name == "unified")
    folder.mkdir()
    (folder / "cgroup.controllers").write_text("cpuset memory\n")
    assert group.controllers() == {"cpu", "cpuacct", "cpuset", "memory"}


def test_a_machine_without_control_groups_has_no_controllers(mounts):
    mounts()
    assert Cgroup().controllers() == set()


@pytest.mark.parametrize(
    ("neighbour", "then"), [("kongming-other", "+cpuset"), ("system.slice", "-cpuset")]
)
def test_a_controller_is_disabled_again_unless_another_testbed_has_a_group(
    mounts, tmp_path, neighbour, then
):
    mounts(unified="cgroup2")
    root = tmp_path / "unified"
    (root / "cgroup.controllers").write_text("cpuset memory\n")
    enabled = root / "cgroup.subtree_control"
    enabled.write_text("memory\n")
    group = Cgroup()
    group.create()
    assert enabled.read_text() == "+cpuset"
    (root / neighbour).mkdir()
    group.remove()
    assert enabled.read_text() == then


MUCH, LITTLE = folder.ROOM, folder.ROOM - 1


@pytest.mark.parametrize(
    ("free", "chosen"),
    [
        ({"a": MUCH, "b": MUCH}, "a"),
        ({"a": LITTLE, "b": MUCH}, "b"),
        ({"a": LITTLE, "b": LITTLE - 1}, "a"),
        ({"a": LITTLE - 1, "b": LITTLE}, "b"),
    ],
)
def test_the_first_folder_with_room_is_chosen(monkeypatch, free, chosen):
    monkeypatch.setattr(folder, "_is_writable", lambda _: True)
    assert folder.fit_folder(free, free.__getitem__) == chosen


def test_a_folder_that_cannot_be_written_is_not_chosen(tmp_path):
    missing = str(tmp_path / "missing")
    short = "/dev/shm"
    assert folder.fit_folder(["/proc", short], lambda _: MUCH) == short
    with pytest.raises(OSError, match="none of these can be written"):
        folder.fit_folder([missing, "/proc"], lambda _: MUCH)


def test_a_folder_whose_path_is_too_long_is_not_chosen(monkeypatch):
    monkeypatch.setattr(folder, "_is_writable", lambda _: True)
    fits, too_long = "/" + "x" * (folder.LONGEST - 1), "/" + "x" * folder.LONGEST
    assert folder.fit_folder([too_long, fits], lambda _: MUCH) == fits


def test_only_qemus_are_ended_by_their_pid_files(tmp_path, monkeypatch):
    proc = tmp_path / "proc"
    for process, comm in {"11": "qemu-system-x86\n", "12": "libvirtd\n"}.items():
        (proc / process).mkdir(parents=True)
        (proc / process / "comm").write_text(comm)
        (proc / process / "cmdline").write_bytes(b"")
    for name, content in {"a/guest.pid": "11", "driver.pid": "12", "no.pid": "x"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "gone.pid").write_text("13")
    killed = []
    monkeypatch.setattr(qemu, "PROC", proc)
    monkeypatch.setattr(qemu.os, "kill", lambda process, _: killed.append(process))
    qemu.end_guests(tmp_path)
    assert killed == [11]
