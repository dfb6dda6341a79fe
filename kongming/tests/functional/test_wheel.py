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

"""The wheel: what is installed on hosts and controllers."""

import os
from pathlib import Path
import subprocess
import sys
import zipfile

import pytest

import kongming

ROOT = Path(kongming.__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # Building writes beside the source.
    source = folder / "source"
    tree = subprocess.check_output(["git", "-C", ROOT, "ls-files"], text=True).split("\n")
    for each in filter(None, tree):
        if (file := ROOT / each).is_file():
            (source / each).parent.mkdir(parents=True, exist_ok=True)
            (source / each).write_bytes(file.read_bytes())
    # The build takes what git knows.
    subprocess.run(["git", "-C", source, "init", "-q"], check=True)
    subprocess.run(["git", "-C", source, "add", "-A"], check=True)
    # As pip has it built, without a process of pip for each step.
    build = "import pbr.build, sys; pbr.build.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, folder],
        check=True,
        cwd=source,
        env={**os.environ, "PBR_VERSION": "0.1.0"},
    )
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_contains_no_tests(names):
    assert not [name for name in names if "tests" in name]


@pytest.mark.parametrize(
    "end",
    [
        "kongming/cmd/executor.py",
        "kongming/db/migrations/script.py.mako",
        "share/kongming/libvirt/kongming-libvirt-hook",
        "share/kongming/systemd/kongming-executor.service",
        "etc/kongming/kongming.conf.sample",
    ],
)
def test_the_wheel_contains_the_files_that_a_host_needs(names, end):
    assert [name for name in names if name.endswith(end)]
