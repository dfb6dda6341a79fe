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

"""Threads instead of eventlet, and escaped log records.

Import this before anything imports oslo.messaging, which would otherwise choose eventlet, and
before anything is logged.
"""

import sys

from oslo_service import backend

from kongming.runtime import log_record

# Libraries import eventlet wherever it is installed, and oslo.service requires it. Without it a
# process needs 10 MB less, and starts in half the time.
sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]

log_record.install()
backend.init_backend(backend.BackendType.THREADING)
