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

"""Live migrations between two libvirts on this machine, with what Nova passes to libvirt."""

from __future__ import annotations

from collections.abc import Sequence
import threading
from types import TracebackType
from typing import Any, Self
import xml.etree.ElementTree as ET

import libvirt

from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.process import free_port, wait_until

MIGRATABLE = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
TIMEOUT = 60
SLOW_MIB_S, FAST_MIB_S = 1, 10_000


def migrate(domain: Any, connection: Any, xml: str | None = None) -> Any:
    """Migrate a domain; give the one that runs there. It is persistent there if it is here.

    :param xml: what the source hands on as its definition, if that is to be another
    """
    flags, parameters = _options(domain, xml)
    return domain.migrate3(connection, parameters, flags)


def regranted(domain: Any, granted: Sequence[str]) -> str:
    """Return what Nova hands on of a guest with a NUMA topology, with what it gives it there.

    :param granted: the host CPUs of each vCPU, in libvirt's form
    """
    root = ET.fromstring(domain.XMLDesc(MIGRATABLE))
    for vcpu, cpuset in enumerate(granted):
        _set(root, f"cputune/vcpupin[@vcpu='{vcpu}']", cpuset=cpuset)
    for name in ("emulatorpin", "iothreadpin"):
        _set(root, f"cputune/{name}", cpuset=",".join(granted))
    _set(root, "numatune/memnode", nodeset="0")
    _set(root, "numatune/memory", nodeset="0")
    return ET.tostring(root, encoding="unicode")


class Migration:
    """A migration that goes on until it is let end; a context manager, which ends it.

    The guest must be a filled one, which has something to send.

    :param xml: as for `migrate`
    :ivar error: libvirt's, if it has failed
    """

    def __init__(
        self, instance_uuid: str, here: Libvirtd, there: Libvirtd, xml: str | None = None
    ) -> None:
        # libvirtd lets a connection have few calls at a time.
        self._here, self._waiting, self._there = here.connect(), here.connect(), there.connect()
        self._uuid = instance_uuid
        self._xml = xml
        self.error: libvirt.libvirtError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.goes_on and self.sent, TIMEOUT, "the migration goes on")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self.finish()

    @property
    def goes_on(self) -> bool:
        """Tell whether libvirt has a job under way on the guest, where it comes from."""
        try:
            return bool(self._source().jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)
        except libvirt.libvirtError:
            return False

    @property
    def sent(self) -> int:
        """How many bytes of the memory were sent."""
        return int(self._source().jobStats().get(libvirt.VIR_DOMAIN_JOB_MEMORY_PROCESSED, 0))

    def finish(self) -> None:
        """Let it go on quickly, and wait for its end."""
        source = self._source()
        for flags in (0, libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY):
            source.migrateSetMaxSpeed(FAST_MIB_S, flags)
        self.join()

    def abort(self) -> None:
        """Abort it, as Nova does on request."""
        self._source().abortJob()
        self.join()

    def destroy_destination(self) -> None:
        """Have it fail, as if the host that it goes to died."""
        self._there.lookupByUUIDString(self._uuid).destroy()
        self.join()

    def start_post_copy(self) -> None:
        """Have the guest run where it goes to, and its memory follow."""
        self._source().migrateStartPostCopy()
        wait_until(
            lambda: (
                self._there.lookupByUUIDString(self._uuid).state()
                == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY]
            ),
            TIMEOUT,
            "the guest runs there",
        )

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), "the migration did not end"

    def _source(self) -> Any:
        return self._here.lookupByUUIDString(self._uuid)

    def _run(self) -> None:
        domain = self._waiting.lookupByUUIDString(self._uuid)
        flags, parameters = _options(domain, self._xml)
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = SLOW_MIB_S
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = SLOW_MIB_S
        try:
            domain.migrate3(self._there, parameters, flags | libvirt.VIR_MIGRATE_POSTCOPY)
        except libvirt.libvirtError as error:
            self.error = error


def _set(root: ET.Element, path: str, **attributes: str) -> None:
    found = root.find(path)
    assert found is not None, f"Nova needs {path} to be there"
    found.attrib.update(attributes)


def _options(domain: Any, xml: str | None) -> tuple[int, dict[str, Any]]:
    parameters: dict[str, Any] = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://127.0.0.1:{free_port()}"}
    flags = libvirt.VIR_MIGRATE_LIVE
    if xml is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = xml
    if domain.isPersistent():
        # Nova hands on one and the same for both.
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        parameters[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] = xml or domain.XMLDesc(MIGRATABLE)
    return flags, parameters
