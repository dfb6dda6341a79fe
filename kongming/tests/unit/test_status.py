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

"""The checks of kongming-status, each on files of the test's own."""

from contextlib import contextmanager
from functools import partial
import os
from pathlib import Path
import sqlite3
import tempfile
import threading
import zoneinfo

import libvirt
from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Code
import pytest

from kongming import conf as kongming_conf
from kongming import exception
from kongming.allocation import metadata
from kongming.allocation.request import Request, Source
from kongming.executor.store.schema import SCHEMA_VERSION
from kongming.executor.store.store import FILE_NAME, Store
from kongming.notification.event_store import FILE_NAME as MEMORY
from kongming.notification.event_store import EventStore
from kongming.notification.last_events import LastEvents
from kongming.status import (
    broker,
    cgroup,
    configuration,
    cpus,
    finding,
    host,
    hypervisor,
    nova,
    observation,
    queues,
    state,
    timezones,
)
from kongming.tests.libvirt_errors import error as libvirt_error
from kongming.tests.unit.machine import Machine

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
NOBODY = 65534
NOVA = """
[DEFAULT]
host = compute-1
transport_url = rabbit://nova:topsecret@10.0.0.1/
[notifications]
notification_format = both
notify_on_state_change = vm_state
[oslo_messaging_notifications]
driver = messagingv2
"""


@pytest.fixture
def configured(tmp_path):
    """Return a function that reads a kongming.conf."""

    def configured(text=""):
        path = tmp_path / "kongming.conf"
        path.write_text(f"[DEFAULT]\nhost = compute-1\nstate_path = {tmp_path}/state\n{text}")
        conf = cfg.ConfigOpts()
        kongming_conf.register_opts(conf)
        conf([f"--config-file={path}"], project="kongming")
        return conf

    return configured


@pytest.fixture
def state_path(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    return path


def run(check, conf):
    result = finding.run(check, conf)
    return result.code, result.details


def look(base):
    result = finding.run(lambda _conf: cgroup.check_mounts(base), cfg.ConfigOpts())
    return result.code, result.details


def test_the_worst_finding_counts_and_comes_first():
    found = (finding.good("a"), finding.bad("b"), finding.doubtful("c"))
    assert run(lambda _conf: iter(found), None) == (Code.FAILURE, "b; c; a")


def test_a_hanging_check_is_not_waited_for():
    never = threading.Event()

    def check(_conf):
        yield finding.good("first")
        never.wait()

    result = finding.run(check, None, timeout=0.1)
    never.set()
    assert result.code is Code.FAILURE
    assert result.details == "the check did not finish within 0.1 s: find out what hangs; first"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exception.Failed("rabbit://u:topsecret@host: no"), "rabbit://***@host: no"),
        (RuntimeError("topsecret"), "a fault of Kongming: please report this RuntimeError"),
        (
            cfg.Error("topsecret"),
            "not checked: an option that this check needs is invalid, see above",
        ),
    ],
)
def test_an_error_is_a_finding_without_credentials(error, expected):
    def check(_conf):
        yield from ()
        raise error

    assert run(check, None) == (Code.FAILURE, expected)


def test_a_valid_configuration(configured):
    assert run(configuration.check, configured())[0] is Code.SUCCESS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[guard]\nreserved_cpus = 0-x", "[guard] reserved_cpus: item '0-x'"),
        ("[executor]\nworkers = many", "[executor] workers: "),
        ("[guard]\nnova_config_file = /absent", "/absent"),
        ("[DEFAULT]\nlog_config_append = /absent", "[DEFAULT] log_config_append: /absent"),
        ("[DEFAULT]\nlog_dir = /absent", "there is no directory /absent"),
        ("[DEFAULT]\ndefault_log_levels = amqp=LOUD", "[DEFAULT] default_log_levels: "),
        ("[DEFAULT]\ndebug = maybe", "[DEFAULT] debug: 'maybe'"),
        ("[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = /absent", "ssl_ca_file: /absent"),
        ("[oslo_messaging_rabbit]\nssl = true\nssl_version = TLSv1_3", "ssl_version: "),
        (
            "[DEFAULT]\ntransport_url = rabbit://u:topsecret%2Fx@h/",
            "can't log in if user or password has a /",
        ),
    ],
)
def test_options_that_a_service_would_refuse_are_a_failure(configured, text, expected):
    code, details = run(configuration.check, configured(text))
    assert code is Code.FAILURE
    assert expected in details
    assert "the service does not start with it" in details
    assert "topsecret" not in details


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[gaurd]\nreserved_cpus = 0",
            "[gaurd] reserved_cpus, did you mean [guard] reserved_cpus",
        ),
        ("[oslo_messaging_rabbit]\nrabbit_quorum_queues = 1", "rabbit_quorum_queue?"),
    ],
)
def test_an_unread_option_is_a_warning(configured, text, expected):
    code, details = run(configuration.check, configured(text))
    assert code is Code.WARNING
    assert details.startswith("unknown option, ignored: ")
    assert expected in details


