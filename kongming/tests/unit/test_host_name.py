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

"""Names of hosts: those that Nova takes are taken everywhere, others are refused with a reason."""

import argparse
import re

from hypothesis import example, given
from hypothesis import strategies as st
from oslo_config import cfg, types
import pytest

from kongming import exception
from kongming.allocation import host_name
from kongming.allocation.host_name import HostName
from kongming.api import operation
from kongming.bus import permissions
from kongming.bus.url import parse
from kongming.conf import default
from kongming.configuration import check
from kongming.manage import broker
from kongming.rpc import fields, keys
from kongming.rpc.bus import EXECUTOR
from kongming.rpc.signing import Signer
from kongming.tests.host_names import LONGEST, REFUSED, TAKEN

KEY = bytes(32)
HEX = "0123456789abcdef" * 2
FILE = """[DEFAULT]
{}
state_path = {}
[oslo_messaging_notifications]
transport_url = fake://
"""


@pytest.fixture
def problems(tmp_path):
    def problems(setting="", **options):
        path = tmp_path / "kongming.conf"
        path.write_text(FILE.format(setting, tmp_path))
        return list(check.read([f"--config-file={path}"]).problems(**options))

    return problems


@pytest.fixture
def of_machine(monkeypatch):
    """Return a function that gives the machine another name."""
    monkeypatch.setattr(default.OPTS[0], "default", None)

    def of_machine(name):
        monkeypatch.setattr("socket.gethostname", lambda: name)
        monkeypatch.setattr(default.OPTS[0], "default", host_name.of_machine())

    return of_machine


def test_the_examples_cover_enough_names():
    assert len(set(TAKEN)) >= 20
    assert len(set(REFUSED)) >= 10
    assert len(LONGEST) == 253


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_that_nova_accepts_is_accepted_everywhere(problems, tmp_path, name):
    found = problems(f"host = {name}")
    # The queue of notifications may need a name of its own.
    assert [each for each in found if "[notification_handler] pool" not in each] == []
    assert HostName()(name) == types.HostDomain()(name) == name
    assert fields.host_name(name) == name
    assert operation.HOST.value(name) == broker.host(name) == name
    path = tmp_path / "rpc.key"
    path.write_text(keys.written(keys.derive(KEY, name), name))
    read = keys.read(str(path), name)
    signed = Signer(read, name).sign(None, "snapshot", {})
    assert read.of(name) == (keys.derive(KEY, name),)
    assert signed is not None


@pytest.mark.parametrize("name", TAKEN)
def test_the_queues_of_a_host_are_unique_for_every_name(name):
    of_host = permissions.of_executor("user", name, "kongming")
    part = host_name.in_queues(name)
    queues = [f"{EXECUTOR.topic}.{part}", f"reply_{part}:{HEX}"]
    for queue in queues:
        assert len(queue.encode()) <= 255
        assert re.search(of_host.configure, queue)
    for other in TAKEN:
        theirs = permissions.of_executor("user", other, "kongming")
        may = any(re.search(theirs.configure, queue) for queue in queues)
        assert may is (other == name)


@pytest.mark.parametrize(("length", "cut"), [(200, False), (201, True), (253, True)])
def test_a_name_is_cut_only_where_it_is_too_long_for_a_queue(length, cut):
    names = [letter * length for letter in "ab"] + ["a" * (length - 1) + "b"]
    parts = [host_name.in_queues(name) for name in names]
    assert len(set(parts)) == 3
    assert all(len(part) == 200 for part in parts)
    assert (parts == names) is not cut


@pytest.mark.parametrize("name", [name for name in REFUSED if name.strip() == name])
def test_an_unusable_name_is_refused_with_the_rule(problems, name):
    (problem,) = problems(f"host = {name}")
    assert problem.startswith("[DEFAULT] host: ")
    assert "it must be a name that Nova accepts" in problem
    with pytest.raises(argparse.ArgumentTypeError, match="it must be a name that Nova accepts"):
        broker.host(name)


@pytest.mark.parametrize(
    "name", ["", "-c", "two words", "a/b", "a@b", "b\u00fcro", "c\n", "c" * 256]
)
def test_an_invalid_name_is_refused_from_every_source(name):
    with pytest.raises(exception.MessageInvalid, match="not the name of a host"):
        fields.host_name(name)
    with pytest.raises(exception.RequestInvalid, match="is not a host name"):
        operation.HOST.value(name)


@given(st.text("aZ0_-.:", max_size=12) | st.from_regex(r"[0-9a-fA-F:.]{1,20}", fullmatch=True))
@example("c1.example.org.")
def test_ascii_names_are_judged_as_nova_judges_them(name):
    try:
        expected = types.HostDomain()(name)
    except ValueError:
        with pytest.raises(ValueError, match="a name that Nova accepts"):
            HostName()(name)
    else:
        assert HostName()(name) == expected
        assert fields.host_name(expected) == expected


@pytest.mark.parametrize("name", ["compute_01", "c1.example.org", "localhost"])
def test_the_host_name_of_the_machine_is_the_default(problems, of_machine, name):
    of_machine(name)
    assert host_name.of_machine() == name
    assert problems() == []


@pytest.mark.parametrize("name", [*REFUSED, "\udcff\udcfe"])
def test_an_unusable_host_name_of_the_machine_is_reported_when_it_is_needed(
    problems, of_machine, name
):
    of_machine(name)
    assert host_name.of_machine() is None
    (problem,) = problems()
    assert problem.startswith("[DEFAULT] host is not set, and ")
    assert "set it to the value of host in this host's nova.conf" in problem
    assert problem.isascii()
    assert problems(of_the_api=True) == []
    assert problems("host = compute_01") == []


def test_a_machine_that_does_not_report_its_name_has_none(monkeypatch):
    def refused():
        raise OSError("refused")

    monkeypatch.setattr("socket.gethostname", refused)
    assert host_name.of_machine() is None


def test_the_name_of_a_host_is_that_of_its_configuration():
    conf = cfg.ConfigOpts()
    conf.register_opts(default.OPTS)
    conf.set_override("host", "compute_01")
    assert host_name.of(conf) == "compute_01"


@pytest.mark.parametrize(("length", "wrong"), [(246, False), (247, True)])
def test_a_host_whose_queue_name_would_be_too_long_is_refused_with_the_option_to_set(
    problems, length, wrong
):
    name = ("c" * (length - 192)) + f".{'c' * 63}" * 3
    found = problems(f"host = {name}")
    assert bool(found) is wrong
    for problem in found:
        assert problem.startswith("[notification_handler] pool: its default kongming.$host can't")


@pytest.mark.parametrize("name", ["rabbit_1", "_rabbit", "rabbit_", "r"])
def test_a_broker_may_have_a_name_with_underscores(name):
    assert parse("x", f"rabbit://u:p@{name}:5672/").hosts[0].hostname == name
