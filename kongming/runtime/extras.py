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

"""Packages that only some machines need: the extras of setup.cfg."""

from __future__ import annotations


def missing(error: ModuleNotFoundError) -> str:
    """Return what to install if a module is missing."""
    name = (error.name or "").partition(".")[0]
    if name == "kongming":
        return f"the installation is incomplete, {error.name} is missing: install Kongming again"
    return (
        f"the Python module {name} is not installed: compute hosts need "
        "\"pip install 'kongming[compute]'\" or the Debian package kongming-compute, controllers "
        "\"pip install 'kongming[controller]'\" or kongming-controller"
    )