def test_no_configuration_file_is_doubtful():
    conf = cfg.ConfigOpts()
    kongming_conf.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    code, details = run(configuration.check, conf)
    assert code is Code.WARNING
    assert details.startswith("no kongming.conf was found")


def listing(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_state_path_that_is_yet_to_be_made_is_not_made(configured, tmp_path):
    code, details = run(state.check, configured())
    assert code is Code.SUCCESS
    assert "no database exists yet" in details
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("running", [True, False])
def test_an_intact_database_is_unchanged(configured, state_path, running):
    store = Store(state_path)
    if not running:
        store.close()
    before = listing(state_path)
    code, details = run(state.check, configured())
    assert code is Code.SUCCESS
    assert "the database is intact" in details
    assert listing(state_path).keys() == before.keys()
    assert before[FILE_NAME] == listing(state_path)[FILE_NAME]
    store.close()


def test_a_database_of_another_version(configured, state_path):
    path = state_path / FILE_NAME
    Store(state_path).close()
    for version, code, expected in (
        (SCHEMA_VERSION + 1, Code.FAILURE, "newer Kongming"),
        (SCHEMA_VERSION - 1, Code.SUCCESS, f"to {SCHEMA_VERSION} when it starts"),
    ):
        db = sqlite3.connect(path)
        db.execute(f"PRAGMA user_version = {version}")
        db.close()
        found, details = run(state.check, configured())
        assert found is code
        assert expected in details
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
        db.close()


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_database(configured, state_path, whole):
    path = state_path / FILE_NAME
    Store(state_path).close()
    content = path.read_bytes()
    path.write_bytes(b"x" * 5000 if whole else content[:4096] + b"\xff" * (len(content) - 4096))
    code, details = run(state.check, configured())
    assert code is Code.FAILURE
    assert "is damaged" in details
    assert "move the file elsewhere" in details


def test_a_state_path_that_is_a_file(configured, tmp_path):
    (tmp_path / "state").write_text("")
    code, details = run(state.check, configured())
    assert code is Code.FAILURE
    assert f"{tmp_path}/state is not a directory" in details


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("mode", "state_path", "expected"),
    [
        (0o755, "", "is not writable by user nobody"),
        (0o755, "state", "can't be created: "),
        (0o700, "state", "Permission denied for user nobody"),
    ],
)
def test_a_state_path_of_another_user_is_a_failure(configured, mode, state_path, expected):
    conf = configured()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        conf.set_override("state_path", str(Path(folder, state_path)))
        os.seteuid(NOBODY)
        try:
            code, details = run(state.check, conf)
        finally:
            os.seteuid(0)
    assert code is Code.FAILURE
    assert expected in details


def tree(base, **files):
    for name, text in files.items():
        path = base / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_control_groups_of_version_1(tmp_path):
    assert look(tmp_path)[0] is Code.FAILURE
    tree(tmp_path, cpu__tasks="", memory__tasks="")
    code, details = look(tmp_path)
    assert code is Code.FAILURE
    assert "(v1) lack the controller cpuset:" in details
    tree(tmp_path, cpuset__tasks="")
    assert look(tmp_path) == (Code.SUCCESS, "cpu and cpuset are available (cgroup v1)")


def test_control_groups_of_version_1_that_are_mounted_together(tmp_path):
    (tmp_path / "cpu,cpuacct").mkdir()
    (tmp_path / "cpu,cpuacct/tasks").write_text("")
    tree(tmp_path, cpuset__tasks="")
    assert look(tmp_path)[0] is Code.SUCCESS


