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

"""The operator's rules, as they are read from kongming.conf and nova.conf."""

from oslo_config import cfg
import pytest

from kongming import conf as kongming_conf
from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.configuration.rules import read_rules
from kongming.host.rules import NumaGuests, Overlap, Rules


@pytest.fixture
def read(tmp_path):
    """Read the rules of a kongming.conf whose [guard] is given."""

    def read(text):
        path = tmp_path / "kongming.conf"
        path.write_text(f"[guard]\n{text}\n")
        conf = cfg.ConfigOpts()
        kongming_conf.register_opts(conf)
        conf([f"--config-file={path}"], default_config_files=[], default_config_dirs=[])
        return read_rules(conf)

    return read


@pytest.fixture
def nova_conf(tmp_path):
    """Write a nova.conf with this cpu_dedicated_set, and give its path."""

    def write(value, name="nova.conf", group="compute"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"[{group}]\ncpu_dedicated_set = {value}\n")
        return path

    return write


def test_everything_is_allowed_by_default(read):
    rules = read("")
    assert rules == Rules()
    assert rules.allowed_cpus is None
    assert rules.overlap is Overlap.WARN
    assert rules.smt is Overlap.WARN


def test_the_rules_are_read(read):
    assert read(
        "allowed_cpus = 2-7,^4\nreserved_cpus = 2\nallowed_nodes = 0-1\n"
        "allowed_projects = p1, p2\noverlap = refuse\nsmt = allow"
    ) == Rules(
        allowed_cpus=CpuSet([2, 3, 5, 6, 7]),
        reserved_cpus=CpuSet([2]),
        allowed_nodes=CpuSet([0, 1]),
        allowed_projects=frozenset({"p1", "p2"}),
        overlap=Overlap.REFUSE,
        smt=Overlap.ALLOW,
    )


@pytest.mark.parametrize("option", ["allowed_cpus", "reserved_cpus", "allowed_nodes"])
def test_an_invalid_cpuset_is_named(read, option):
    with pytest.raises(exception.ConfigInvalid) as error:
        read(f"{option} = 0,7-5")
    assert str(error.value).startswith(f"[guard] {option}: item '7-5' at position 3 runs backw")
    assert error.value.reason == "config_invalid"


@pytest.mark.parametrize("option", ["overlap", "smt"])
def test_an_invalid_choice_is_named(read, option):
    with pytest.raises(exception.ConfigInvalid, match=rf"\[guard\]: .*option {option}.*maybe"):
        read(f"{option} = maybe")


@pytest.mark.parametrize(
    ("value", "cpus"), [("4-7,^6", {4, 5, 7}), (" 4 , ,5,", {4, 5}), ("", set())]
)
def test_the_dedicated_cpus_of_nova_are_read_from_its_configuration_file(
    read, nova_conf, value, cpus
):
    rules = read(f"nova_config_file = {nova_conf(value)}")
    assert rules.dedicated_cpus == cpus


def test_nova_need_not_dedicate_any_cpus(read, nova_conf):
    rules = read(f"nova_config_file = {nova_conf('4', group='other')}")
    assert rules.dedicated_cpus == CpuSet()


def test_the_last_of_several_values_wins_and_directories_count(read, nova_conf):
    first = nova_conf("1")
    folder = nova_conf("2", "nova.conf.d/10-cpus.conf").parent
    nova_conf("3", "nova.conf.d/20-more.conf")
    assert read(f"nova_config_file = {first},{folder}").dedicated_cpus == {3}
    assert read(f"nova_config_file = {folder},{first}").dedicated_cpus == {1}


def test_the_environment_of_kongming_does_not_apply_to_nova(read, nova_conf, monkeypatch):
    monkeypatch.setenv("OS_COMPUTE__CPU_DEDICATED_SET", "7")
    assert read(f"nova_config_file = {nova_conf('1')}").dedicated_cpus == {1}


def test_a_missing_nova_conf_is_named(read, tmp_path):
    with pytest.raises(exception.ConfigInvalid) as error:
        read(f"nova_config_file = {tmp_path}/absent.conf")
    assert "[guard] nova_config_file" in str(error.value)
    assert f"{tmp_path}/absent.conf" in str(error.value)


def test_a_broken_nova_conf_is_named_but_not_quoted(read, tmp_path):
    path = tmp_path / "nova.conf"
    path.write_text("[database]\nconnection secret\n")
    with pytest.raises(exception.ConfigInvalid) as error:
        read(f"nova_config_file = {path}")
    assert f"{path} is not a configuration file: see its line 2" in str(error.value)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_nova_conf_that_is_no_text_is_named(read, tmp_path):
    path = tmp_path / "nova.conf"
    path.write_bytes(b"[compute]\ncpu_dedicated_set = \xff\n")
    with pytest.raises(exception.ConfigInvalid, match="nova.conf can't be read"):
        read(f"nova_config_file = {path}")


@pytest.mark.parametrize("value", ["4-", "^4", "4,^4"])
def test_a_set_that_nova_would_refuse_is_refused(read, nova_conf, value):
    with pytest.raises(exception.ConfigInvalid) as error:
        read(f"nova_config_file = {nova_conf(value)}")
    assert "[compute] cpu_dedicated_set" in str(error.value)


def test_its_json():
    shown = Rules(allowed_cpus=CpuSet([1]), allowed_projects=frozenset("ba")).to_json()
    assert shown == {
        "allowed_cpus": "1",
        "reserved_cpus": "",
        "dedicated_cpus": "",
        "shared_cpus": "",
        "allowed_nodes": None,
        "allowed_projects": ["a", "b"],
        "overlap": "warn",
        "smt": "warn",
        "numa_guests": "within",
        "numa_across_cells": False,
    }


def test_the_json_of_an_older_host_lacks_cores_and_numa_guests():
    shown = Rules(numa_across_cells=True).to_json()
    for name in ("smt", "numa_guests", "numa_across_cells", "shared_cpus"):
        del shown[name]
    older = Rules.from_json(shown)
    assert older.smt is Overlap.ALLOW
    assert older.numa_guests is NumaGuests.REFUSE
    assert older.numa_across_cells is False
    assert older.shared_cpus == CpuSet()


def test_rules_about_numa_guests_are_the_same_after_their_json_form():
    rules = Rules(shared_cpus=CpuSet([1]), numa_guests=NumaGuests.REFUSE, numa_across_cells=True)
    assert Rules.from_json(rules.to_json()) == rules
