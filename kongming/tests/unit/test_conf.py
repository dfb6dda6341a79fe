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

"""The options: names and defaults that are a contract."""

import socket

import pytest

from kongming import conf as kongming_conf
from kongming.cmd import launch
from kongming.conf import opts

CLASSIC = """
[oslo_messaging_notifications]
transport_url = rabbit://user:password@host:5672/
driver = messagingv2
"""


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "kongming.conf"
    path.write_text(CLASSIC)
    return launch.configure([f"--config-file={path}"])


def test_the_classic_configuration_is_enough(conf):
    assert conf.host == socket.gethostname()
    assert conf.state_path == "/var/lib/kongming"
    assert conf.notification_handler.exchange == "nova"
    assert conf.notification_handler.topics == []
    assert conf.notification_handler.pool == f"kongming.{socket.gethostname()}"
    assert conf.libvirt.connection_uri == "qemu:///system"


def test_every_option_has_help():
    for _group, options in opts.own_opts():
        for option in options:
            assert option.help
            assert option.help.endswith(".")


def test_the_libraries_defaults_suit_us(conf):
    from oslo_messaging._drivers import impl_rabbit
    from oslo_service import _options

    kongming_conf.set_library_defaults()
    defaults = {o.name: o.default for o in [*impl_rabbit.rabbit_opts, *_options.service_opts]}
    assert defaults["rabbit_qos_prefetch_count"] == 100
    assert defaults["graceful_shutdown_timeout"] == 9