def test_control_groups_of_version_2(tmp_path):
    offered = tmp_path / "cgroup.controllers"
    offered.write_text("io memory\n")
    assert "(v2) lack the controller cpu and cpuset:" in look(tmp_path)[1]
    offered.write_text("cpuset cpu io memory\n")
    assert look(tmp_path) == (Code.SUCCESS, "cpu and cpuset are available (cgroup v2)")


def test_control_groups_without_controllers_differ_from_missing_ones(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("")
    code, details = look(tmp_path)
    assert (code, "(v2) lack the controller cpu and cpuset" in details) == (Code.FAILURE, True)


def test_named_hierarchies_have_no_controllers(tmp_path):
    tree(tmp_path, systemd__tasks="")
    assert "(v1) lack the controller cpu and cpuset" in look(tmp_path)[1]


def test_control_groups_of_both_versions_are_taken_together(tmp_path):
    tree(tmp_path, cpu__tasks="", unified__cgroup_dot_controllers="cpuset\n")
    assert look(tmp_path) == (Code.SUCCESS, "cpu and cpuset are available (cgroup v2)")
    tree(tmp_path, unified__cgroup_dot_controllers="io\n")
    assert "(v1 and v2) lack the controller cpuset" in look(tmp_path)[1]


def test_control_groups_that_cannot_be_listed_are_doubtful(tmp_path):
    code, details = look(tmp_path / "absent")
    assert (code, "can't be listed (No such file" in details) == (Code.WARNING, True)


def findings(look, machine):
    return [(each.code, each.details) for each in look(machine.hypervisor)]


@pytest.mark.parametrize(
    ("version", "controllers", "code", "expected"),
    [
        (1, ("cpu", "cpuset"), Code.SUCCESS, "have cpu and cpuset"),
        (2, ("cpu", "cpuset"), Code.SUCCESS, "have cpu and cpuset"),
        (2, ("cpu",), Code.WARNING, "lacks the controller cpuset: check cgroup_controllers"),
        (1, ("cpuset",), Code.WARNING, "lacks the controller cpu: check"),
        (None, (), Code.WARNING, "lacks the controller cpu and cpuset: check"),
    ],
)
def test_the_groups_of_running_guests_are_checked(tmp_path, version, controllers, code, expected):
    machine = Machine(tmp_path, version=version, controllers=controllers)
    ((found, details),) = findings(cgroup.of_guests, machine)
    assert (found, expected in details) == (code, True)
    machine.vanish()
    assert findings(cgroup.of_guests, machine) == []


def test_a_guest_that_is_observed_is_good(tmp_path):
    machine = Machine(tmp_path)
    ((code, details),) = findings(observation.check_host, machine)
    assert code is Code.SUCCESS
    assert details.endswith("reports the same CPU time); the threads of its guests are observed")
    machine.connection.domain = None
    machine.hypervisor.invalidate()
    ((code, details),) = findings(observation.check_host, machine)
    assert (code, "no guest runs here" in details) == (Code.SUCCESS, True)


def test_an_unobservable_or_unreadable_value_is_a_warning(tmp_path):
    machine = Machine(tmp_path)
    (tmp_path / "system/cpu/online").write_text("0-1\n")
    (machine.proc / "self").rename(tmp_path / "self")
    machine.vanish()
    found = findings(observation.check_host, machine)
    assert {code for code, _details in found} == {Code.WARNING}
    report = " ".join(details for _code, details in found)
    assert "CPU 0-1 of 4 online, libvirt shows CPU 0-3 of 4" in report
    assert report.count("there is no") == 1


def test_a_guest_that_is_not_found_and_a_remote_guest_are_warnings(tmp_path):
    machine = Machine(tmp_path)
    machine.vanish()
    ((code, details),) = findings(observation.check_host, machine)
    assert (code, "a guest can't be observed (no process in" in details) == (Code.WARNING, True)
    machine.connection.counted = 0
    machine.hypervisor.invalidate()
    found = findings(observation.check_host, machine)
    assert "on another machine (" in found[0][1]
    assert len(found) == 2


def test_an_unresponsive_libvirt_is_waited_for_once(configured, monkeypatch):
    calls = []

    @contextmanager
    def unresponsive(uri, _timeout):
        calls.append(uri)
        raise exception.HypervisorUnavailable("it did not answer")
        yield

    monkeypatch.setattr(host, "_unavailable", set())
    monkeypatch.setattr(host.session, "read_write", unresponsive)
    monkeypatch.setattr(host.session, "inspect", unresponsive)
    conf = configured("[libvirt]\nconnection_uri = test:///hangs")
    assert run(hypervisor.check, conf) == (Code.FAILURE, "it did not answer")
    for check in (observation.check, cgroup.check, cpus.check):
        assert run(check, conf) == (Code.SUCCESS, observation.NOT_CHECKED)
    assert calls == ["test:///hangs"]


def test_where_libvirt_is_unavailable_its_host_is_not_checked(configured):
    conf = configured("[libvirt]\nconnection_uri = test:///absent.xml")
    for check in (observation.check, cgroup.check, cpus.check):
        code, details = run(check, conf)
        assert (code, details) == (Code.SUCCESS, observation.NOT_CHECKED)


def test_remote_guests_have_remote_control_groups(configured):
    conf = configured("[libvirt]\nconnection_uri = test:///default")
    for check in (observation.check, cgroup.check, cpus.check):
        assert run(check, conf)[1].startswith("not checked")


class Connection:
    """A libvirt whose calls that need write are refused by these errors, or by others."""

    def __init__(self, refuses=None, domain_refuses=None, domains=1):
        self._refuses = refuses or libvirt_error(libvirt.VIR_ERR_INVALID_ARG)
        self._domain_refuses = domain_refuses or libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID)
        self._domains = domains

    def domainXMLToNative(self, _format, _domain):  # noqa: N802
        raise self._refuses

    def listAllDomains(self):  # noqa: N802
        return [self] * self._domains

    def managedSaveDefineXML(self, _xml):  # noqa: N802
        raise self._domain_refuses


