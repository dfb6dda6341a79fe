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

"""Strategies of hypothesis, and the worst texts, that several modules try."""

from itertools import chain

from hypothesis import strategies as st

from kongming.allocation.cpuset import MAX_ID, CpuSet
from kongming.tests.databases import instance

ids = st.integers(0, MAX_ID)
cpusets = st.frozensets(ids, min_size=1, max_size=40).map(CpuSet)
spaces = st.text(" \t\n\r\f\v", max_size=2)


def segment(first, last, step):
    """One item of a list, and the numbers that it stands for."""
    numbers = list(range(first, last + 1, step))
    if last == first:
        return f"{first}", numbers
    return f"{first}-{last}" + ("" if step == 1 else f"/{step}"), numbers


segments = st.builds(
    lambda first, more, step: segment(first, first + more, step),
    st.integers(0, 300),
    st.integers(0, 40),
    st.integers(1, 9),
)


def distinct(listed):
    """Return the items whose numbers no earlier item names."""
    taken, kept = set(), []
    for text, numbers in listed:
        if taken.isdisjoint(numbers):
            taken.update(numbers)
            kept.append((text, numbers))
    return kept


@st.composite
def lists_of(draw, size):
    """Draw a list of ``size`` CPUs, and its text."""
    cpus, texts = [], []
    while len(cpus) < size:
        first = draw(st.integers(len(cpus) * 3, len(cpus) * 3 + 60))
        step = draw(st.integers(1, 5))
        count = draw(st.integers(1, size - len(cpus)))
        text, numbers = segment(first, first + (count - 1) * step, step)
        if set(numbers).isdisjoint(cpus):
            cpus += numbers
            texts.append(text)
    return ",".join(texts), cpus


@st.composite
def runs(draw):
    """A run: its text, and which CPU each of its vCPUs is on."""
    vcpus = distinct(draw(st.lists(segments, min_size=1, max_size=5)))
    numbers = list(chain.from_iterable(numbers for _, numbers in vcpus))
    text, cpus = draw(lists_of(len(numbers)))
    return f"{','.join(text for text, _ in vcpus)}={text}", dict(zip(numbers, cpus, strict=True))


@st.composite
def mappings(draw):
    """Entries of both kinds: their text, and the cpuset of each vCPU."""
    found, texts = {}, []
    for text, pins in draw(st.lists(runs(), max_size=3)):
        if found.keys().isdisjoint(pins):
            found |= {number: {cpu} for number, cpu in pins.items()}
            texts.append(text)
    for numbers, cpus in draw(st.lists(st.tuples(cpusets, cpusets), min_size=1, max_size=3)):
        numbers = CpuSet(number % 4096 for number in numbers)
        if found.keys().isdisjoint(numbers):
            found |= dict.fromkeys(numbers, cpus)
            texts.append(f"{numbers}:{cpus}")
    return ";".join(draw(st.permutations(texts))), found


WORST = {
    "a set for every vCPU": "0-4095:0-8191",
    "a run of every vCPU": "0-4095=0-4095",
    "runs with steps": "0-4094/2=0-8188/4;1-4095/2=1-8189/4",
    "every second CPU": ",".join(str(8191 - 2 * number) for number in range(51)),
    "many single CPUs": ";".join(f"{4095 - number}:{8191 - number}" for number in range(25)),
    "many large sets": ";".join(f"{number}:0-8191,^{number + 1}" for number in range(16)),
    "many exclusions": "0-8191" + "".join(f",^{9 * number}" for number in range(46)),
    "many short runs": ";".join(f"{number}={8191 - number}" for number in range(32)),
}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.text(st.characters(categories=["Cs", "Cc"]), max_size=3)
    | st.sampled_from([instance(), "applied", "compute-1", 1e300, 2**70, "", "0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=8,
)
