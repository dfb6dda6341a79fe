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
"""What of this host can't be read or observed, and why: logged once, and when it can be again."""

from __future__ import annotations

from dataclasses import dataclass, field
import logging
import threading

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that can't be read or observed.

    :ivar subject: its name, for a sentence; a subject may have many parts.
    :ivar can_not: what can't be done with it: «read», «observed».
    :ivar why: the reason.
    :ivar instead: what is used meanwhile.
    :ivar example: the first part that showed it, if the subject has many.
    """

    subject: str
    can_not: str
    why: str
    instead: str
    example: str = field(default="", compare=False)

    def __str__(self) -> str:
        why = f"{self.why}: {self.example}" if self.example else self.why
        return f"{self.subject} can't be {self.can_not} ({why}): {self.instead}"


#: The subject if the processes of guests are not visible.
THREADS = "The threads of guests"
#: The subject if control groups are not mounted, or can't be read.
GROUPS = "The control groups of guests"


def hidden_threads(why: str) -> Gap:
    """Return the gap for the threads of a guest."""
    instead = "the values configured in libvirt are used, and changes by others are not noticed"
    return Gap(THREADS, "observed", why, instead)


def hidden_groups(why: str, part: str = "") -> Gap:
    """Return the gap for the control groups of a guest, or for a part of them."""
    instead = (
        "threads are identified by their names, and the CPU time that libvirt reports is used"
    )
    return Gap(f"{part} of the{GROUPS[3:]}" if part else GROUPS, "observed", why, instead)


class Visibility:
    """The current gaps. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gaps: dict[Gap, set[str]] = {}

    def lost(self, gap: Gap, part: str = "") -> None:
        """Register that a part of something can't be read; log the first of a subject.

        :param part: one of many with the same reason, such as a guest or a CPU's file.
        """
        with self._lock:
            new = gap not in self._gaps
            self._gaps.setdefault(gap, set()).add(part)
        if new:
            LOG.warning("%s", gap)

    def regained(self, subject: str, part: str = "") -> None:
        """Register that a part can be read; log it if all parts of the subject can."""
        if not self._gaps:
            return
        with self._lock:
            of_subject = {
                gap: parts for gap, parts in self._gaps.items() if gap.subject == subject
            }
            for parts in of_subject.values():
                parts.discard(part)
            if any(of_subject.values()):
                return
            for gap in of_subject:
                del self._gaps[gap]
        for gap in of_subject:
            LOG.info("%s can be %s again", gap.subject, gap.can_not)

    def forget(self, part: str) -> None:
        """Forget a part that does not exist any more, with its own parts."""
        with self._lock:
            for parts in self._gaps.values():
                parts -= {each for each in parts if each.partition("/")[0] == part}

    def lacks(self, subject: str) -> bool:
        """Return whether any part of something can't be read."""
        return any(gap.subject == subject for gap in self.gaps())

    def gaps(self) -> list[Gap]:
        """Return what can't be read or observed now."""
        with self._lock:
            return list(self._gaps)