DENIED = libvirt_error(libvirt.VIR_ERR_ACCESS_DENIED)
READ_ONLY = libvirt_error(libvirt.VIR_ERR_OPERATION_DENIED)


@pytest.mark.parametrize(
    ("connection", "codes", "expected"),
    [
        (Connection(), [], ""),
        (Connection(domains=0), [], ""),
        (Connection(READ_ONLY, domains=0), [Code.FAILURE], "the connection is read-only"),
        (Connection(READ_ONLY, READ_ONLY), [Code.FAILURE], "the connection is read-only"),
        # The right to change domains is another one than the right to write at all.
        (Connection(DENIED), [], ""),
        (Connection(DENIED, domains=0), [Code.WARNING], "because libvirt shows no guest"),
        (Connection(DENIED, DENIED), [Code.FAILURE], "access control"),
        (Connection(None, DENIED, domains=2), [Code.FAILURE], "access control"),
    ],
)
def test_the_permission_of_libvirt_to_change_guests_is_checked(connection, codes, expected):
    found = list(hypervisor.may_write(connection))
    assert [each.code for each in found] == codes
    assert expected in "".join(each.details for each in found)


@pytest.fixture
def with_nova(configured, tmp_path):
    """Return a function that checks with a nova.conf."""

    def with_nova(text, more=""):
        path = tmp_path / "nova.conf"
        path.write_text(text)
        return run(nova.check, configured(f"{more}\n[guard]\nnova_config_file = {path}"))

    return with_nova


def test_a_complete_nova_conf_is_a_success(with_nova):
    assert with_nova(NOVA)[0] is Code.SUCCESS
    assert with_nova(NOVA.replace("both", "versioned"))[0] is Code.SUCCESS


