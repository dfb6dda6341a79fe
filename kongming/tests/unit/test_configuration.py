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

"""A configuration is checked as a whole: each thing that may be wrong with it, and its words."""

import grp
import os
import subprocess
import sys

from oslo_config import cfg
from oslo_context.context import RequestContext, _request_store
import pytest

from kongming import exception
from kongming.configuration import check, files, unread
from kongming.configuration.configuration import Configuration
from kongming.runtime.service import Service

GOOD = """[DEFAULT]
host = compute-1
state_path = {folder}/state
[libvirt]
connection_uri = test:///default
[oslo_messaging_notifications]
transport_url = fake://
"""
SECRET = "Tr0ub4dor"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kongming.conf"


@pytest.fixture
def read(path, tmp_path):
    """Check a good configuration with some more text, or bytes, at its end."""

    def read(more="", *, good=GOOD, of_the_api=None):
        more = more if isinstance(more, bytes) else more.encode()
        path.write_bytes(good.format(folder=tmp_path).encode() + more + b"\n")
        return check.read([f"--config-file={path}"], of_the_api=of_the_api)

    return read


@pytest.fixture
def wrong(read):
    """Return the error of such a configuration, or None."""

    def wrong(more="", **named):
        try:
            found = list(read(more, **named).problems())
        except exception.ConfigInvalid as error:
            found = [str(error)]
        assert len(found) < 2, found
        return found[0] if found else None

    return wrong


def line_of(path, text):
    return path.read_text().splitlines().index(text) + 1


def test_a_correct_configuration_has_no_faults(wrong, read):
    assert wrong() is None
    assert list(read().unread()) == []


@pytest.mark.parametrize(
    ("section", "setting", "expected"),
    [
        ("executor", "check_interval = soon", "'soon' can't be used; it must be an integer"),
        ("executor", "check_interval = -5", "'-5' can't be used; it must be an integer"),
        ("executor", "check_interval = 86401", "from 0 to 86400"),
        ("executor", "history_days = 1000000000", "from 0 to 36500"),
        ("executor", "pull_interval = 0", "from 1 to 3600"),
        ("conductor", "poll_interval = never", "from 1 to 86400"),
        ("conductor", "host_timeout = -1", "from 1 to 600"),
        ("nova", "resync_interval = 10 min", "from 0 to 86400"),
        ("libvirt", "keepalive_count = 0", "from 1 to 1000"),
        ("guard", "overlap = never", "one of allow, warn, refuse"),
        ("guard", "reserved_cpus = 0-x", "item '0-x' at position 1"),
        ("guard", "nova_config_file = /absent", "/absent"),
        ("metrics", "listen_port = 70000", "from 1 to 65535"),
        ("metrics", "enabled = perhaps", "true or false"),
        ("notification_handler", "exchange =", "a string of 1 to 255 characters"),
        ("notification_handler", f"topics = a,{'b' * 201}", "a list of values"),
        ("DEFAULT", "host = two words", "a name that Nova accepts"),
        ("DEFAULT", "state_path =", "a string that is not empty"),
        ("DEFAULT", "debug = maybe", "true or false"),
        ("DEFAULT", "host = $host", "refers with $"),
        ("DEFAULT", "state_path = /var/$absent", "refers with $"),
        ("oslo_messaging_rabbit", "heartbeat_rate = 0", "from 1 to 1000"),
        ("oslo_messaging_rabbit", "rabbit_qos_prefetch_count = -1", "from 0 to 65535"),
        ("oslo_messaging_rabbit", "heartbeat_timeout_threshold = 70000", "from 0 to 65535"),
        ("DEFAULT", "executor_thread_pool_size = 0", "from 1 to 10000"),
        ("libvirt", "connection_uri = quemu:///system", "a libvirt URI with a known driver"),
        ("libvirt", "connection_uri = qemu:system", "a libvirt URI with a known driver"),
        ("nova", "auth_type = passwort", "unknown authentication method"),
        ("database", "max_pool_size = many", "an integer"),
    ],
)
def test_an_invalid_value_is_named_with_its_place_and_its_rule(
    wrong, path, section, setting, expected
):
    message = wrong(f"[{section}]\n{setting}")
    name = setting.partition("=")[0].strip()
    assert message.startswith(f"[{section}] {name}: ")
    assert expected in message
    assert message.endswith(f"({path}, line {line_of(path, setting)})")


