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

"""A way to a server that can be lost: it takes connections, and carries all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
import threading
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from kongming.tests.testbed.process import Service, free_port

CHUNK = 65536


class Forwarder(Service):
    """Forwards a TCP port of its own to one of this machine's; a context manager.

    :ivar port: where it listens
    :ivar target: the port that new connections lead to
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._word: bytes | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        """Return when it takes connections."""
        self._thread.start()
        self._call(self._listen())

    def through(self, url: str) -> str:
        """The URL of a server on this machine, with the way to it leading through here."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{self.port}"))

    def stop_answering(self) -> None:
        """Carry nothing more, and take connections all the same: as a host that hangs."""
        self._call(self._set(self._flowing.clear))

    def stop_answering_at(self, word: bytes) -> None:
        """Forward nothing more once a word was sent: the word arrives, its response does not."""
        self._word = word

    def lose(self) -> None:
        """Carry nothing more of all that is connected, but for those who connect from now on."""
        flowing, self._flowing = asyncio.Event(), self._flowing
        self._call(self._set(self._flowing.clear))
        flowing.set()
        self._flowing = flowing

    def resume(self) -> None:
        """Carry all again, also what was sent meanwhile."""
        self._word = None
        self._call(self._set(self._flowing.set))

    @property
    def silent(self) -> bool:
        return not self._flowing.is_set()

    async def _set(self, change: Callable[[], None]) -> None:
        change()

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        flowing = self._flowing
        other: asyncio.StreamWriter | None = None
        try:
            await flowing.wait()
            to, other = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(
                self._carry(reader, other, flowing, is_client=True),
                self._carry(to, writer, flowing, is_client=False),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for each in filter(None, (writer, other)):
                each.close()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        flowing: asyncio.Event,
        *,
        is_client: bool,
    ) -> None:
        while data := await reader.read(CHUNK):
            await flowing.wait()
            if is_client and self._word is not None and self._word in data:
                flowing.clear()
            writer.write(data)
            await writer.drain()
        # One side has ended: so does the other.
        writer.close()

    def _end(self) -> None:
        async def end() -> None:
            if self._server is not None:
                self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        if self._thread.is_alive():
            self._call(end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(30)
        self._loop.close()