@pytest.mark.parametrize(
    ("here", "there", "code", "expected"),
    [
        ("notification_format = both", "", Code.FAILURE, "notification_format is unversioned"),
        ("driver = messagingv2", "", Code.FAILURE, "driver is not set"),
        ("driver = messagingv2", "driver = noop", Code.FAILURE, "driver is not set"),
        ("notify_on_state_change = vm_state", "", Code.WARNING, "does not notify"),
        ("host = compute-1", "host = compute-2", Code.FAILURE, "host is compute-2, here it is"),
        ("host = compute-1", "host = compute-1\ncontrol_exchange = x", Code.FAILURE, "exchange"),
        (
            "[notifications]",
            "[notifications]\nversioned_notifications_topics = x",
            Code.FAILURE,
            "versioned_notifications_topics is x",
        ),
    ],
)
def test_missing_options_of_a_nova_conf_are_named(with_nova, here, there, code, expected):
    found, details = with_nova(NOVA.replace(here, there))
    assert found is code
    assert expected in details
    assert "topsecret" not in details


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (
            "[notifications]\nnotification_format = both",
            "notification_format = both\n[notifications]",
        ),
        ("notify_on_state_change = vm_state", "[DEFAULT]\nnotify_on_state_change = vm_state"),
        ("driver = messagingv2", "[DEFAULT]\nnotification_driver = messagingv2"),
        ("host = compute-1", "host = $my_ip\nmy_ip = compute-1"),
        ("host = compute-1", "host = ${place.name}-1\n[place]\nname = compute\n[DEFAULT]"),
    ],
)
def test_a_nova_conf_is_read_as_nova_reads_it(with_nova, here, there):
    assert here in NOVA
    assert with_nova(NOVA.replace(here, there))[0] is Code.SUCCESS


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("oslo_messaging_notifications", "topics"),
        ("rpc_notifier2", "topics"),
        ("DEFAULT", "notification_topics"),
    ],
)
def test_the_topics_of_novas_old_notifications_have_had_other_names(with_nova, group, name):
    legacy = "[notification_handler]\ntrigger = legacy\ntopics = "
    written = f"{NOVA}[{group}]\n{name} = audit,kongming\n"
    assert with_nova(written, f"{legacy}kongming")[0] is Code.SUCCESS
    code, details = with_nova(written, f"{legacy}notifications")
    assert code is Code.FAILURE
    assert "[oslo_messaging_notifications] topics is audit, kongming: " in details


def test_an_unnamed_host_is_reported_with_its_option(with_nova):
    code, details = with_nova(NOVA.replace("host = compute-1", "host = $nobody"))
    assert code is Code.FAILURE
    assert "[DEFAULT] host refers to an option that is not set" in details
    code, details = with_nova(NOVA.replace("host = compute-1", "host = $my_ip"))
    assert code is Code.FAILURE
    assert "[DEFAULT] host is " in details
    assert "$" not in details


def test_a_routing_driver_is_not_reported_as_missing(with_nova):
    code, details = with_nova(NOVA.replace("driver = messagingv2", "driver = routing"))
    assert code is Code.WARNING
    assert "driver is routing" in details


NEAR = "[DEFAULT]\ntransport_url = rabbit://me:topsecret@b1,me:topsecret@b2:5671/nova"


@pytest.mark.parametrize(
    ("theirs", "code", "expected"),
    [
        ("rabbit://u:topsecret@b2:5671/nova", Code.SUCCESS, ""),
        ("rabbit://u:topsecret@b1:5672/nova", Code.SUCCESS, ""),
        ("rabbit://u:topsecret@b1/", Code.FAILURE, "the virtual host /, and"),
        ("rabbit://u:topsecret@b1/nova-2", Code.FAILURE, "the virtual host nova-2, and"),
        ("rabbit://u:topsecret@b2/nova", Code.WARNING, "go to b2:5672, and"),
        ("rabbit://u:topsecret@b3,u:topsecret@b4:1/nova", Code.WARNING, "b3:5672, b4:1, and"),
        ("rabbit://u:topsecret@b1:x/nova", Code.WARNING, "transport_url can't be read"),
        ("rabbit://u:12/topsecret@b1/nova", Code.WARNING, "it is not compared"),
        ("rabbit://u:12?topsecret@b1/nova", Code.WARNING, "as %3F; it is not"),
    ],
)
@pytest.mark.parametrize("group", ["DEFAULT", "oslo_messaging_notifications"])
def test_a_broker_that_nova_does_not_send_to_is_reported(with_nova, group, theirs, code, expected):
    nova_conf = f"{NOVA}\n[{group}]\ntransport_url = {theirs}\n"
    found, details = with_nova(nova_conf, NEAR)
    assert found is code
    assert expected in details
    assert "topsecret" not in details
    if group != "DEFAULT":
        # It overrides the general one.
        general = nova_conf + "[DEFAULT]\ntransport_url = rabbit://x@elsewhere/other\n"
        assert with_nova(general, NEAR)[0] is code


