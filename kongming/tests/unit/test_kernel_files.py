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

"""The kernel's files: any of them may be denied, missing or odd."""

import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.hypervisor import files as kernel_text
from kongming.hypervisor.files import read_as, reason
from kongming.hypervisor.kernel_files import KernelFiles


@pytest.fixture
def files(tmp_path):
    return KernelFiles(system=tmp_path)


def test_a_file_that_not_every_kernel_has_may_be_missing(files, tmp_path):
    path = f"{tmp_path}/isolated"
    assert (files.ids(path), files.number(path), files.text(path)) == (None, None, None)
    assert files.names(path) is None
    assert files.visibility.gaps() == []
    assert files.ids(path, needed=True) is None
    assert files.visibility.lacks(path)


@pytest.mark.parametrize(
    ("text", "needed", "ids"),
    [
        ("0-3\n", False, CpuSet(range(4))),
        ("", False, CpuSet()),
        ("(null)\n", False, CpuSet()),
        ("", True, None),
        ("0-\n", False, None),
        ("x" * 5000, True, None),
    ],
)
def test_a_list_of_ids_is_read_or_odd(files, tmp_path, text, needed, ids):
    path = tmp_path / "list"
    path.write_text(text)
    assert files.ids(str(path), needed=needed) == ids
    assert files.visibility.lacks(str(path)) == (ids is None)


@pytest.mark.parametrize(
    ("text", "number"),
    [("7\n", 7), ("-1\n", -1), ("", None), ("7 8", None), ("9" * 5000, None), ("one", None)],
)
def test_a_number_is_read_or_odd(files, tmp_path, text, number):
    path = tmp_path / "number"
    path.write_text(text)
    assert files.number(str(path)) == number
    assert files.visibility.lacks(str(path)) == (number is None)


def test_files_that_every_cpu_has_are_reported_together(files, tmp_path, caplog):
    paths = [tmp_path / f"cpu/cpu{number}/topology/core_id" for number in range(3)]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text("?")
        assert files.number(str(path)) is None
    (line,) = caplog.messages
    assert line == (
        f"{tmp_path}/cpu/cpu*/topology/core_id can't be read (its content is not what a kernel "
        f"writes there: {paths[0]}): its content is left out"
    )
    for left, path in zip((1, 1, 0), paths, strict=True):
        path.write_text("1")
        assert files.number(str(path)) == 1
        assert len(files.visibility.gaps()) == left


def test_a_value_derived_from_files_is_kept_until_they_change_or_if_some_could_not_be_read(
    files, tmp_path
):
    path = tmp_path / "number"
    path.write_text("?")
    made = []

    def make():
        made.append(files.number(str(path)))
        return made[-1]

    assert files.cached("it", 1, make) is None
    path.write_text("5")
    assert [files.cached("it", of, make) for of in (1, 1, 2, 2)] == [5, 5, 5, 5]
    assert made == [None, 5, 5]


def test_the_reason_for_an_unreadable_file_is_reported_with_its_name(tmp_path, monkeypatch):
    path = tmp_path / "file"
    with pytest.raises(OSError, match="No such file") as raised:
        read_as(path, int)
    assert reason(raised.value) == f"{path}: No such file or directory"
    path.write_text("one")
    with pytest.raises(OSError, match="what a kernel writes") as raised:
        read_as(path, int)
    assert reason(raised.value) == f"{path}: its content is not what a kernel writes there"

    def fail(_file, _size):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(kernel_text.os, "read", fail)
    with pytest.raises(OSError, match="Input") as raised:
        read_as(path, int)
    assert reason(raised.value) == f"{path}: Input/output error"
    assert reason(OSError("odd")) == "OSError"