@pytest.mark.parametrize("value", [0, 60, 86400])
def test_the_bounds_themselves_can_be_used(wrong, value):
    assert wrong(f"[executor]\ncheck_interval = {value}") is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# gr\xfc\xdfe", "line 8: the byte 0xfc is not UTF-8"),
        (b"a = \0", "line 8: there is a NUL byte"),
        (b"nothing at all", "line 8: an option must be written as 'name = value'"),
        (b"[guard", "line 8: the line of a section must end with ]"),
        (b"[guard] # ours", "line 8: the line of a section must end with ]"),
        (b"[]", "line 8: a section must have a name"),
        (b"= value", "line 8: an option must have a name"),
        (b"\n  more", "line 9: an indented line must continue an option"),
        (b"# a remark\n  more", "line 9: an indented line must continue an option"),
    ],
)
def test_an_invalid_file_is_named_with_its_line(wrong, path, content, expected):
    assert wrong(content).startswith(f"{path}, {expected}")


def test_an_option_outside_of_a_section_is_reported(wrong):
    assert "line 1: an option must be in a section" in wrong(good="debug = true\n")


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe"])
def test_a_byte_order_mark_is_reported(path, mark):
    path.write_bytes(mark + b"[DEFAULT]\n")
    with pytest.raises(exception.ConfigInvalid, match="line 1: "):
        check.check([f"--config-file={path}"])


@pytest.mark.parametrize("more", ["\n  more", "= x", "[", "x", "[]"])
def test_a_file_that_oslo_config_can_not_read_is_reported_before_it_tries(path, more):
    """Both must refuse the same: a message of oslo.config may quote a password."""
    path.write_text(f"[DEFAULT]\na = b\n\n{more}\n")
    conf = cfg.ConfigOpts()
    with pytest.raises(cfg.ConfigFileParseError):
        conf([f"--config-file={path}"])
    with pytest.raises(exception.ConfigInvalid):
        files.read([str(path)])


@pytest.mark.parametrize("more", ["a = b\n  more", "a: b = c", "x=", "\r\nq = 'w'\r\n", "a b = c"])
def test_a_file_that_oslo_config_reads_is_read_alike(path, more):
    path.write_text(f"[DEFAULT]\n{more}\n[Guard]\nd = e\n")
    sections = {}
    cfg.ConfigParser(str(path), sections).parse()
    theirs = {(group, name) for group, found in sections.items() for name in found}
    ours = {(each.section, each.name) for each in files.read([str(path)])}
    assert ours == {(group if group == "DEFAULT" else group.lower(), n) for group, n in theirs}


def test_missing_files_are_named(tmp_path):
    for argument, expected in (
        (f"--config-file={tmp_path}/absent", "absent can't be read by user "),
        (f"--config-file={tmp_path}", "Is a directory"),
        (f"--config-dir={tmp_path}/absent.d", "absent.d can't be read by user "),
    ):
        with pytest.raises(exception.ConfigInvalid, match=expected):
            check.check([argument])


def test_a_directory_is_read_in_the_order_of_its_files_and_the_last_file_is_named(tmp_path):
    for name, value in (("20.conf", "soon"), ("10.conf", "60"), (".30.conf", "x"), ("a.txt", "x")):
        (tmp_path / name).write_text(f"[executor]\ncheck_interval = {value}\n")
    with pytest.raises(exception.ConfigInvalid, match=r"'soon'.*20\.conf, line 2\)"):
        check.check([f"--config-dir={tmp_path}"])
    (tmp_path / "20.conf").write_text("[executor]\ncheck_interval = 5\n")
    assert check.check([f"--config-dir={tmp_path}"]).conf.executor.check_interval == 5


def test_a_value_of_the_environment_is_checked_too(wrong, monkeypatch):
    monkeypatch.setenv("OS_EXECUTOR__CHECK_INTERVAL", "soon")
    assert wrong().startswith("[executor] check_interval: ")