def test_an_invalid_nova_conf_is_a_failure(with_nova):
    code, details = with_nova("topsecret is here")
    assert code is Code.FAILURE
    assert "can't be read" in details
    assert "topsecret" not in details


@pytest.fixture
def event_store(state_path):
    event_store = EventStore(state_path)
    yield event_store
    event_store.close()


def test_any_event_of_this_host_proves_that_nova_emits_them(configured, event_store):
    assert run(nova.check, configured())[0] is Code.WARNING
    event_store.save(UUID, LastEvents())
    assert run(nova.check, configured())[0] is Code.SUCCESS


@pytest.mark.parametrize(
    ("instance", "code", "expected"),
    [
        (UUID, Code.FAILURE, f"Instance {UUID} of host "),
        ("", Code.WARNING, "If both names mean this host"),
    ],
)
def test_a_similar_host_is_reported(configured, event_store, instance, code, expected):
    event_store.add_similar_host("compute-1.example.org", instance)
    found, details = run(nova.check, configured())
    assert found is code
    assert expected in details
    assert "'compute-1.example.org'" in details
    assert "[DEFAULT] host is 'compute-1'" in details
    assert "not known whether" not in details
    event_store.clear_similar_hosts()
    assert "'compute-1.example.org'" not in run(nova.check, configured())[1]


def test_a_similar_host_is_reported_beside_problems_of_nova_conf(with_nova, event_store):
    event_store.add_similar_host("Compute-1", "")
    code, details = with_nova(NOVA.replace("driver = messagingv2", ""))
    assert code is Code.FAILURE
    assert "'Compute-1'" in details
    assert "driver is not set" in details


def test_a_damaged_memory_proves_no_events(configured, state_path):
    (state_path / MEMORY).write_bytes(b"x" * 5000)
    assert run(nova.check, configured())[0] is Code.WARNING


def test_without_nova_conf_received_events_count(configured, state_path):
    assert run(nova.check, configured())[0] is Code.WARNING
    store = Store(state_path)
    requested = metadata.parse({"kongming-vcpu-pinning": "1"})
    store.request(UUID, Request(Source.OPERATOR, requested, "somebody", 1.5))
    assert run(nova.check, configured())[0] is Code.WARNING
    store.request(UUID, Request(Source.METADATA, requested, "somebody", 1.5))
    assert run(nova.check, configured())[0] is Code.SUCCESS
    store.close()


@pytest.mark.parametrize(
    ("url", "code", "expected"),
    [
        ("rabbit://u:topsecret@h:port/", Code.FAILURE, "can't be used"),
        ("hare://u:topsecret@h/", Code.FAILURE, "can't be used"),
        ("fake://", Code.WARNING, "leads to fake"),
        ("rabbit://", Code.FAILURE, "names no host"),
    ],
)
def test_a_transport_url_that_leads_nowhere(configured, url, code, expected):
    conf = configured(
        f"[DEFAULT]\ntransport_url = {url}\n[oslo_messaging_notifications]\ntransport_url = {url}"
    )
    for check, option in (
        (broker.check_notifications, "[oslo_messaging_notifications] transport_url"),
        (partial(broker.check_calls, of_host=True), "[DEFAULT] transport_url"),
    ):
        found, details = run(check, conf)
        assert found is code
        assert f"{option} {expected}" in details
        assert "topsecret" not in details


@pytest.mark.parametrize("invalid", ["DEFAULT", "oslo_messaging_notifications"])
def test_each_use_of_the_broker_reads_its_own_url(configured, invalid):
    urls = {"DEFAULT": "fake://", "oslo_messaging_notifications": "fake://"} | {invalid: "hare://"}
    text = "".join(f"[{name}]\ntransport_url = {url}\n" for name, url in urls.items())
    notifications, _ = run(broker.check_notifications, configured(text))
    calls, _ = run(partial(broker.check_calls, of_host=False), configured(text))
    failed = (Code.FAILURE, Code.WARNING)
    assert (calls, notifications) == (failed if invalid == "DEFAULT" else failed[::-1])


