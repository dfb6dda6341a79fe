#!/usr/bin/env python3
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

"""Write the domain XML that Nova makes of guests on a host with two NUMA nodes.

    NOVA/bin/python tools/nova_domains.py kongming/tests/data/nova-34.0.0/domains

``NOVA`` is the environment of ``python -m kongming.tests.testbed.openstack.venv``, or a copy
of it, with testtools and wsgi-intercept, which Nova's own fixtures need. Nova fits each
guest to the host, writes its definition and changes it for a live migration; only the host
is the one of its fixtures: nodes of eight CPUs, and half of them dedicated.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path
import sys
from unittest import mock

from nova import config, context, objects
from nova.conf import CONF, neutron
from nova.network import model
from nova.tests.fixtures import libvirt as fixture
from nova.tests.unit import fake_instance
from nova.virt import fake, hardware
from nova.virt.libvirt import blockinfo, driver, migration

NOW = 1_735_689_600
UUID = "70d8b1c4-2d0a-4c80-9b4e-4d3c7a5e1f00"
# The CPUs of a host that Nova shares, and those that it dedicates.
HERE = ("0-3,8-11", "4-7,12-15")
THERE = ("2-3,10-11", "5-7,13-15")
PAGES = fixture.create_mempages([(4, 1_000_000), (2048, 2048)])
LARGE = {"hw:mem_page_size": "large"}
PINNED = {"hw:cpu_policy": "dedicated"}
MIXED = {"hw:cpu_policy": "mixed"}
REALTIME = {"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0"}
# vCPUs and extra specs of each guest's flavor.
FLAVORS = {
    "plain": (2, {}),
    "large-pages": (2, LARGE),
    "two-cells": (4, {"hw:numa_nodes": "2"}),
    "dedicated": (3, {**PINNED, **LARGE}),
    "dedicated-two-cells": (4, {**PINNED, "hw:numa_nodes": "2"}),
    "mixed": (4, {**MIXED, "hw:cpu_dedicated_mask": "^2-3"}),
    "mixed-two-cells": (4, {**MIXED, "hw:cpu_dedicated_mask": "0,2", "hw:numa_nodes": "2"}),
    "realtime": (3, {**PINNED, **REALTIME}),
    "mixed-realtime": (3, {**MIXED, **REALTIME}),
    "emulator-share": (2, {**PINNED, "hw:emulator_threads_policy": "share"}),
    "emulator-isolate": (2, {**PINNED, "hw:emulator_threads_policy": "isolate"}),
}
# Those that are handed to another host, too; and those that are resized on their own, and to what.
MIGRATED = ("plain", "large-pages", "two-cells", "dedicated", "mixed-two-cells", "realtime")
RESIZED = {"dedicated": "realtime", "mixed": "mixed-two-cells"}


class Host:
    """Nova's driver on a host: the fixtures' libvirt, nova.conf's CPUs, and guests there."""

    def __init__(self, shared: str | None, dedicated: str | None, backed_mb: int = 0) -> None:
        CONF.set_override("cpu_shared_set", shared, "compute")
        CONF.set_override("cpu_dedicated_set", dedicated, "compute")
        CONF.set_override("file_backed_memory", backed_mb, "libvirt")
        self.driver = driver.LibvirtDriver(fake.FakeVirtAPI())
        self.topology = self.driver._get_host_numa_topology()
        self._image = objects.ImageMeta.from_dict({"disk_format": "raw", "min_disk": 1})

    def guest(self, flavor: objects.Flavor) -> objects.Instance:
        """Return an instance that the host has room for, as the claim leaves it."""
        needs = hardware.numa_get_constraints(flavor, self._image)
        given = needs and hardware.numa_fit_instance_to_host(self.topology, needs, {})
        assert bool(needs) == bool(given), "no room"
        self.topology = hardware.numa_usage_from_instance_numa(self.topology, given)
        instance = fake_instance.fake_instance_obj(
            context.get_admin_context(),
            uuid=UUID,
            project_id="b3c4",
            flavor=flavor,
            expected_attrs=["system_metadata"],
        )
        # What would be looked for in Nova's database.
        instance.numa_topology, instance.vcpu_model = given, None
        instance.pci_devices = objects.PciDeviceList()
        instance.pci_requests = objects.InstancePCIRequests(requests=[])
        return instance

    def xml(self, instance: objects.Instance) -> str:
        """Return the definition that Nova starts the guest with."""
        disks = blockinfo.get_disk_info("kvm", instance, self._image)
        return str(
            self.driver._get_guest_xml(
                context.get_admin_context(), instance, model.NetworkInfo(), disks, self._image
            )
        )

    def arriving(self, xml: str, instance: objects.Instance) -> str:
        """Return the definition that the source hands to this host in a live migration."""
        data = objects.LibvirtLiveMigrateData(
            graphics_listen_addr_vnc="0.0.0.0",
            graphics_listen_addr_spice="0.0.0.0",
            serial_listen_addr=None,
            serial_listen_ports=[],
            target_connect_addr=None,
            bdms=[],
            vifs=[],
            supported_perf_events=[],
            dst_wants_file_backed_memory=False,
            dst_cpu_shared_set_info=hardware.get_cpu_shared_set() or set(),
        )
        if instance.numa_topology:
            data.dst_numa_info = self.driver._get_live_migrate_numa_info(
                instance.numa_topology, instance.flavor, self._image
            )
        source = mock.Mock(get_xml_desc=lambda **_: xml)
        return str(migration.get_updated_guest_xml(instance, source, data, None))