@pytest.mark.parametrize(
    ("sign", "expected"),
    [
        ("#", "%23"),
        ("?", "%3F"),
        ("/", "can't log in if user or password has a /"),
        ("%2F", "can't log in if user or password has a /"),
        ("$", "a literal $ as $$"),
        (",", "port must be a number"),
        ("[", "port must be a number"),
        (" ", "%20"),
    ],
)
@pytest.mark.parametrize("section", ["DEFAULT", "oslo_messaging_notifications"])
def test_no_part_of_a_password_is_shown(wrong, section, sign, expected):
    message = wrong(f"[{section}]\ntransport_url = rabbit://user:{SECRET}{sign}and3@h:5672/")
    assert expected in message
    assert f"[{section}] transport_url" in message
    assert SECRET not in message
    assert "and3" not in message


@pytest.mark.parametrize(
    "url",
    [
        "rabbit://user:{}@h:99999/",
        "rabbit://user:{}@h:0/",
        "rabbit://user:{}@h:x/",
        "rabbit://user:{}@/",
        "rabbit://user:{}@-h/",
        "rabbit://user:{}",
        "rabit://user:{}@h/",
        "user:{}@h/",
        "{}",
        "rabbit://user:{}@h,other/",
        "rabbit://user:{}@[::1/",
        "rabbit://user:{}@h/a%3Bb",
    ],
)
def test_urls_that_can_not_be_used_are_refused_without_their_password(wrong, url):
    message = wrong(f"[DEFAULT]\ntransport_url = {url.format(SECRET)}")
    assert message.startswith("[DEFAULT] transport_url")
    assert SECRET not in message


@pytest.mark.parametrize(
    "url",
    [
        "rabbit://",
        "fake://",
        "rabbit://user:a%23b%40c%25@h:5672/vhost",
        "rabbit://u:p@10.0.0.1:5672,u:p@[fe80::1]:5671/a%2Fb",
        "rabbit://u:a$$b@h//",
        "rabbit://h/",
    ],
)
def test_urls_that_can_be_used_are(wrong, url):
    assert wrong(f"[DEFAULT]\ntransport_url = {url}") is None


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"transport_url rabbit://user:{SECRET}@h/", "…"),
        (f"rabbit://user:{SECRET}@h/", "rabbit"),
        (f"{SECRET}@h:5672", "…"),
        (f"{SECRET} = x", "…"),
    ],
)
def test_a_line_that_went_wrong_shows_no_password(read, line, name):
    (message,) = read(line).unread()
    assert message.startswith(f"[oslo_messaging_notifications] {name}, ")
    assert SECRET not in message


@pytest.mark.parametrize(
    ("section", "name", "expected"),
    [
        ("gaurd", "reserved_cpus", "[guard] reserved_cpus?"),
        ("guard", "resevred_cpus", "[guard] reserved_cpus?"),
        ("guard", "reserved-cpus", "[guard] reserved_cpus?"),
        ("guard", "Reserved_CPUs", "[guard] reserved_cpus?"),
        ("DEFAULT", "reserved_cpus", "[guard] reserved_cpus?"),
        ("default", "debug", "[DEFAULT] debug?"),
        ("oslo_messaging_rabbit", "rabbit_quorum_queues", "rabbit_quorum_queue?"),
        ("nova", "auth_tpye", "[nova] auth_type?"),
        ("nova", "region_name", "which has no effect without auth_type"),
        ("executor", "check_intervall", "[executor] check_interval?"),
        ("metric", "enabled", "[metrics] enabled?"),
        ("nonsense", "foo", "which is not an option"),
    ],
)
def test_an_unknown_option_is_reported_with_the_likely_spelling(
    read, path, section, name, expected
):
    (message,) = read(f"[{section}]\n{name} = 1").unread()
    assert message.startswith(f"[{section}] {name}, ")
    assert expected in message
    assert message.endswith(f"({path}, line {line_of(path, f'{name} = 1')})")