@pytest.mark.parametrize(
    "url", ["host:15672", "ftp://u:topsecret@host", "http://host", "http://u:topsecret@host:port"]
)
def test_a_management_url_that_can_not_be_used(configured, url):
    conf = configured(f"[status]\nmanagement_url = {url}")
    code, details = run(queues.check, conf)
    assert code is Code.FAILURE
    assert "can't be used" in details
    assert "topsecret" not in details


def test_queues_are_checked_on_request_only(configured):
    code, details = run(queues.check, configured())
    assert code is Code.SUCCESS
    assert details.startswith("not checked: set [status] management_url")


POOL = "kongming.compute-1"
MANAGED = (
    f"[notification_handler]\npool = {POOL}\n"
    "[status]\nmanagement_url = http://u:topsecret@localhost:15672\n"
    "[DEFAULT]\ntransport_url = rabbit://localhost/\n"
)
LIMITED = {"effective_policy_definition": {"max-length": 100}}


@pytest.fixture
def managed(configured, monkeypatch):
    """Run the check on what the management API shows of the queue, and its bindings."""

    def look(queue, keys=("versioned_notifications.info",)):
        responses = {
            ("queues", "/", POOL): queue,
            ("bindings", "/", "e", "nova", "q", POOL): [{"routing_key": key} for key in keys],
        }
        monkeypatch.setattr(queues, "_get", lambda _opener, _base, *path: responses.get(path))
        return run(queues.check, configured(MANAGED))

    return look


@pytest.mark.parametrize("keys", [(), ("another.info",), ("versioned_notifications.error",)])
def test_a_queue_that_is_not_bound_is_a_failure(managed, keys):
    code, details = managed(LIMITED, keys)
    assert code is Code.FAILURE
    bound = f"the queue {POOL} is not bound to the exchange nova with versioned_notifications.info"
    assert bound in details


def test_a_queue_that_is_bound_is_good(managed):
    code, details = managed(LIMITED, ("another.info", "versioned_notifications.info"))
    assert code is Code.SUCCESS
    assert f"the queue {POOL} is bound to the exchange nova" in details


@pytest.mark.parametrize(
    ("kind", "policy", "argument", "doubt"),
    [
        ("classic", None, None, ""),
        ("quorum", 1000, None, ""),
        ("quorum", 100, None, ""),
        ("quorum", -1, None, ""),
        ("quorum", 99, None, " 99 times"),
        ("quorum", None, 3, " 3 times"),
        # The lower one counts.
        ("quorum", 1000, 3, " 3 times"),
        ("quorum", None, None, "by RabbitMQ's default limit"),
    ],
)
def test_a_quorum_queue_with_a_low_delivery_limit_is_a_warning(
    managed, kind, policy, argument, doubt
):
    definition = dict(LIMITED["effective_policy_definition"])
    if policy is not None:
        definition["delivery-limit"] = policy
    arguments = {} if argument is None else {"x-delivery-limit": argument}
    code, details = managed(
        {"type": kind, "effective_policy_definition": definition, "arguments": arguments}
    )
    assert code is (Code.WARNING if doubt else Code.SUCCESS)
    assert doubt in details


def test_the_tz_databases_are_named_with_their_versions(configured, tmp_path, monkeypatch):
    (tmp_path / "Etc").mkdir()
    (tmp_path / "Etc" / "UTC").touch()
    (tmp_path / "tzdata.zi").write_text("# version 2031c\n")
    monkeypatch.setattr(zoneinfo, "TZPATH", (str(tmp_path),))
    code, details = run(timezones.check, configured())
    assert code is Code.SUCCESS
    assert details.startswith(
        f"zones come from {tmp_path} (version 2031c), and missing ones from /"
    )
    assert "tzdata/zoneinfo (version 20" in details


def test_a_machine_without_a_tz_database_is_warned(configured, monkeypatch):
    monkeypatch.setattr("kongming.allocation.timezones.sources", dict)
    code, details = run(timezones.check, configured())
    assert code is Code.WARNING
    assert "install tzdata" in details
