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
"""Commands that change allocations; they always print which request was accepted."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import signal
import threading
from typing import Any

from osc_lib import exceptions

from kongming.client import requests
from kongming.client.progress import Json, Progress
from kongming.client.responses import Fault, OutcomeUnknown
from kongming.client.rest import Client
from kongming.client.waiting import End, Waiter
from kongming.osc import waiting
from kongming.osc.command import Fields, ShowOne, client_of
from kongming.osc.requests import Request, UnsetAllocation, UnsetAllocations
from kongming.osc.waiting import Messages

# The shortest time limit of a change: if it were cut off, its outcome would be unknown.
_SEND_MIN_S = 3.0
# The time to find out whether a change was accepted.
_SETTLE_MIN_S, _SETTLE_MAX_S = 1.0, 10.0
_INTERRUPTED = 128


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end.

    :ivar number: the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Change(ShowOne):
    """A command that sends a request, and may wait until it is carried out.

    It always shows an accepted request; the exit status shows whether it was carried out.
    """

    timeout = 300.0
    _status = 0
    _waiter: Waiter | None = None

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        waiting.add_options(parser, self.timeout)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run it, and return the exit status."""
        if parsed_args.wait:
            self._waiter = Waiter(Messages(self.app.stderr).print, parsed_args.timeout)
        with _signals():
            try:
                return super().run(parsed_args) or self._status
            except Interrupted as interrupted:
                raise SystemExit(_INTERRUPTED + interrupted.number) from None

    @property
    def client(self) -> Client:
        """The client for the calls before the wait."""
        client, waiter = client_of(self), self._waiter
        if waiter is None:
            return client
        return client.within(lambda: max(waiter.left(), _SEND_MIN_S))

    def carry_out(self, request: Request) -> Fields:
        """Send a request, wait if ``--wait`` was given, and return the columns to show.

        :raises Fault: if it was not accepted.
        :raises CommandError: if that is unknown.
        """
        answer = self._accepted(request, Messages(self.app.stderr))
        if answer is None:
            self.accepted = f"{request.what} was accepted"
            return self.dict2columns(request.fields(None, None))
        self.accepted = f"{request.what} was accepted (generation {answer['generation']})"
        progress = self._follow(lambda client: request.poller(client, answer))
        return self.dict2columns(request.fields(answer, progress))

    def release(self, instance_uuids: Sequence[str]) -> Fields:
        """Release several instances, also after a refusal, as :meth:`carry_out` does one.

        :raises CommandError: if no release was accepted.
        """
        messages, done, pending = Messages(self.app.stderr), [], []
        for instance_uuid in instance_uuids:
            try:
                answer = self._accepted(UnsetAllocation(instance_uuid, None), messages)
            except (Fault, exceptions.CommandError) as error:
                messages.print(f"instance {instance_uuid}: {error}")
                self._status = 1
                if not isinstance(error, Fault) or not error.code:
                    # The API is unavailable for the others, too.
                    break
            else:
                done.append(instance_uuid)
                pending += [instance_uuid] if answer else []
        if not done:
            raise exceptions.CommandError("no release was accepted")
        request = UnsetAllocations(done, pending)
        self.accepted = f"the release of {len(done)} instances was accepted"
        progress = self._follow(request.poller) if pending else None
        return self.dict2columns(request.fields(progress))

    def _follow(self, poller: Callable[[Client], Callable[[], Progress]]) -> Progress | None:
        """Wait if ``--wait`` was given, and return the last progress; None if none was read."""
        messages, waiter = Messages(self.app.stderr), self._waiter
        if waiter is None:
            return None
        try:
            end = waiter.wait(poller(client_of(self).within(waiter.left_for_poll, waiter.to_wait)))
            self._status = self._status if end.done else 1
        except KeyboardInterrupt as interrupt:
            end = End(waiter.last, done=False, why="interrupted")
            self._status = _INTERRUPTED + getattr(interrupt, "number", signal.SIGINT)
        _print_end(messages, self.accepted, end)
        return end.progress

    def _left_to_settle(self) -> float:
        left = self._waiter.left() if self._waiter else _SETTLE_MAX_S
        return min(max(left, _SETTLE_MIN_S), _SETTLE_MAX_S)

    def _accepted(self, request: Request, messages: Messages) -> Json | None:
        """Send a request, and return the answer that accepts it."""
        try:
            settling = client_of(self).within(self._left_to_settle)
            return requests.send(request, self.client, settling, messages.print)
        except OutcomeUnknown as fault:
            raise exceptions.CommandError(f"{fault}: see '{request.shown_by}'") from fault
        except KeyboardInterrupt:
            unknown = requests.unknown(request)
            messages.print(f"interrupted; {unknown}: see '{request.shown_by}'")
            raise


def _print_end(messages: Messages, accepted: str, end: End) -> None:
    """Print why the wait ended, and which request was accepted if it is not carried out."""
    if end.progress is not None and end.progress.replaced:
        messages.print(f"{accepted}, and then replaced: {end.progress.replaced}")
        return
    if end.progress is not None and not end.why.startswith("interrupted"):
        waiting.print_undone(messages, end.progress)
    if end.why:
        messages.print(f"{end.why}; {accepted} and stays in force")


@contextmanager
def _signals() -> Iterator[None]:
    """Handle SIGTERM as SIGINT, so that the command prints a message."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _frame: Any) -> None:
        raise Interrupted(number)

    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
