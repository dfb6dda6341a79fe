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
"""New vCPUs and iothreads are noticed by the control groups that libvirt makes for them."""

from kongming.executor.thread_watch import ThreadWatch


def test_a_guest_is_reported_once_when_its_groups_change(tmp_path):
    folder = tmp_path / "vm"
    (folder / "vcpu0").mkdir(parents=True)
    watch = ThreadWatch()
    watch.note("a", folder)
    watch.note("b", folder)
    watch.note("b", None)
    assert watch.changed() == []
    (folder / "iothread1").mkdir()
    assert watch.changed() == ["a"]
    assert watch.changed() == []
    watch.note("a", folder)
    assert watch.changed() == []
    (folder / "iothread1").rmdir()
    assert watch.changed() == ["a"]


def test_a_guest_that_ended_is_reported_and_forgotten(tmp_path):
    watch = ThreadWatch()
    watch.note("a", tmp_path / "gone")
    assert watch.changed() == []
    folder = tmp_path / "vm"
    folder.mkdir()
    watch.note("a", folder)
    folder.rmdir()
    assert watch.changed() == ["a"]
    assert watch.changed() == []
