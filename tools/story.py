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
"""How the demonstrations speak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import platform
import sys
import textwrap
from typing import Any

import libvirt

from kongming.allocation.cpuset import CpuSet
from kongming.tests.testbed import threads
from kongming.tests.testbed.guest import destroy, start_guest

WIDTH = 96


def say(what: str) -> None:
    """Show progress."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"{bold}-- {what}{plain}")


def explain(text: str, indent: int = 3) -> None:
    """Show what is to be known of a step, in lines of a readable length."""
    space = " " * indent
    print(
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=space,
            subsequent_indent=space,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def judged(right: bool) -> str:
    """Return the word for what is as it was asked, or is not."""
    return "right" if right else "WRONG"


def introduce(what: str, left_out: str | None) -> None:
    """Show what will be shown, on which machine, and what can't be shown there."""
    print(textwrap.fill(what, WIDTH))
    print(
        f"This machine: {_system()}, online CPUs {CpuSet(threads.online_cpus())}, "
        f"libvirt {_version(libvirt.getVersion())}"
    )
    if left_out is not None:
        print(f"Left out: {left_out}")


@contextmanager
def running_guest(uri: str, instance_uuid: str, **options: Any) -> Iterator[None]:
    """Run a guest; `options` are those of `guest.domain_xml`."""
    connection: Any = libvirt.open(uri)
    guest = start_guest(connection, "kongming-demo", uuid=instance_uuid, **options)
    try:
        explain(f"It runs in QEMU {_version(connection.getVersion())}, without KVM.")
        yield
    finally:
        destroy(guest)
        connection.close()


def show_threads(
    threads_of: Mapping[int, int],
    before: Mapping[int, str],
    expected: Mapping[int, str],
    now: Mapping[int, str],
    *,
    source: str,
) -> bool:
    """Show a row for each vCPU; tell whether all are as expected.

    :param threads_of: vCPU → its thread; the others: vCPU → what is shown of it
    :param source: where `now` comes from
    """
    print(f"   {'vCPU':>5} {'thread':>8}   {'before':<10} {'expected':<10} now, in {source}")
    for vcpu, thread in threads_of.items():
        print(
            f"   {vcpu:>5} {thread:>8}   {before[vcpu]:<10} {expected[vcpu]:<10} "
            f"{now[vcpu]:<14} {judged(now[vcpu] == expected[vcpu])}"
        )
    return now == expected


def _version(number: int) -> str:
    """Return a version of libvirt's or QEMU's as they write it."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