def flavor(name: str) -> objects.Flavor:
    vcpus, specs = FLAVORS[name]
    return objects.Flavor(
        id=1,
        flavorid=name,
        name=name,
        vcpus=vcpus,
        memory_mb=256 * vcpus,
        root_gb=1,
        ephemeral_gb=0,
        swap=0,
        extra_specs=specs,
    )


def definitions() -> Iterator[tuple[str, str]]:
    """Make each guest; as it is handed to another host; and as it is resized on its own."""
    for name in FLAVORS:
        host = Host(*HERE)
        xml = host.xml(host.guest(flavor(name)))
        yield name, xml
        if name in RESIZED:
            # The old flavor is still counted.
            yield f"{name}-resized", host.xml(host.guest(flavor(RESIZED[name])))
        if name in MIGRATED:
            other = Host(*THERE)
            yield f"{name}-migrated", other.arriving(xml, other.guest(flavor(name)))
    host = Host(None, None)
    yield "plain-anywhere", host.xml(host.guest(flavor("plain")))
    yield "large-pages-anywhere", host.xml(host.guest(flavor("large-pages")))
    host = Host(None, None, backed_mb=4096)
    yield "file-backed", host.xml(host.guest(flavor("plain")))


def main(folder: Path) -> None:
    info = fixture.HostInfo(cpu_nodes=2, cpu_cores=8, mempages=[PAGES, PAGES])
    connection = fixture.Connection("qemu:///system", host_info=info)
    host = "nova.virt.libvirt.host.Host"
    objects.register_all()
    config.parse_args(sys.argv[:1], default_config_files=[], configure_db=False, init_rpc=False)
    neutron.register_dynamic_opts(CONF)
    CONF.set_override("cpu_mode", "none", "libvirt")
    CONF.set_override("instances_path", "/var/lib/nova/instances")
    with contextlib.ExitStack() as stack:
        stack.enter_context(fixture.LibvirtFixture())
        for name, value in (
            (f"{host}.get_connection", connection),
            (f"{host}.get_online_cpus", set(range(16))),
            ("time.time", NOW),
        ):
            stack.enter_context(mock.patch(name, return_value=value))
        folder.mkdir(parents=True, exist_ok=True)
        for name, xml in definitions():
            (folder / f"{name}.xml").write_text(xml.rstrip() + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