@pytest.mark.parametrize(
    "more",
    [
        "[Guard]\nreserved_cpus = 0",
        "[oslo_messaging_rabbit]\nrabbit_quorum_queue = 1\nrabbit_transient_quorum_queue = 1",
        "[oslo_concurrency]\nlock_path = /tmp",
        "[oslo_messaging_metrics]\nmetrics_enabled = false",
        "[DEFAULT]\nrpc_response_timeout = 60\nlogfile = {folder}/log\nlog_options = false",
        "[keystone_authtoken]\nanything = 1\nauth_section = elsewhere\n[elsewhere]\nx = y",
        "[oslo_policy]\nx = y\n[healthcheck]\nx = y\n[oslo_middleware]\nx = y",
        "[database]\nconnection = sqlite://\nmysql_sql_mode = TRADITIONAL",
        "[conductor]\npoll_interval = 60\n[api]\nmax_limit = 10\n[status]\nmanagement_url = x",
        "[nova]\nauth_type = password\nauth_url = http://k\nusername = x\nregion_name = y",
        "[nova]\nauth_section = k\nregion_name = y\n[k]\nauth_type = password\nauth_url = http://k",
    ],
)
def test_options_of_libraries_and_of_other_services_are_known(read, tmp_path, more):
    found = read(more.replace("{folder}", str(tmp_path)), of_the_api=False)
    assert list(found.unread()) == []


def test_the_api_and_status_know_the_options_of_the_api_one_by_one(read):
    more = "[keystone_authtoken]\nwww_authenticate_uri = http://k\nauth_urll = x"
    more += "\n[oslo_policy]\npolicy_file = p\n[oslo_middleware]\nenable_proxy_headers_parsing = 1"
    (message,) = read(more).unread()
    assert message.startswith("[keystone_authtoken] auth_urll, ")


def test_an_unknown_name_without_a_similar_option_is_shown_only_if_it_is_a_valid_name():
    settings = [files.Setting("f", 1, "guard", name, "") for name in ("zzz_qq", "Zzz9", "a b")]
    found = list(unread.unread(settings, {"guard": {"overlap"}}, (), {}))
    assert [each.partition(",")[0] for each in found] == [
        "[guard] zzz_qq",
        "[guard] …",
        "[guard] …",
    ]


WEEKLY = """log_file = {folder}/log
log_rotation_type = interval
log_rotate_interval_type = weekday
log_rotate_interval = 7"""


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ("log_config_append = /absent", "log_config_append"),
        ("log_dir = /absent", "log_dir"),
        ("log_file = /", "log_file"),
        ("use_syslog = true\nsyslog_log_facility = nowhere", "syslog_log_facility"),
        ("default_log_levels = amqp=LOUD", "default_log_levels"),
        ("default_log_levels = amqp", "default_log_levels"),
        ("logging_default_format_string = %(absent)s", "logging_default_format_string"),
        ("logging_context_format_string = %(message", "logging_context_format_string"),
        ("logging_debug_format_suffix = %(absent)s", "logging_debug_format_suffix"),
        ("logging_exception_prefix = %(absent)s", "logging_exception_prefix"),
        ("logging_user_identity_format = %(absent)s", "logging_user_identity_format"),
        (
            "log_file = {folder}/log\nlog_rotation_type = interval\nlog_rotate_interval = 0",
            "log_rotate_interval",
        ),
        (
            WEEKLY,
            "log_rotate_interval",
        ),
    ],
)
def test_a_log_that_can_not_be_set_up_is_reported_with_its_option(
    wrong, path, setting, option, tmp_path
):
    message = wrong(f"[DEFAULT]\n{setting}".replace("{folder}", str(tmp_path)))
    assert message.startswith(f"[DEFAULT] {option}: ")
    assert f"({path}, line " in message


def test_a_request_that_this_thread_is_about_does_not_matter(wrong):
    RequestContext()
    try:
        message = wrong("[DEFAULT]\nlogging_default_format_string = %(absent)s")
    finally:
        del _request_store.context
    assert message.startswith("[DEFAULT] logging_default_format_string: ")


def test_the_journal_needs_its_binding(wrong, monkeypatch):
    monkeypatch.setitem(sys.modules, "systemd", None)
    assert "kongming[journal]" in wrong("[DEFAULT]\nuse_journal = true")


def test_log_options_that_can_be_used_are(wrong, tmp_path):
    assert wrong(f"[DEFAULT]\nlog_dir = {tmp_path}\ndefault_log_levels = a=5,b=DEBUG") is None
    (tmp_path / "log.ini").write_text(LOGGING)
    # All other options of the log count for nothing then.
    assert wrong(f"[DEFAULT]\nlog_config_append = {tmp_path}/log.ini\nlog_dir = /absent") is None


