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

"""More than a thousand files, each a good one with one thing wrong: all is taken, or nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
import functools
import logging
import random

from kongming import exception
from kongming.cmd import launch
from kongming.conf import opts
from kongming.runtime.service import Service
from kongming.tests.thorough import THOROUGH

PARTS = ("Tr0ub4dor", "and3", "c0rrect", "h0rse")
REFUSED, TAKEN, UNREAD = "refused", "taken", "taken, with a warning of settings without effect"

GOOD = """\
[DEFAULT]
# A remark.
host = compute-1
state_path = {folder}/state
debug = false
log_options = true
transport_url = rabbit://user:Tr0ub4dor%23and3@h:5672/vhost
[libvirt]
connection_uri = test:///default
keepalive_interval = 5
keepalive_count = 5

[executor]
workers = 4
check_interval = {unique}
retry_interval_max = 60
pull_interval = 60
history_days = 90
[conductor]
poll_interval = 60
poll_full_interval = 3600
host_timeout = 10
[api]
auth_strategy = keystone
max_limit = 1000
max_map_instances = 5000
max_body_size = 16777216
[guard]
allowed_cpus = 0-31
reserved_cpus = 0,1
allowed_nodes = 0
allowed_projects = a,b
overlap = warn
smt = allow
[metrics]
enabled = false
listen_address = 127.0.0.1
listen_port = 19630
[nova]
resync_interval = 600
resync_full_interval = 3600
start_spread = 10
[rpc]
require_signatures = true
[status]
management_url = http://watcher:h0rse@127.0.0.1:15672
[notification_handler]
trigger = versioned
exchange = nova
[oslo_messaging_rabbit]
amqp_durable_queues = true
rabbit_qos_prefetch_count = 100
heartbeat_rate = 3
heartbeat_timeout_threshold = 60
kombu_failover_strategy = shuffle
rabbit_retry_interval = 1
ssl = true
[oslo_messaging_notifications]
driver = messagingv2
transport_url = rabbit://user:c0rrect%2Ch0rse@h:5672/
[database]
connection = mysql+pymysql://kongming:h0rse@h/kongming
max_pool_size = 5
"""

NUMBERS = ("soon", "", "1.5", "-99999", "1e3", "0x10", "99999999999", "5 s", "None", "1,2")
CHOICES = ("never", "", "warn,allow", "WARN!", "0")
SWITCHES = ("maybe", "", "2", "yes please", "tru", "enabled")
HOSTS = ("two words", "", "a/b", "h:1", "-h", "a..b")
CPUS = ("x", "1-", "5-1", "^3", "1,,2", "0-x", "-1", "1;2", "٣")
OF_KIND = {
    "Integer": NUMBERS,
    "Port": NUMBERS,
    "Boolean": SWITCHES,
    "HostName": HOSTS,
    "HostDomain": HOSTS,
}
SIGNS = {"#": "#", "/": "/", "?": "?", "$": "$", "[": "[", "]": "]", "%2F": "%2F", " ": " "}


@dataclass(frozen=True)
class Case:
    """A file, and the expected outcome.

    :ivar named: what the one line must name besides the file.
    """

    content: bytes
    outcome: str
    named: str = ""

    @property
    def sets_unique(self):
        """Whether what differs between all files is set in this one, too."""
        return b"[executor]\n" in self.content and b"\ncheck_interval = {unique}" in self.content


def lines():
    return GOOD.splitlines()


def section_of(number):
    return next(each for each in reversed(lines()[: number + 1]) if each.startswith("["))


def with_line(number, *replacement):
    text = lines()
    text[number : number + 1] = replacement
    return "\n".join(text).encode() + b"\n"


def settings() -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines()):
        if "=" in line:
            yield number, line.partition(" = ")[0], line.partition(" = ")[2]


def kinds():
    found = {}
    for group, options in opts.own_opts():
        for option in options:
            found[f"[{group or 'DEFAULT'}]", option.dest] = option.type
    return found


def of_bytes() -> Iterator[Case]:
    for number, line in enumerate(lines()):
        for byte in (b"\xfc", b"\xe2\x28", b"\0"):
            yield Case(with_line(number, line, "@@").replace(b"@@", b"# " + byte), REFUSED)
        yield Case(with_line(number, f"{line}@@").replace(b"@@", b"\xff"), REFUSED)


def of_values() -> Iterator[Case]:
    known = kinds()
    for number, name, _value in settings():
        section = section_of(number)
        kind = known.get((section, name))
        wrong = OF_KIND.get(type(kind).__name__, ())
        if getattr(kind, "choices", None):
            wrong = CHOICES
        elif name in ("allowed_cpus", "reserved_cpus", "allowed_nodes"):
            wrong = CPUS
        elif section == "[oslo_messaging_rabbit]":
            wrong = ("maybe", "-1", "many")
        for value in wrong:
            if name == "check_interval" and value == "0":
                continue
            changed = with_line(number, f"{name} = {value}")
            yield Case(changed, REFUSED, f"{section} {name}")


def of_names() -> Iterator[Case]:
    chance = random.Random(20)
    for number, name, value in settings():
        section = section_of(number)
        for _ in range(4):
            place = chance.randrange(1, len(name) - 1)
            wrong = chance.choice(
                [
                    name[:place] + name[place + 1 :],
                    name[:place] + name[place] + name[place:],
                    name[:place] + "q" + name[place:],
                    name.upper(),
                ]
            )
            yield Case(with_line(number, f"{wrong} = {value}"), UNREAD, f"{section} {wrong}, ")
            break_off = with_line(number, f"{name} {value}".replace("=", "").replace(":", ""))
            yield Case(break_off, REFUSED)


def of_sections() -> Iterator[Case]:
    for number, line in enumerate(lines()):
        if not line.startswith("["):
            continue
        for wrong in (line[:-1], f"{line} # ours", "[]", f"{line}]x", line[1:], "="):
            yield Case(with_line(number, wrong), REFUSED)
        for wrong in (f"[x{line[1:]}", f"{line[:-1]}x]", f"[ {line[1:]}"):
            yield Case(with_line(number, wrong), UNREAD)


def of_structure() -> Iterator[Case]:
    for number, line in enumerate(lines()):
        yield Case(with_line(number, "# x", "  indented", line), REFUSED)
        yield Case(with_line(number, line, "", "  indented"), REFUSED)
        yield Case(with_line(number, line, "c0rrect h0rse"), REFUSED)


def of_urls() -> Iterator[Case]:
    for number, name, value in settings():
        if name != "transport_url":
            continue
        section = section_of(number)
        before, _, after = value.partition("@")
        for sign in ("#", "/", "?", "$", "[", "%2F", " ", "$$#", "#$", "@/", "/@"):
            for place in ("", "and3", "and3/x"):
                wrong = f"{before}{sign}{place or 'h0rse'}@{after}"
                yield Case(with_line(number, f"{name} = {wrong}"), REFUSED, f"{section} {name}")
        for wrong in (
            "rabit://u:h0rse@h/",
            "h0rse",
            "u:h0rse@h",
            "rabbit://u:h0rse",
            "rabbit://u:h0rse@h:99999/",
            "rabbit://u:h0rse@h:and3/",
            "rabbit://u:h0rse@/",
            "rabbit://u:h0rse@[::1/",
            "rabbit://u:h0rse@h,other/",
            "rabbit://u:h0rse@h/a%20b",
            "://u:h0rse@h/",
            "",
        ):
            outcome = (
                TAKEN if not wrong and section == "[oslo_messaging_notifications]" else REFUSED
            )
            yield Case(with_line(number, f"{name} = {wrong}"), outcome, f"{section} {name}")
        yield Case(with_line(number, f"{name} {value}"), UNREAD)


def of_logs() -> Iterator[Case]:
    for setting in (
        "log_config_append = /absent",
        "log_config_append = /",
        "log_dir = /absent",
        "log_dir = /dev/null/x",
        "log_file = /absent/log",
        "log_file = /",
        "default_log_levels = amqp=LOUD",
        "default_log_levels = amqp",
        "default_log_levels = =INFO",
        "log_rotation_type = never",
        "rate_limit_except_level = LOUD",
        "rate_limit_interval = often",
        "use_stderr = maybe",
        "use_json = maybe",
        "syslog_log_facility = x\nuse_syslog = true",
        "log_rotate_interval = 0\nlog_file = {folder}/log\nlog_rotation_type = interval",
        *(
            f"{option} = {wrong}"
            for option in (
                "logging_default_format_string",
                "logging_context_format_string",
                "logging_debug_format_suffix",
                "logging_exception_prefix",
                "logging_user_identity_format",
            )
            for wrong in ("%(absent)s", "%(message", "%(message)q", "%s %s", "%")
        ),
    ):
        first, *others = setting.split("\n")
        name = first.partition(" ")[0]
        yield Case(with_line(1, *others, first), REFUSED, f"[DEFAULT] {name}")


def of_files() -> Iterator[Case]:
    for section, names in {
        "[oslo_messaging_rabbit]": ("ssl_ca_file", "ssl_cert_file"),
        "[guard]": ("nova_config_file",),
    }.items():
        number = lines().index(section)
        for name in names:
            for path in ("/absent", "/proc/self/mem/x", "/dev/null/x"):
                changed = with_line(number, section, f"{name} = {path}")
                yield Case(changed, REFUSED, f"{section} {name}")


@functools.cache
def families():
    made = (
        of_bytes,
        of_values,
        of_names,
        of_sections,
        of_structure,
        of_urls,
        of_logs,
        of_files,
    )
    return [list(family()) for family in made]


def unique(cases):
    return list({case.content: case for case in cases}.values())


def cases():
    return unique(case for family in families() for case in family)


def some_cases(begin):
    """Return four or five of each family, others for another beginning."""
    return unique(case for family in families() for case in family[begin :: len(family) // 4])


def test_more_than_a_thousand_cases_are_covered():
    assert len(cases()) > 1000


class Idle(Service):
    def start(self):
        pass

    def stop(self):
        pass


class Host:
    """A service whose configuration is changed under it."""

    def __init__(self, path, folder):
        self._path, self._folder = path, folder
        self.write(GOOD.encode(), 1)
        self.conf = launch.configure([f"--config-file={path}"])
        self.service = Idle(self.conf)

    def write(self, content, unique):
        text = content.replace(b"{folder}", str(self._folder).encode())
        self._path.write_bytes(text.replace(b"{unique}", str(unique).encode()))

    def in_force(self):
        """Return the values in force of all options that a reload can change."""
        return {
            (group, option.dest): (self.conf if group is None else self.conf[group])[option.dest]
            for group, options in opts.own_opts()
            for option in options
            if option.mutable
        } | {"debug": self.conf.debug}


def test_a_reload_accepts_a_file_whole_or_not_at_all_and_logs_one_line(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "kongming.conf"
    host = Host(path, tmp_path)
    for number, case in enumerate(cases() if THOROUGH else some_cases(0), 2):
        before = host.in_force()
        caplog.clear()
        host.write(case.content, number)
        host.service.reload()
        records = [each for each in caplog.records if each.name == "kongming.runtime.service"]
        warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
        warnings = [each for each in warnings if each.startswith("Settings without effect: ")]
        message = records[0].getMessage()
        why = (case, message, warnings)
        assert len(records) == 1, why
        if case.outcome == REFUSED:
            assert message.startswith("Configuration reload failed: "), why
            assert host.in_force() == before, why
            assert str(path) in message, why
            assert case.named in message, why
            assert "fault of Kongming" not in message, why
        else:
            assert message.startswith("Configuration reloaded"), why
            assert host.conf.executor.check_interval == (number if case.sets_unique else 60), why
        assert len(warnings) == (case.outcome == UNREAD), why
        assert all(str(path) in each and case.named in each for each in warnings), why
        for record in caplog.records:
            assert record.exc_info is None, why
            assert not any(part in record.getMessage() for part in PARTS), why


def test_a_start_accepts_the_same_files_as_a_reload(tmp_path):
    path = tmp_path / "kongming.conf"
    host = Host(path, tmp_path)
    for case in cases()[::10] if THOROUGH else some_cases(1):
        host.write(case.content, 1)
        try:
            launch.configure([f"--config-file={path}"])
        except exception.ConfigInvalid as error:
            assert case.outcome == REFUSED
            assert str(path) in str(error)
            assert "\n" not in str(error)
            assert not any(part in str(error) for part in PARTS)
        else:
            assert case.outcome != REFUSED
