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

"""OpenStack's own acceptance tests (tempest), run against the testbed's cloud."""

from __future__ import annotations

from collections.abc import Mapping
import csv
from pathlib import Path
import subprocess
from typing import IO

from kongming.tests.testbed.openstack import configuration, content
from kongming.tests.testbed.openstack.cloud import OpenStack
from kongming.tests.testbed.openstack.site import PASSWORD, REGION, Site

#: Statuses of a test, as subunit names them.
PASSED, FAILED, SKIPPED = "success", "fail", "skip"

Results = Mapping[str, str]


def run(openstack: OpenStack, root: Path, selection: str) -> Results:
    """Run the selected tests one after the other; return the status of each.

    A test that fails is no error, nor is a class whose set-up fails: it is a test of that name.

    :param root: a folder of this run, which keeps tempest's log and the results
    :param selection: a regular expression of the names of tests
    :raises RuntimeError: no test was run; the message has the end of its log
    """
    root.mkdir(parents=True)
    path = root / "tempest.conf"
    path.write_text(configuration.text(_options(openstack, root)))
    site = openstack.site
    # Two tests at once would take the host's time from each other.
    command = ["tempest", "run", "--config-file", str(path), "--serial", "--subunit"]
    stream, log, table = root / "results.subunit", root / "run.log", root / "results.csv"
    with stream.open("wb") as results, log.open("wb") as errors:
        _run(site, [*command, "--regex", selection], root, stdout=results, stderr=errors)
    with stream.open("rb") as results, table.open("wb") as rows:
        _run(site, ["subunit2csv", "--no-passthrough"], root, stdin=results, stdout=rows)
    with table.open(newline="") as rows:
        statuses = {row["test"]: row["status"] for row in csv.DictReader(rows)}
    if not statuses:
        raise RuntimeError(f"tempest ran no test: {log}:\n{log.read_text()[-2000:]}")
    return statuses


def _run(
    site: Site,
    command: list[str],
    root: Path,
    *,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes],
    stderr: IO[bytes] | None = None,
) -> None:
    program, *arguments = command
    # Their exit status shows no more than that a test has failed.
    subprocess.run(
        [site.program(program), *arguments],
        cwd=root,
        env=site.environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        check=False,
    )


def _options(openstack: OpenStack, root: Path) -> configuration.Sections:
    site, off = openstack.site, "false"
    return {
        "DEFAULT": {"log_dir": root, "log_file": "tempest.log"},
        "oslo_concurrency": {"lock_path": root / "lock"},
        "auth": {
            "use_dynamic_credentials": "true",
            "create_isolated_networks": off,
            "admin_username": "admin",
            "admin_password": PASSWORD,
            "admin_project_name": "admin",
            "admin_domain_name": "Default",
        },
        "identity": {"uri_v3": site.identity_url, "region": REGION},
        # Without a network service most of the tests would be skipped.
        "service_available": {"neutron": "true", "cinder": off, "swift": off},
        "compute": {
            "image_ref": openstack.image_id,
            "image_ref_alt": openstack.image_id,
            "flavor_ref": content.flavor(2),
            "flavor_ref_alt": content.flavor(4),
            "max_microversion": "latest",
            "shelved_offload_time": -1,
            "build_interval": 1,
        },
        "compute-feature-enabled": {
            "resize": "true",
            "cold_migration": off,
            "live_migration": off,
            "console_output": off,
            "vnc_console": off,
            "interface_attach": off,
            "change_password": off,
            "personality": off,
        },
        # Nobody can log in to a boot sector.
        "validation": {"run_validation": off},
    }
