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

"""A release: the sdist and the wheel, from a tag and from tarballs without a repository."""

from dataclasses import dataclass
import os
from pathlib import Path
import subprocess
import sys
import tarfile
import zipfile

import pytest

import kongming

ROOT = Path(kongming.__file__).parents[1]
VERSION = "0.1.0"
# What pbr writes of the commit, if there is one.
COMMIT = "pbr.json"


def build(kind, source, **environment):
    """Build an sdist or a wheel, as pip has it built but without its processes for each step."""
    folder = source.with_name(f"{source.name}-{kind}")
    folder.mkdir()
    code = f"import pbr.build, sys; pbr.build.build_{kind}(sys.argv[1])"
    kept = {name: value for name, value in os.environ.items() if name != "PBR_VERSION"}
    subprocess.run(
        [sys.executable, "-c", code, folder],
        check=True,
        cwd=source,
        env={**kept, "GIT_CEILING_DIRECTORIES": str(source.parent), **environment},
    )
    (built,) = folder.iterdir()
    return built


def unpacked(tarball, folder):
    folder.mkdir()
    subprocess.run(["tar", "-C", folder, "-xf", tarball], check=True)
    (source,) = folder.iterdir()
    return source


@dataclass
class Release:
    """What is built of a tag."""

    sdist: Path
    wheel: Path
    wheel_of_the_sdist: Path
    wheel_of_an_archive: Path


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"
    tree = subprocess.check_output(["git", "-C", ROOT, "ls-files"], text=True).split("\n")
    for each in filter(None, tree):
        if (file := ROOT / each).is_file():
            (source / each).parent.mkdir(parents=True, exist_ok=True)
            (source / each).write_bytes(file.read_bytes())

    def git(*arguments):
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", source, *author, *arguments], check=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "all of it")
    git("tag", VERSION)
    archive = folder / "archive.tar"
    git("archive", f"--prefix=kongming-{VERSION}/", "-o", str(archive), VERSION)
    sdist = build("sdist", source)
    return Release(
        sdist,
        build("wheel", source),
        build("wheel", unpacked(sdist, folder / "of-sdist")),
        build("wheel", unpacked(archive, folder / "of-archive"), PBR_VERSION=VERSION),
    )


def names(wheel):
    return {each for each in zipfile.ZipFile(wheel).namelist() if not each.endswith(COMMIT)}


def test_the_version_is_that_of_the_tag(release):
    assert release.sdist.name == f"kongming-{VERSION}.tar.gz"
    wheels = (release.wheel, release.wheel_of_the_sdist, release.wheel_of_an_archive)
    assert {each.name for each in wheels} == {f"kongming-{VERSION}-py3-none-any.whl"}


def test_a_tarball_without_a_repository_has_the_same_wheel(release):
    assert names(release.wheel_of_the_sdist) == names(release.wheel)
    assert names(release.wheel_of_an_archive) == names(release.wheel)


def test_the_sdist_is_the_tree_without_lists_of_commits_and_authors(release):
    with tarfile.open(release.sdist) as opened:
        inside = {each.partition("/")[2] for each in opened.getnames()}
    assert not inside & {"AUTHORS", "ChangeLog"}
    assert inside >= {
        "PKG-INFO",
        "constraints.txt",
        "debian/rules",
        "tools/test",
        "doc/source/conf.py",
    }


def test_the_wheel_contains_no_tests(release):
    assert not [name for name in names(release.wheel) if "tests" in name]


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
def test_the_wheel_contains_the_files_that_a_host_needs(release, end):
    assert [name for name in names(release.wheel) if name.endswith(end)]
