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

"""The check of a configuration: each value, their combinations, and the files they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import re

from oslo_config import cfg

from kongming import exception, version
from kongming.allocation import host_name
from kongming.bus import url
from kongming.configuration import files, logs, options, tls, unread, values
from kongming.configuration.files import DEFAULT, Setting
from kongming.configuration.known import Known
from kongming.configuration.rules import read_rules

PROJECT = "kongming"
Part = Callable[[cfg.ConfigOpts], Iterator[str]]
_LIBVIRT_DRIVERS = (
    "bhyve|ch|esx|gsx|hyperv|lxc|openvz|qemu|test|vbox|vmwarefusion|vmwareplayer|vmwarews|vpx|vz|"
    "xen"
)
# Other text may be an alias of libvirt.conf.
_LIBVIRT = re.compile(rf"({_LIBVIRT_DRIVERS})(\+\w+)?:///?\S*|[\w-]+")


class Reading(cfg.ConfigOpts):
    """Options that are read without oslo.config's checks, some of which end the process."""

    def _validate_cli_options(self, namespace: object) -> None:
        """Do nothing: all values are checked later."""

    def _check_required_opts(self, namespace: object = None) -> None:
        """Do nothing: which options are required depends on the authentication method."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration that was read, and is not in force.

    :ivar conf: its options.
    :ivar settings: its settings, with file and line.
    :ivar known: all options that it may have.
    """

    conf: Reading
    settings: Sequence[Setting]
    known: Known

    def problems(self, *, of_the_api: bool = False) -> Iterator[str]:
        """Yield all problems, each with file and line.

        :param of_the_api: whether it is for the REST API, which needs no name of a host.
        """
        parts = () if of_the_api else (_of_host,)
        for problem in _problems(self.conf, self.known, *parts):
            yield self.located(problem)

    def unread(self) -> Iterator[str]:
        """Yield the settings that no service reads."""
        known = self.known
        return unread.unread(self.settings, known.names(), known.elsewhere, known.idle)

    def located(self, problem: str) -> str:
        """Add file and line to a text that begins with an option."""
        return files.located(problem, self.settings)


def read(argv: Sequence[str], *, of_the_api: bool | None = None) -> Candidate:
    """Read a command line and the files that it names.

    :param of_the_api: whether to read sections of the REST API; None: if the files have any, and
        its libraries are installed.
    :raises ConfigInvalid: if they can't be read, naming the file and the line.
    """
    settings = files.read(files.find(argv, PROJECT))
    if of_the_api is None:
        has_any = any(each.section in options.OF_THE_API for each in settings)
        of_the_api = has_any and options.knows_the_api()
    known = Known.of(settings, of_the_api=of_the_api)
    conf = Reading()
    options.register_log_options(conf)
    for section, each in known.options.items():
        conf.register_opts(each, group=None if section == DEFAULT else section)
    try:
        conf([*argv], project=PROJECT, version=version.release())
    except (cfg.Error, OSError, ValueError) as error:
        # Neither the error nor its text may be shown: they may quote a line.
        raise exception.ConfigInvalid(
            f"{', '.join(dict.fromkeys(each.path for each in settings))} can't be read: "
            f"{type(error).__name__}"
        ) from None
    return Candidate(conf, settings, known)


def check(argv: Sequence[str], *, of_the_api: bool = False) -> Candidate:
    """Read and check a command line and the files that it names.

    :raises ConfigInvalid: naming option and file of the first problem.
    """
    found = read(argv, of_the_api=of_the_api)
    for problem in found.problems(of_the_api=of_the_api):
        raise exception.ConfigInvalid(problem)
    return found


def _problems(conf: cfg.ConfigOpts, known: Known, *parts: Part) -> Iterator[str]:
    wrong = [*known.problems]
    for section, each in known.options.items():
        wrong += values.problems(conf, section, each)
    yield from wrong
    if wrong:
        # Combinations can only be checked with valid values.
        return
    for part in (*parts, _of_rules, _of_libvirt, _of_transport, tls.problems, logs.problems):
        try:
            yield from part(conf)
        except exception.ConfigInvalid as error:
            yield str(error)


def _of_host(conf: cfg.ConfigOpts) -> Iterator[str]:
    host_name.of(conf)
    yield from ()


def _of_rules(conf: cfg.ConfigOpts) -> Iterator[str]:
    read_rules(conf)
    yield from ()


def _of_libvirt(conf: cfg.ConfigOpts) -> Iterator[str]:
    if not _LIBVIRT.fullmatch(conf.libvirt.connection_uri):
        yield (
            "[libvirt] connection_uri: it must be a libvirt URI with a known driver, such as "
            "qemu:///system"
        )


def _of_transport(conf: cfg.ConfigOpts) -> Iterator[str]:
    notifications = "oslo_messaging_notifications"
    for section, text in (
        (DEFAULT, conf.transport_url),
        (notifications, conf[notifications].transport_url),
    ):
        if text or section == DEFAULT:
            url.parse(f"[{section}] transport_url", text)
    url.check_rabbit(conf)
    yield from ()
