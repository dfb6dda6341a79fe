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

"""The configuration files of all services: what a smallest cloud of one host needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
import shutil

from kongming.tests.testbed.openstack.database import database_url
from kongming.tests.testbed.openstack.site import PASSWORD, REGION, USER, Site

Options = Mapping[str, object]
Sections = Mapping[str, Options]


def write(site: Site) -> None:
    """Write all of them; what they name is made, too."""
    for service, sections in _all(site).items():
        folder = site.etc / service
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _file_name(service)).write_text(text(sections))
    for name in ("instances", "state", "lock"):
        (site.root / name).mkdir(exist_ok=True)
    _policy_file(site).write_text(_policy())
    # Nova's API looks for it beside nova.conf only.
    shutil.copy(site.venv / "etc/nova/api-paste.ini", site.etc / "nova")


def path(site: Site, service: str) -> Path:
    """A service's configuration file."""
    return site.etc / service / _file_name(service)


def _all(site: Site) -> dict[str, Sections]:
    return {
        "keystone": _keystone(site),
        "placement": _placement(site),
        "glance": _glance(site),
        "neutron": _neutron(site),
        "nova": _nova(site),
    }


def _file_name(service: str) -> str:
    return {"glance": "glance-api.conf"}.get(service, f"{service}.conf")


def text(sections: Sections) -> str:
    """The text of a configuration file."""
    lines = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in options.items())]
    return "\n".join([*lines, ""])


def _keystone(site: Site) -> Sections:
    keys = {name: site.etc / "keystone" / name for name in ("fernet-keys", "credential-keys")}
    return {
        "database": {"connection": database_url(site, "keystone")},
        # No run lasts as long.
        "token": {"expiration": 86400},
        "fernet_tokens": {"key_repository": keys["fernet-keys"]},
        "fernet_receipts": {"key_repository": keys["fernet-keys"]},
        "credential": {"key_repository": keys["credential-keys"]},
        # It is one process: its own memory will do. Each request to any service has it check
        # a token, which takes it a second otherwise on a busy machine.
        "cache": {"enabled": "true", "backend": "dogpile.cache.memory"},
        # Passwords that anybody can read need no strong hash, which takes its time.
        "identity": {"password_hash_rounds": 4},
    }


def _placement(site: Site) -> Sections:
    return {
        "api": {"auth_strategy": "keystone"},
        "placement_database": {"connection": database_url(site, "placement")},
        **_token_check(site),
    }


def _glance(site: Site) -> Sections:
    def store(name: str) -> Options:
        folder = site.root / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        return {"filesystem_store_datadir": folder}

    return {
        "DEFAULT": {
            "enabled_backends": "local:file",
            "worker_self_reference_url": site.url("glance"),
        },
        "oslo_concurrency": {"lock_path": site.root / "lock"},
        "database": {"connection": database_url(site, "glance")},
        "glance_store": {"default_backend": "local"},
        "local": store("local"),
        "os_glance_staging_store": store("staging"),
        "os_glance_tasks_store": store("tasks"),
        "paste_deploy": {
            "flavor": "keystone",
            "config_file": site.venv / "etc/glance/glance-api-paste.ini",
        },
        "oslo_messaging_notifications": {"driver": "noop"},
        **_token_check(site),
    }


def _neutron(site: Site) -> Sections:
    return {
        "DEFAULT": {
            "state_path": site.root / "state",
            "core_plugin": "ml2",
            # Without the latter's tables to list ports is an error.
            "service_plugins": "router,port_forwarding",
            "transport_url": site.transport_url,
            "api_paste_config": site.venv / "etc/neutron/api-paste.ini",
            "notify_nova_on_port_status_changes": "false",
            "notify_nova_on_port_data_changes": "false",
        },
        "oslo_concurrency": {"lock_path": site.root / "lock"},
        "oslo_messaging_notifications": {"driver": "noop"},
        "database": {"connection": database_url(site, "neutron")},
        # The guests have no ports: no driver, no agents, no bridges.
        "ml2": {
            "type_drivers": "local",
            "project_network_types": "local",
            "mechanism_drivers": "",
            "extension_drivers": "",
        },
        **_token_check(site),
    }


