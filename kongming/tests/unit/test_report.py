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

"""The report of a running service."""

import sys

from oslo_config import cfg
import pytest

from kongming import conf as kongming_conf
from kongming.runtime import report


@pytest.fixture
def conf():
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt("password", default="topsecret", secret=True)])
    kongming_conf.register_opts(conf)
    # Those of the libraries may refer to options that the global configuration lacks.
    kongming_conf.set_library_defaults()
    conf([], default_config_files=[], default_config_dirs=[])
    return conf


def test_a_report_has_the_stacks_and_the_options_without_secrets(conf, capsys):
    report.write(conf, "kongming-executor")
    written = capsys.readouterr().err
    assert "test_a_report_has_the_stacks" in written
    assert "pull_interval = " in written
    assert "password = ***" in written
    assert "topsecret" not in written


def test_a_report_goes_to_the_configured_directory(conf, tmp_path, capsys):
    report.write(conf, "kongming-executor")
    capsys.readouterr()
    conf.set_override("log_dir", str(tmp_path), group="oslo_reports")
    report.write(conf, "kongming-executor")
    (found,) = tmp_path.iterdir()
    assert found.name.startswith("kongming-executor_")
    assert "pull_interval" in found.read_text()
    assert capsys.readouterr().err == ""


def test_a_missing_package_is_logged_and_the_service_goes_on(conf, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "oslo_reports", None)
    report.write(conf, "kongming-executor")
    assert "No report" in caplog.text


def test_a_report_that_can_not_be_written_is_logged_and_the_service_goes_on(conf, caplog, capsys):
    report.write(conf, "kongming-executor")
    capsys.readouterr()
    conf.set_override("log_dir", "/absent", group="oslo_reports")
    report.write(conf, "kongming-executor")
    assert "can't be written (FileNotFoundError)" in caplog.text
