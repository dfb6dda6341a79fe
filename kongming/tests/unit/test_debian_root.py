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

"""What a Debian root gets of the machine's settings, and where its packages come from."""

import subprocess

import pytest

from kongming.tests.testbed import debian_root
from kongming.tests.testbed.root_init import Place, mount_options

APT = """\
APT::Architecture "amd64";
Acquire::http::Proxy "http://proxy.example.org:3142";
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::Packages::KeepCompressed "true";
Acquire::https::CAInfo "/etc/ca.pem";
Dir::Cache "var/cache/apt";
"""
PIP = """\
:env:.cert='/missing/ca.pem'
global.index-url='https://pypi.example.org/simple'
global.extra-index-url='file:///opt/simple https://more.example.org/simple'
global.find-links='/opt/wheels'
global.constraint='/etc/constraints.txt'
install.trusted-host='pypi.example.org'
"""


def test_only_the_mirror_settings_of_apt_are_handed_over():
    apt = debian_root.handed_over({}, APT, "").apt
    assert [line.partition(" ")[0] for line in apt] == [
        "Acquire::http::Proxy",
        "Acquire::Check-Valid-Until",
        "Acquire::https::CAInfo",
    ]


def test_the_registries_of_pip_are_handed_over_without_local_paths():
    assert debian_root.handed_over({}, "", PIP).environment == {
        "PIP_CERT": "/missing/ca.pem",
        "PIP_INDEX_URL": "https://pypi.example.org/simple",
        "PIP_EXTRA_INDEX_URL": "https://more.example.org/simple",
        "PIP_TRUSTED_HOST": "pypi.example.org",
    }


def test_proxies_are_handed_over_and_other_variables_are_not():
    machines = {"https_proxy": "http://p:1", "NO_PROXY": "localhost", "SECRET": "x", "HOME": "/h"}
    kept = debian_root.handed_over(machines, "", "").environment
    assert kept == {"https_proxy": "http://p:1", "NO_PROXY": "localhost"}


def test_a_setting_without_a_value_is_not_handed_over():
    local_only = "global.extra-index-url='file:///opt/simple'\n"
    assert debian_root.handed_over({}, "", local_only).environment == {}


def test_a_file_that_a_setting_names_is_copied_where_no_package_replaces_it(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("certificates")
    kept = debian_root.handed_over({"SSL_CERT_FILE": str(bundle)}, "", f"global.cert='{bundle}'\n")
    assert kept.environment == {
        "SSL_CERT_FILE": "/etc/handed-over/SSL_CERT_FILE",
        "PIP_CERT": "/etc/handed-over/PIP_CERT",
    }
    debian_root.lay_settings(tmp_path / "root", kept)
    assert (tmp_path / "root/etc/handed-over/PIP_CERT").read_text() == "certificates"


@pytest.mark.parametrize(
    ("targets", "mirror"),
    [
        ("|| http://a\nDebian|Debian|http://b/debian/\n", "http://b/debian"),
        ("Debian|Debian-Security|http://s/\nDebian|Debian|http://b\n", "http://b"),
        ("Acme|Debian|http://a/\nDebian|Debian|http://b/|c\n", "http://b/|c"),
    ],
)
def test_the_mirror_is_the_debian_archive_of_the_machine(monkeypatch, targets, mirror):
    monkeypatch.setattr(debian_root, "output", lambda *_: targets)
    assert debian_root.machines_mirror() == mirror


@pytest.mark.parametrize("targets", ["", "Ubuntu|Ubuntu|http://u/\n"])
def test_a_machine_without_a_debian_archive_is_refused_with_the_remedy(monkeypatch, targets):
    monkeypatch.setattr(debian_root, "output", lambda *_: targets)
    with pytest.raises(RuntimeError, match="--mirror"):
        debian_root.machines_mirror()


@pytest.mark.parametrize("confined", [True, False])
def test_only_a_container_has_sys_and_its_control_groups_read_only(confined):
    place = Place("/r", None, confined, "/", {}, ("true",))
    on_sys = [options for options in mount_options(place) if "/sys" in options[-1]]
    assert all(("ro" in options) == confined for options in on_sys)
    assert len(on_sys) == (2 if confined else 1)


def test_a_layer_that_is_kept_gets_the_tree_as_it_is_now(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "root/there"
    monkeypatch.setattr(debian_root, "TOP", here)

    def commit(name):
        (here / name).touch()
        subprocess.run([*git, "add", name], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", name], check=True)

    git = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", "-C", here]
    subprocess.run(["git", "init", "--quiet", here], check=True)
    (here / ".gitignore").write_text("build\n")
    commit("old")
    (here / "new").touch()
    debian_root.lay_tree(there)
    (there / "build").touch()
    (there / "from-there").touch()
    (here / "old").unlink()
    (here / "new").rename(here / "renamed")
    commit("committed")
    debian_root.lay_tree(there)
    names = {path.name for path in there.iterdir()}
    assert names == {".git", ".gitignore", "build", "committed", "renamed"}
    assert (
        subprocess.check_output(["git", "-C", there, "ls-files"], text=True) == "committed\nold\n"
    )
