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

"""The pages of the installation guide, each followed on a host made to look as it describes."""

import json
from pathlib import Path
import re
import shutil
import tempfile
import textwrap

import pytest

from kongming.hypervisor.connection import run_event_loop
from kongming.status import hook
from kongming.tests.integration.conftest import Cloud
from kongming.tests.testbed.guided_host import GuidedHost, steps
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.pages import INSTALL
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.reachable import PASSWORD, USER, ReachableLibvirtd, auth_conf
from kongming.tests.thorough import stories

pytestmark = pytest.mark.needs_mounts

HANDLER = "kongming-notification-handler"
HOOK = hook.FOLDER / hook.NAME
STATUS = "runuser -u kongming -- /opt/kongming/bin/kongming-status upgrade check"


@pytest.fixture
def root():
    """A folder that all users may enter, with a short path."""
    run_event_loop()
    root = Path(tempfile.mkdtemp(prefix="kongming-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root, ignore_errors=True)


class Guide:
    """A page, a host, and the libvirtd and the cloud of it."""

    def __init__(self, page, host, libvirtd, cloud, values):
        self._host, self._libvirtd, self._cloud = host, libvirtd, cloud
        # Step 1 of each page: the program is there, in the environment that runs the tests.
        linked = [step for step in steps("index", {}) if step.startswith("ln -s")]
        self._steps = [*linked, *steps(page, values)]

    def follow(self, *, without=(), instead=()):
        """Type all steps of the page but those with one of these texts in them."""
        for old, new in instead:
            self._steps = [step.replace(old, new) for step in self._steps]
        for text in without:
            assert any(text in step for step in self._steps), f"no step has {text}"
        done = [step for step in self._steps if not any(text in step for text in without)]
        self.check_is_last = done[-1] == STATUS
        # The command of the status comes last; it is run later.
        self._host.run(*(step for step in done if step != STATUS))
        known = ("passwd", "group")
        self._libvirtd.meet(*(self._host.run(f"getent {each} kongming") for each in known))

    def check(self):
        """Return what kongming-status finds, as the unit's user: details of what is no success."""
        output = self._host.run(f"{STATUS} --json || [ $? -lt 255 ]")
        return {
            check["check"]: check["details"]
            for check in json.loads(output)["checks"]
            if check["result"]
        }

    def place(self, cpus):
        """Have a guest placed by the service that the page has started."""
        guest = self._cloud.guest()
        self._host.wait_log(HANDLER, "Ready: listening")
        wait_until(lambda: self._placed(guest, cpus[0]), 60, "the guest is placed")
        log = self._host.log(HANDLER)
        assert PASSWORD not in log
        assert "Traceback" not in log

    def _placed(self, guest, cpu):
        self._cloud.publish(guest, str(cpu), host=self._cloud.host)
        return set(guest.affinity().values()) == {frozenset([cpu])}


@pytest.fixture
def guided(root, broker, tmp_path):
    """Return a function that makes a host and a libvirtd for a page, and follows it."""
    ended = []

    def guided(page, *, values=None, make=(), **options):
        libvirtd = ReachableLibvirtd(root / "libvirt", **options)
        (root / "libvirt").mkdir(mode=0o755)
        host = GuidedHost(root)
        for each in (libvirtd, host):
            each.__enter__()
            ended.append(each)
        cloud = Cloud(broker, libvirtd, tmp_path)
        cloud.host = "compute-1"
        ended.append(cloud)
        url = broker.transport_url()
        more = (
            f"[DEFAULT]\nhost = {cloud.host}\n\n[notification_handler]\n"
            f"exchange = {cloud.exchange}\npool = {cloud.exchange}.$host\n"
            f"topics = {cloud.exchange}\n\n"
            "[oslo_messaging_notifications]"
        )
        values = {
            "rabbit://openstack:RABBITPASS@controller:5672/": url,
            "rabbit://openstack:RABBITPASS@192.0.2.10:5672/": url,
            "rabbit://nova:RABBITPASS@192.0.2.10:5671/nova": url,
            "[oslo_messaging_notifications]": more,
            **{old: new.format(libvirtd=libvirtd) for old, new in (values or {}).items()},
        }
        # What Nova declares is durable where it uses quorum queues.
        durable = any("rabbit_quorum_queue = true" in step for step in steps(page, {}))
        cloud.nova = Nova(url, exchange=cloud.exchange, topic=cloud.exchange, durable=durable)
        host.run(*(command.format(libvirtd=libvirtd) for command in make))
        return Guide(page, host, libvirtd, cloud, values)

    yield guided
    for each in reversed(ended):
        if isinstance(each, Cloud):
            each.close()
        else:
            each.__exit__(None, None, None)


# The socket of our libvirtd in place of the machine's; all else is as the page has it.
SOCKET = {
    "[oslo_messaging_rabbit]\nssl = true": "[oslo_messaging_rabbit]\nssl = false",
    "driver = messagingv2": "driver = messagingv2\n\n[libvirt]\n"
    "connection_uri = qemu:///system?socket={libvirtd.folder}/libvirt-sock",
}
NOVA = (
    "mkdir -p /etc/nova",
    "echo 'transport_url = rabbit://nova:x@192.0.2.10:5671/nova?ssl=1' > /etc/nova/nova.conf",
)
GROUP = {"unix_sock_group": "libvirt", "unix_sock_rw_perms": "0770"}


@stories("page", ["packages", "openstack-ansible"])
def test_the_page_leads_to_a_placed_guest_where_a_group_opens_the_socket(guided, cpus, page):
    guide = guided(page, values=SOCKET, make=NOVA, settings=GROUP)
    guide.follow()
    assert guide.check_is_last
    guide.place(cpus)
    assert not guide.check().keys() & {"libvirt", "Configuration", "State path"}
    guide._host.run(f"test -x {HOOK}")


@pytest.mark.parametrize(
    "page", ["index", "packages", "openstack-ansible", "kolla-ansible", "containers"]
)
def test_a_page_of_hosts_installs_the_hook_where_libvirt_searches_for_it(page):
    typed = [step.split() for step in steps(page, {}) if hook.NAME in step]
    assert ["install", "-D", "-m", "0755", f"etc/libvirt/{hook.NAME}", str(HOOK)] in typed
    assert "be migrated to" in " ".join((INSTALL / f"{page}.rst").read_text().split())


@pytest.mark.parametrize(
    "page", ["packages", pytest.param("openstack-ansible", marks=pytest.mark.slow)]
)
def test_a_user_that_was_not_added_to_the_group_is_found_by_the_check(guided, page):
    guide = guided(page, values=SOCKET, make=NOVA, settings=GROUP)
    guide.follow(without=["usermod", "systemctl"])
    assert "'usermod -aG libvirt kongming'" in guide.check()["libvirt"]


KOLLA = (
    "sed -i /^libvirt:/d /etc/group",
    "mkdir -p /etc/kolla/nova-compute",
    f"printf '{auth_conf(USER, PASSWORD, 'default')}' > /etc/kolla/nova-compute/auth.conf",
    "chmod 600 /etc/kolla/nova-compute/auth.conf",
    "cd {libvirtd.certificates} && cp cacert.pem client*.pem /etc/kolla/nova-compute",
    "echo 'connection_uri = qemu+tcp://192.0.2.11/system' > /etc/kolla/nova-compute/nova.conf",
)
TCP = {"192.0.2.11/": "localhost:{libvirtd.tcp_port}/"}
# As the page has it for libvirt_tls.
TLS = {
    "qemu+tcp://192.0.2.11/system?": "qemu+tls://localhost:{libvirtd.tls_port}/system?"
    "pkipath=/etc/kongming/pki&"
}


@stories("values", [TCP, TLS], ids=["tcp", "tls"])
def test_the_page_of_kolla_ansible_leads_to_a_placed_guest(guided, cpus, values):
    guide = guided("kolla-ansible", values=values, make=KOLLA, login=True)
    guide.follow()
    assert guide.check_is_last
    guide.place(cpus)
    assert not guide.check().keys() & {"libvirt", "Configuration", "State path"}


@pytest.mark.parametrize(
    ("values", "missing", "message"),
    [
        (TCP, "/etc/kolla/nova-compute/auth.conf", "can't read /etc/kongming/auth.conf (No such"),
        (TLS, "*.pem", "can't read the certificates (/etc/kongming/pki/"),
    ],
    ids=["auth.conf", "certificates"],
)
def test_an_omitted_step_of_the_kolla_ansible_page_is_found_by_the_check(
    guided, values, missing, message
):
    guide = guided("kolla-ansible", values=values, make=KOLLA, login=True)
    guide.follow(without=[missing, "systemctl"])
    assert message in guide.check()["libvirt"]


def test_an_auth_conf_that_the_service_may_not_read_is_found_by_the_check(guided):
    guide = guided("kolla-ansible", values=TCP, make=KOLLA, login=True)
    guide.follow(
        without=["systemctl"],
        instead=[("-g kongming -m 0640 /etc/kolla", "-g root -m 0600 /etc/kolla")],
    )
    assert "user kongming can't read /etc/kongming/auth.conf" in guide.check()["libvirt"]


def test_without_the_drop_in_a_host_without_the_group_does_not_start_the_unit(guided):
    guide = guided("kolla-ansible", values=TCP, make=KOLLA, login=True)
    with pytest.raises(RuntimeError, match="libvirt"):
        guide.follow(without=["kolla.conf"])


# What the plug-in calls of DevStack's, as far as it does anything on such a host.
DEVSTACK = r"""
DEST=/opt/stack DATA_DIR=/opt/stack/data STACK_USER=stack LIBVIRT_GROUP=libvirt SERVICE_HOST=h
NOVA_CONF=/etc/nova/nova.conf ENABLED_SERVICES="" ENABLE_DEBUG_LOG_LEVEL=True
define_plugin() { :; }
echo_summary() { :; }
setup_logging() { :; }
sudo() { "$@"; }
get_python_exec_prefix() { echo /opt/kongming/bin; }
get_transport_url() { echo "$TRANSPORT_URL"; }
is_service_enabled() { [[ ,$ENABLED_SERVICES, == *,$1,* ]]; }
enable_service() { for each; do ENABLED_SERVICES+=,$each; done; }
disable_service() { for each; do ENABLED_SERVICES=${ENABLED_SERVICES//,$each/}; done; }
restart_service() { echo "restarted $1"; }
enable_plugin() { . devstack/settings; }
iniset() { printf '[%s]\n%s = %s\n' "$2" "$3" "$4" >> "$1"; chown stack "$1"; }
iniset_rpc_backend() { iniset "$2" DEFAULT transport_url "$TRANSPORT_URL"; }
run_process() {
    is_service_enabled "$1" || return 0
    printf '[Service]\nUser=stack\nGroup=%s\nExecStart=%s\n' "$3" "$2" \
        > "/etc/systemd/system/devstack@$1.service"
    systemctl start "devstack@$1"
}
"""
DEVSTACK_HANDLER = "devstack@kongming-handler"


def test_the_page_of_devstack_leads_to_a_placed_guest(guided, broker, cpus):
    guide = guided("devstack", make=NOVA, settings=GROUP)
    host, libvirtd, cloud = guide._host, guide._libvirtd, guide._cloud
    (local_conf,) = re.findall(
        r"localrc\]\]\n((?: .*\n)+)", (INSTALL / "devstack.rst").read_text()
    )
    host.run("useradd --create-home --home-dir /opt/stack stack", "usermod -aG libvirt stack")
    libvirtd.meet(*(host.run(f"getent {each} stack") for each in ("passwd", "group")))
    typed = textwrap.dedent(local_conf)
    more = (
        ("DEFAULT", "host", cloud.host),
        ("libvirt", "connection_uri", libvirtd.over("unix")),
        ("notification_handler", "exchange", cloud.exchange),
        ("notification_handler", "pool", f"{cloud.exchange}.$host"),
        ("notification_handler", "topics", cloud.exchange),
    )
    script = [
        DEVSTACK,
        f"TRANSPORT_URL={broker.transport_url()}",
        typed,
        "enable_service n-cpu",
        "KONGMING_DIR=$PWD",
        ". devstack/plugin.sh stack post-config",
        *(f"iniset $KONGMING_CONF {group} {key} '{value}'" for group, key, value in more),
        ". devstack/plugin.sh stack extra",
    ]
    assert "restarted libvirtd" in host.run("bash -e <<'STACK'", *script, "STACK")
    host.run(f"test -x {HOOK}")
    host.wait_log(DEVSTACK_HANDLER, "Ready: listening")
    check = "runuser -u stack -- /opt/kongming/bin/kongming-status --config-file "
    output = host.run(
        f"{check} /etc/kongming/kongming.conf upgrade check --json || [ $? -lt 255 ]"
    )
    found = {each["check"]: each["result"] for each in json.loads(output)["checks"]}
    assert found["libvirt"] == found["State path"] == 0, output
    host.run(*(step for step in guide._steps if not step.startswith("ln -s")))
    wait_until(
        lambda: host.log(DEVSTACK_HANDLER).count("Ready: listening") == 2, 60, "it runs again"
    )
    guest = cloud.guest()
    wait_until(lambda: guide._placed(guest, cpus[0]), 60, "the guest is placed")
    pid = int((host.root / f"{DEVSTACK_HANDLER}.pid").read_text())
    effective = re.search(r"CapEff:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    nice, ptrace = 1 << 23, 1 << 19
    assert int(effective[1], 16) == nice | ptrace