LOGGING = """[loggers]
keys = root
[handlers]
keys = out
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = out
[handler_out]
class = StreamHandler
args = (sys.stdout,)
formatter = plain
[formatter_plain]
format = %(message)s
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[handlers]\n", "[handles]\n", "it has no section [handlers]"),
        ("keys = root", "kys = root", "it has no section [loggers]"),
        ("[loggers]", "loggers", "see line 1"),
        ("level = INFO", f"level = {SECRET}", "rejected by Python's logging (ValueError)"),
        ("StreamHandler", "NoHandler", "rejected by Python's logging ("),
        ("(sys.stdout,)", f"('{SECRET}', 1, 2, 3)", "rejected by Python's logging (TypeError)"),
    ],
)
def test_a_broken_logging_configuration_is_reported_and_not_quoted(
    wrong, tmp_path, old, new, expected
):
    (tmp_path / "log.ini").write_text(LOGGING.replace(old, new))
    message = wrong(f"[DEFAULT]\nlog_config_append = {tmp_path}/log.ini")
    assert message.startswith("[DEFAULT] log_config_append: ")
    assert expected in message
    assert SECRET not in message


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return the path of a certificate with its key, in one file each."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", "/CN=x", "-keyout", folder / "key", "-out", folder / "certificate"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return folder


def test_the_files_of_tls_are_checked_before_connecting(wrong, tmp_path, certificate):
    (tmp_path / "text").write_text("no certificate")
    section, certificate_, key = (
        "[oslo_messaging_rabbit]",
        certificate / "certificate",
        certificate / "key",
    )
    for setting, option, expected in (
        ("ssl_ca_file = /absent", "ssl_ca_file", "/absent can't be read by user "),
        (f"ssl_ca_file = {tmp_path}/text", "ssl_ca_file", "no certificates"),
        ("ssl_cert_file = /absent\nssl_key_file = /absent2", "ssl_cert_file", "No such file"),
        (
            f"ssl_cert_file = {certificate_}\nssl_key_file = {tmp_path}/text",
            "ssl_cert_file",
            "key",
        ),
        ("ssl_version = TLSv1_3", "ssl_version", "tlsv1_2"),
    ):
        assert wrong(f"{section}\n{setting}") is None or "absent2" in setting
        message = wrong(
            f"{section}\nssl = true\n{setting}".replace("\nssl_key_file = /absent2", "")
        )
        assert message.startswith(f"{section} {option}: ")
        assert expected in message
    good = f"ssl_ca_file = {certificate_}\nssl_cert_file = {certificate_}\nssl_key_file = {key}"
    assert wrong(f"{section}\nssl = true\nssl_version = TLSv1_2\n{good}") is None


@pytest.mark.parametrize("option", ["cafile", "certfile", "keyfile"])
def test_the_files_of_tls_to_nova_are_checked_too(wrong, option):
    nova = "[nova]\nauth_type = password\nauth_url = https://k\n"
    message = wrong(f"{nova}{option} = /absent")
    assert message.startswith(f"[nova] {option}: /absent can't be read by user ")


def files_reported(path):
    """Return the error that user nobody gets for a file."""
    code = (
        "import os, sys; os.setgroups([]); os.setuid(65534)\n"
        "try: files.read([sys.argv[1]])\nexcept Exception as error: print(error)"
    )
    return subprocess.run(
        [sys.executable, "-c", f"from kongming.configuration import files; {code}", path],
        capture_output=True,
        text=True,
        check=False,
    ).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unreadable_file_is_reported_with_the_user(path, tmp_path):
    path.write_text(GOOD.format(folder=tmp_path))
    path.chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o011)
    message = files_reported(path)
    assert message.startswith(
        f"{path} can't be read by user nobody: Permission denied; run 'chgrp "
    )
    path.chmod(0o640)
    os.chown(path, 0, grp.getgrnam("daemon").gr_gid)
    assert "Permission denied; it is for group daemon: run this command as" in files_reported(path)


@pytest.mark.parametrize(
    ("setting", "fine"),
    [
        ("rabbit_transient_quorum_queue = true", True),
        ("rabbit_transient_quorum_queue = false", False),
        ("rabbit_transient_quorum_queue = true\nrabbit_qos_prefetch_count = 0", False),
    ],
)
def test_streams_need_the_libraries_that_the_driver_requires_to_connect(wrong, setting, fine):
    message = wrong(f"[oslo_messaging_rabbit]\nrabbit_stream_fanout = true\n{setting}")
    assert (message is None) is fine


class TestGlobalConfiguration:
    @pytest.fixture(autouse=True)
    def _left_as_it_was(self):
        yield
        for option in ("lock_path", "disable_process_locking"):
            cfg.CONF.clear_override(option, group="oslo_concurrency")

    def configure(self, path, tmp_path, more=""):
        path.write_text(GOOD.format(folder=tmp_path) + more)
        return Configuration([f"--config-file={path}"])

    def test_locks_lie_below_the_state_path(self, path, tmp_path):
        self.configure(path, tmp_path)
        assert cfg.CONF.oslo_concurrency.lock_path == f"{tmp_path}/state/locks"

    def test_libraries_read_the_same_values_as_the_file_has(self, path, tmp_path):
        more = (
            "[oslo_concurrency]\nlock_path = $state_path/other\ndisable_process_locking = true\n"
        )
        more += "[oslo_messaging_metrics]\nmetrics_process_name = ours\n"
        self.configure(path, tmp_path, more)
        assert cfg.CONF.oslo_concurrency.lock_path == f"{tmp_path}/state/other"
        assert cfg.CONF.oslo_concurrency.disable_process_locking
        assert cfg.CONF.oslo_messaging_metrics.metrics_process_name == "ours"

    def test_the_queue_manager_can_take_its_lock(self, path, tmp_path, monkeypatch):
        from oslo_messaging._drivers import amqpdriver

        # It reads the leader of the process group, which may have ended before the tests.
        monkeypatch.setattr(os, "getpgrp", os.getpid)
        self.configure(path, tmp_path)
        manager = amqpdriver.QManager("compute-1", "kongming-test")
        assert manager.get() != manager.get()
        assert (tmp_path / "state" / "locks").is_dir()


class Reader(Service):
    """A service that reads something of its own at a reload."""

    problem = None

    def start(self):
        pass

    def stop(self):
        pass

    def read_options(self):
        if self.problem is not None:
            raise self.problem


@pytest.fixture
def reader(path, tmp_path):
    path.write_text(GOOD.format(folder=tmp_path) + "[executor]\ncheck_interval = 5\n")
    return Reader(Configuration([f"--config-file={path}"]))


def change(path, tmp_path, more):
    path.write_text(GOOD.format(folder=tmp_path) + f"[executor]\ncheck_interval = 7\n{more}\n")


@pytest.mark.parametrize("problem", [exception.ConfigInvalid("[guard]: no"), ValueError(SECRET)])
def test_no_option_is_in_force_if_the_service_can_not_use_the_checked_values(
    reader, path, tmp_path, caplog, problem
):
    """A file that an option names may change just after it was looked at."""
    reader.problem = problem
    change(path, tmp_path, "history_days = 3")
    reader.reload()
    assert (reader._conf.executor.check_interval, reader._conf.executor.history_days) == (5, 90)
    assert "Configuration reload failed: " in caplog.text
    assert SECRET not in caplog.text
    reader.problem = None
    reader.reload()
    assert (reader._conf.executor.check_interval, reader._conf.executor.history_days) == (7, 3)


def test_the_checked_values_are_used_whatever_the_files_contain_later(reader, path, tmp_path):
    change(path, tmp_path, "")
    checked = reader._conf.candidate()
    change(path, tmp_path, "workers = many\nhistory_days = soon")
    reader._conf.put_in_force(checked, lambda: None)
    assert (reader._conf.executor.check_interval, reader._conf.executor.history_days) == (7, 90)


def test_a_value_that_a_thread_reads_during_a_reload_does_not_stay(reader, path, tmp_path):
    change(path, tmp_path, "")
    parse = reader._conf._parse_config_files

    def read_meanwhile():
        assert reader._conf.executor.check_interval == 5
        return parse()

    reader._conf._parse_config_files = read_meanwhile
    reader.reload()
    assert reader._conf.executor.check_interval == 7


def test_many_unknown_names_are_one_line(reader, path, tmp_path, caplog):
    change(path, tmp_path, "\n".join(f"zz{number} = 1" for number in range(30)))
    reader.reload()
    (message,) = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    assert message.count("which is not an option") == 20
    assert message.endswith("; and 10 more")
