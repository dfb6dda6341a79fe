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

"""The files that TLS to RabbitMQ needs: which of them can't be read is named, and by whom."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from kongming.bus import tls
from kongming.bus.tls import unreadable


def options(**given):
    files = dict.fromkeys(("ssl_ca_file", "ssl_cert_file", "ssl_key_file"), "")
    return SimpleNamespace(**{"ssl": True, **files, **given})


@pytest.mark.parametrize("option", ["ssl_ca_file", "ssl_cert_file", "ssl_key_file"])
def test_a_file_that_is_missing_is_named_with_its_option(tmp_path, option):
    path = str(tmp_path / "x.pem")
    message = f"[oslo_messaging_rabbit] {option} {path}: No such file or directory"
    assert unreadable(options(**{option: path})) == message
    Path(path).touch()
    assert unreadable(options(**{option: path})) == ""


def test_all_faulty_files_are_named(tmp_path):
    message = unreadable(options(ssl_ca_file=str(tmp_path), ssl_key_file="/nowhere/key"))
    assert message.startswith(f"[oslo_messaging_rabbit] ssl_ca_file {tmp_path}: ")
    assert message.endswith("; ssl_key_file /nowhere/key: No such file or directory")


def test_the_user_without_read_permission_is_named(monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "denied")

    monkeypatch.setattr(tls.Path, "open", refuse)
    message = unreadable(options(ssl_key_file="/etc/key"))
    assert message.endswith(f"ssl_key_file /etc/key: user {tls.user()} may not read it")
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    assert "user 4000000000 may not" in unreadable(options(ssl_key_file="/etc/key"))


def test_without_tls_no_file_matters():
    assert unreadable(options(ssl=False, ssl_ca_file="/nowhere")) == ""
