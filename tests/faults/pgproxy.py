"""Between a worker and its Postgres: a TCP proxy that cuts the connection exactly at COMMIT."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

_COMMIT = b"COMMIT;\0"
_CHUNK = 1 << 16
_DONE = b"COMMIT\0"

Cut = Literal["commit", "answer"]
"""What is dropped with the connection: the COMMIT itself, or the answer to one that arrived."""


class CommitCutter:
    """Passes everything on, but cuts the next COMMITs that it is told to, until the `with` block is left."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._cuts: list[Cut] = []
        self.done: list[Cut] = []
        self.before_commit: Callable[[], None] | None = None
        """Called once, before the next COMMIT is passed on."""
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in self._sockets:
            _cut(connection)
        for thread in self._threads[1:]:
            thread.join()

    def cut(self, *cuts: Cut) -> None:
        """Cut the next COMMITs so, one after another."""
        self._cuts.extend(cuts)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            self._threads.append(threading.Thread(target=self._pass_on, args=(client, server), daemon=True))
            self._threads[-1].start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        """Carry what the client asks to the server, the answers on a thread of their own."""
        muted = threading.Event()
        back = threading.Thread(target=self._answer, args=(server, client, muted), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK):
                is_commit = data.endswith(_COMMIT)
                if is_commit and self.before_commit is not None:
                    call, self.before_commit = self.before_commit, None
                    call()
                cut = self._cuts.pop(0) if is_commit and self._cuts else None
                if cut == "commit":
                    self.done.append(cut)
                    break
                if cut == "answer":
                    muted.set()
                server.sendall(data)
        if not muted.is_set():
            _cut(server)
        _cut(client)
        back.join()

    def _answer(self, server: socket.socket, client: socket.socket, muted: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK):
                if muted.is_set() and _DONE in data:
                    self.done.append("answer")
                    break
                client.sendall(data)
        _cut(client)
        _cut(server)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
