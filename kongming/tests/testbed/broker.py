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

"""A private RabbitMQ node: its own ports, epmd, cookie and database.

It neither knows nor disturbs a RabbitMQ that the machine runs already.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
import functools
import json
import os
from pathlib import Path
import re
import shlex
import socket
import subprocess
import sys
from typing import NamedTuple
from urllib.parse import quote

from kongming.tests.testbed.process import Process, Service, find_program, free_port

# The commands of the same names in PATH switch to the rabbitmq user first.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
START_TIMEOUT = 60
# The management API, and what it needs of what is itself a plugin.
MANAGEMENT = ("rabbitmq_management", "rabbitmq_management_agent", "rabbitmq_web_dispatch")
STOP_TIMEOUT = 30


_LISTED = re.compile(r'\[<<"(.*?)"(?:/utf8)?>>,\s*(\d+),\s*(\d+),\s*(\d+)\]')


class Queue(NamedTuple):
    """What a queue holds now."""

    ready: int
    unacked: int
    consumers: int


class Broker(Service):
    """A RabbitMQ node that keeps everything in `root`; a context manager.

    :param tls: whether it also listens with TLS, on `tls_port`, with the
        certificate `ca_file`, made for it
    :param management: whether it also offers its management API, on
        `management_port`; it starts some seconds later then
    :param settings: more of rabbitmq.conf
    :param beside: another node of the same cluster, which starts first
    """

    def __init__(
        self,
        root: Path,
        *,
        tls: bool = False,
        management: bool = False,
        settings: Mapping[str, object] | None = None,
        beside: Broker | None = None,
    ) -> None:
        self.root = root
        self._beside = beside
        self._settings = settings or {}
        self.port = free_port()
        self.tls_port = free_port() if tls else None
        self.management_port = free_port() if management else None
        self.ca_file = root / "certificate.pem"
        self._environment = _environment(root, self.port)
        if beside is not None:
            shared = {name: beside._environment[name] for name in ("HOME", "ERL_EPMD_PORT")}
            self._environment |= shared
        self.name = self._environment["RABBITMQ_NODENAME"]
        self._epmd = Process(
            [
                find_program("epmd", "erlang-base"),
                *("-address", "127.0.0.1"),
                *("-port", self._environment["ERL_EPMD_PORT"]),
            ],
            root / "epmd.log",
        )
        self._node = Process(
            [_program("rabbitmq-server")], root / "rabbitmq.log", self._environment
        )

    def start(self) -> None:
        """Return when the node has booted and takes connections."""
        for folder in ("home", "mnesia", "log", "plugins"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        plugins = MANAGEMENT if self.management_port is not None else ()
        (self.root / "enabled_plugins").write_text(f"[{','.join(plugins[:1])}].\n")
        (self.root / "rabbitmq.conf").write_text(
            "".join(f"{key} = {value}\n" for key, value in self._options().items())
        )
        _link_applications(self.root / "plugins", plugins)
        if self._beside is None and not self._epmd.running:
            self._epmd.start()
        try:
            self._boot()
        except RuntimeError as error:
            # On a busy machine RabbitMQ 4 may look for the queues that it is to refuse before its
            # tables are loaded, and gives up: systemd would start it again, too.
            if "deny_deprecated_features" not in str(error):
                raise
            self._boot()

    def _boot(self) -> None:
        self._node.start()
        # RabbitMQ opens its listeners as the last step of its boot.
        self._node.wait_ready(self.answers, START_TIMEOUT, "RabbitMQ takes connections")

    def stop(self) -> None:
        """End the node in its own time; what is durable is kept."""
        self._node.terminate(STOP_TIMEOUT)
        # After the node: a node that misses its epmd starts one that nobody ends.
        self._epmd.terminate()

    def kill(self) -> None:
        """End the node with SIGKILL."""
        self._node.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def answers(self) -> bool:
        """Whether an AMQP connection is greeted."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(PROTOCOL_HEADER)
                # A method frame, the server's connection.start, begins with a 1.
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def transport_url(self, vhost: str = "/", user: str = "guest") -> str:
        """The address in oslo.messaging's form; a user's password is its name."""
        path = "" if vhost == "/" else quote(vhost, safe="")
        return f"rabbit://{user}:{user}@127.0.0.1:{self.port}/{path}{nova_queues()}"

    def add_vhost(self, name: str) -> None:
        self._control("add_vhost", name)
        self.permit("guest", vhost=name)

    def queues(self, vhost: str = "/") -> dict[str, Queue]:
        """The queues of a vhost by name."""
        columns = "[name, messages_ready, messages_unacknowledged, consumers]"
        listed = self.evaluate(
            f"[[element(4, Name) | [Value || {{_, Value}} <- More]] || [{{name, Name}} | More] "
            f'<- rabbit_amqqueue:info_all(<<"{vhost}">>, {columns})]'
        )
        return {name: Queue(*map(int, numbers)) for name, *numbers in _LISTED.findall(listed)}

    def add_user(self, name: str, password: str) -> None:
        """Add a user that may do everything and look at everything."""
        self._control("add_user", name, password)
        self._control("set_user_tags", name, "monitoring")
        self.permit(name)

    def permit(self, user: str, *, read: str = ".*", vhost: str = "/") -> None:
        """Let a user configure and write everything, and read what matches."""
        self._control("set_permissions", "-p", vhost, user, ".*", ".*", read)

    def change_password(self, user: str, password: str) -> None:
        self._control("change_password", user, password)

    def close_connections(self, reason: str) -> None:
        """Close all connections, as an operator does."""
        self._control("close_all_connections", reason)

    def delete_queue(self, name: str, vhost: str = "/") -> None:
        self._control("delete_queue", "-p", vhost, name)

    def tick_each(self, milliseconds: int) -> None:
        """How often channels that are opened from now on look for what is not acknowledged."""
        self.evaluate(f"application:set_env(rabbit, channel_tick_interval, {milliseconds})")

    def add_foreign_user(self, name: str) -> None:
        """Add a user that may do nothing yet; its password is its name."""
        self._control("add_user", name, name)

    def run(self, line: str) -> str:
        """Run a command as an operator types it: ``rabbitmqctl list_users``."""
        program, *arguments = shlex.split(line)
        assert program == "rabbitmqctl", line
        return self._control(*arguments)

    def evaluate(self, *expressions: str) -> str:
        """Have the node evaluate expressions of Erlang, one after another.

        A hundred times as fast as ``rabbitmqctl eval``.

        :returns: the last one's value, as Erlang writes it.
        """
        value = f'io_lib:format("~tp", [begin {", ".join(expressions)} end])'
        code = f"base64:encode_to_string(unicode:characters_to_binary({value})).\n"
        cookie = Path(self._environment["HOME"], ".erlang.cookie").read_text()
        command = [str(_erl_call()), "-sname", self.name, "-c", cookie, "-e"]
        answer = _run(command, self._environment, code)
        if not (encoded := re.fullmatch(r'\{ok, "(.*)"\}\s*', answer)):
            raise RuntimeError(f"{code} failed:\n{answer}")
        return b64decode(encoded[1]).decode()

    def type(self, line: str, folder: Path, answer: str = "") -> str:
        """Run a line of a shell, as an operator types it on the node.

        :param answer: to its requests.
        """
        path = f"{Path(sys.executable).parent}:{PROGRAMS}:{self._environment['PATH']}"
        environment = {**self._environment, "PATH": path}
        return _run(["sh", "-ec", line], environment, answer, cwd=folder)

    def set_policy(self, name: str, pattern: str, **definition: int) -> None:
        """Limit the queues whose names match; `max_length` means max-length."""
        limits = {key.replace("_", "-"): value for key, value in definition.items()}
        self._control("set_policy", "--apply-to", "queues", name, pattern, json.dumps(limits))

    def _options(self) -> dict[str, object]:
        options: dict[str, object] = {**self._settings}
        if is_strict():
            # As RabbitMQ 4.3 has it by default.
            options["deprecated_features.permit.transient_nonexcl_queues"] = "false"
        if self.tls_port is not None:
            options |= self._offer_tls(self.tls_port)
        if self.management_port is not None:
            options |= {
                "management.tcp.ip": "127.0.0.1",
                "management.tcp.port": self.management_port,
            }
        return options

    def _offer_tls(self, port: int) -> dict[str, object]:
        key = self.root / "key.pem"
        subprocess.run(
            [
                *(find_program("openssl", "openssl"), "req", "-x509", "-nodes", "-days", "2"),
                *("-newkey", "rsa:2048", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                *("-keyout", str(key), "-out", str(self.ca_file)),
            ],
            check=True,
            capture_output=True,
        )
        return {
            "listeners.ssl.1": f"127.0.0.1:{port}",
            "ssl_options.cacertfile": self.ca_file,
            "ssl_options.certfile": self.ca_file,
            "ssl_options.keyfile": key,
        }

    def _control(self, *arguments: str) -> str:
        return _run([_program("rabbitmqctl"), "--quiet", *arguments], self._environment)

    def _end(self) -> None:
        # What the node holds is of no use to anybody once the testbed ends.
        self._node.kill()
        self._epmd.terminate()


def kombu_url(transport_url: str) -> str:
    """An address in kombu's form, of one in oslo.messaging's."""
    return transport_url.partition("?")[0].replace("rabbit://", "amqp://")


def nova_queues() -> str:
    """What an address requires of Nova's queues: durable, where others are refused."""
    return "?amqp_durable_queues=true" if is_strict() else ""


@functools.cache
def is_strict() -> bool:
    """Whether the node refuses queues that are neither durable nor exclusive."""
    return _version() >= (4,)


def _version() -> tuple[int, ...]:
    """The installed RabbitMQ's version."""
    folder = Path(_program("rabbitmq-server")).resolve().parents[1].name
    return tuple(int(part) for part in folder.rpartition("-")[2].split("."))


@functools.cache
def _erl_call() -> Path:
    erlang = Path(find_program("erl", "erlang-base")).resolve().parents[1]
    return next(erlang.glob("erts-*/bin/erl_call"))


def _run(
    command: list[str], environment: Mapping[str, str], answer: str = "", cwd: Path | None = None
) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        input=answer,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _program(name: str) -> str:
    return find_program(str(PROGRAMS / name), "rabbitmq-server")


def _environment(root: Path, port: int) -> dict[str, str]:
    loopback_only = "-kernel inet_dist_use_interface {127,0,0,1}"
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        # Erlang keeps its cookie there.
        "HOME": str(root / "home"),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(free_port()),
        "RABBITMQ_NODENAME": f"kongming-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(root / "mnesia"),
        "RABBITMQ_LOG_BASE": str(root / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": str(root / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(root / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(root / "enabled_plugins"),
        "RABBITMQ_PLUGINS_DIR": str(root / "plugins"),
        # Its default ties its threads to CPUs, the same ones for each node.
        "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback_only,
        "RABBITMQ_CTL_ERL_ARGS": f"{loopback_only} +S 1:1 +sbwt none",
        # Then the script becomes the node, instead of waiting for it, so that
        # signals meet the node itself.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _link_applications(folder: Path, plugins: Iterable[str]) -> None:
    """Offer the node its own applications, and of the plugins only these.

    Plugins that are not enabled are read at each start all the same: a second.
    """
    installed = Path(_program("rabbitmq-server")).resolve().parents[1] / "plugins"
    for application in installed.iterdir():
        name = application.name
        link = folder / name
        is_plugin = name.startswith("rabbitmq_") and not name.startswith("rabbitmq_prelaunch")
        enabled = not is_plugin or name.rpartition("-")[0] in plugins
        if enabled and not link.exists():
            link.symlink_to(application)
