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

"""Names of compute hosts: those that Nova takes, and those that nobody does."""

LABEL = "c" * 63
LONGEST = f"{LABEL}.{LABEL}.{LABEL}.{'c' * 61}"

#: As Nova takes and has them.
TAKEN = (
    "c",
    "compute-1",
    "compute_01",
    "_compute",
    "compute_",
    "_a",
    "COMPUTE-1",
    "Compute_1.Example.ORG",
    "c1.example.org",
    "c_1.pod_2.example.org",
    "1-2",
    "2026-compute",
    "1a",
    "0.0.0.a",
    "localhost",
    "10.0.0.5",
    "::1",
    "2001:DB8::5",
    "fe80::1:2:3:4",
    LABEL,
    "c" * 8 + f".{LABEL}" * 3,
    LONGEST,
)
REFUSED = (
    "",
    "12345",
    "1.2.3",
    "_",
    "compute_1.5",
    "-compute",
    "compute-",
    "compute-.example.org",
    "a..b",
    ".a",
    "c" * 64,
    f"c{LONGEST}",
    "two words",
    "a/b",
    "a:b",
    "a@b",
    "a*",
    "#",
    "b\u00fcro",
    "\u212a1",
    "\u0661a",
    "c\n",
    "[::1]",
    "10.0.0.5/24",
    "fe80::1%eth0",
)