def _nova(site: Site) -> Sections:
    helper = site.program("privsep-helper")
    others = {service: _credentials(site) for service in ("placement", "glance", "neutron")}
    consoles = {console: {"enabled": "false"} for console in ("vnc", "spice", "serial_console")}
    return {
        "DEFAULT": {
            "host": site.host,
            "state_path": site.root / "state",
            "instances_path": instances_path(site),
            "transport_url": site.transport_url,
            "compute_driver": "libvirt.LibvirtDriver",
            "allow_resize_to_same_host": "true",
            "resume_guests_state_on_host_boot": "true",
            # Shelved instances stay until they are offloaded on request.
            "shelved_offload_time": -1,
            # Seconds until what was deleted is gone for good: longer than any run.
            "reclaim_instance_interval": 86400,
            # Seconds for a guest to power off by itself.
            "shutdown_timeout": 10,
            "graceful_shutdown_timeout": 15,
            "manager_shutdown_timeout": 5,
            "initial_cpu_allocation_ratio": 32,
            "initial_disk_allocation_ratio": 8,
            "reserved_host_disk_mb": 0,
            "reserved_host_memory_mb": 0,
        },
        # As Kongming's README describes.
        "notifications": {
            "notification_format": "both",
            "notify_on_state_change": "vm_state",
        },
        "oslo_messaging_notifications": {
            "driver": "messagingv2",
            "transport_url": site.transport_url,
        },
        "api": {"auth_strategy": "keystone"},
        "oslo_policy": {"policy_file": _policy_file(site)},
        "api_database": {"connection": database_url(site, "nova_api")},
        "database": {"connection": database_url(site, "nova_cell1")},
        "wsgi": {"api_paste_config": site.etc / "nova/api-paste.ini"},
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1},
        "compute": {"consecutive_build_service_disable_threshold": 0},
        "oslo_concurrency": {"lock_path": site.root / "lock"},
        "libvirt": {
            "virt_type": "qemu",
            "cpu_mode": "none",
            "wait_soft_reboot_seconds": 10,
            # What Nova puts into it is the other host's address.
            "live_migration_uri": f"qemu+unix:///system?socket={_sockets(site)}/%s",
        },
        "nova_sys_admin": {
            "helper_command": f"{helper} --config-file {path(site, 'nova')}",
        },
        **consoles,
        **others,
        "service_user": {"send_service_user_token": "true", **_credentials(site)},
        **_token_check(site),
    }


def compute(site: Site, connection_uri: str, host: str, address: str) -> dict[str, Options]:
    """Return the further options of one host's nova-compute."""
    state = state_path(site, host)
    state.mkdir(exist_ok=True)
    return {
        "DEFAULT": {"host": host, "my_ip": address, "state_path": state},
        "oslo_concurrency": {"lock_path": state},
        "libvirt": {
            "connection_uri": connection_uri,
            "live_migration_inbound_addr": address,
        },
    }


def instances_path(site: Site) -> Path:
    """Return where the disks of guests are, on each host."""
    return site.root / "instances"


def state_path(site: Site, host: str) -> Path:
    """Return the folder in which nova-compute of a host keeps who it is."""
    return site.root / host


def announce(site: Site, socket: Path, address: str) -> None:
    """Have other hosts find the libvirt of the host with this address."""
    _sockets(site).mkdir(exist_ok=True)
    link = _sockets(site) / address
    link.unlink(missing_ok=True)
    link.symlink_to(socket)


def _sockets(site: Site) -> Path:
    return site.root / "libvirt"


def _policy_file(site: Site) -> Path:
    return site.etc / "nova/policy.yaml"


def _policy() -> str:
    """What others than the administrator may do besides.

    The service user what the documentation requires; and who shelves a server may have it
    leave the host, since here it does not do so by itself: the acceptance tests expect that.
    """
    rules = (
        "os_compute_api:servers:detail:get_all_tenants",
        "os_compute_api:servers:allow_all_filters",
        "os_compute_api:os-extended-server-attributes",
    )
    who = f"rule:context_is_admin or role:{USER}"
    offload = '"os_compute_api:os-shelve:shelve_offload": "rule:project_member_or_admin"\n'
    return "".join(f'"{rule}": "{who}"\n' for rule in rules) + offload


def _token_check(site: Site) -> Sections:
    """By which a service finds out whose request it is."""
    return {
        "keystone_authtoken": {
            "www_authenticate_uri": site.identity_url,
            **_credentials(site),
        }
    }


def _credentials(site: Site) -> Options:
    """Return the options for requests to another service."""
    return {
        "auth_type": "password",
        "auth_url": site.identity_url,
        "username": "admin",
        "password": PASSWORD,
        "project_name": "admin",
        "user_domain_id": "default",
        "project_domain_id": "default",
        "region_name": REGION,
    }
