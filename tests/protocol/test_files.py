"""The file calls, as they are on this system and as they are where the Unix-only ones do not exist."""

import errno
import os
import socket
from pathlib import Path

import pytest

from dtolbus import files


@pytest.fixture(params=["all calls", "without the Unix-only calls"], autouse=True)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "all calls":
        for name in ("writev", "pread", "pwrite", "fdatasync"):
            monkeypatch.delattr(os, name, raising=False)


def test_parts_are_appended_whole_and_read_back_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a"
    fd = files.open_new(path)
    assert files.append(fd, [b"abc", b"", memoryview(b"defg")]) == 7
    files.sync(fd)
    assert files.append(fd, [b"h"]) == 1
    assert files.read_at(fd, 4, 2) == b"cdef"
    assert files.read_at(fd, 100, 6) == b"gh"
    os.close(fd)
    assert path.read_bytes() == b"abcdefgh"


@pytest.mark.parametrize("most", [1, 3])
def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:most]))
    if hasattr(os, "writev"):
        monkeypatch.setattr(os, "writev", lambda fd, parts: write(fd, b"".join(parts)[:most]))
    fd = files.open_new(tmp_path / "a")
    assert files.append(fd, [b"abcd", b"efg", b"h"]) == 8
    os.close(fd)
    assert (tmp_path / "a").read_bytes() == b"abcdefgh"


def test_a_new_file_is_never_one_that_exists(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        files.open_new(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_publishing_refuses_a_name_that_is_taken(tmp_path: Path) -> None:
    for name in ("temp", "final"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        files.publish_new(tmp_path / "temp", tmp_path / "final")
    assert (tmp_path / "final").read_text() == "final"
    files.publish_new(tmp_path / "temp", tmp_path / "new")
    assert (tmp_path / "new").read_text() == "temp"
    assert not (tmp_path / "temp").exists()


def test_publishing_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    test_publishing_refuses_a_name_that_is_taken(tmp_path)


def test_replacing_leaves_the_old_content_where_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "position.json"
    files.replace(path, b"one")
    files.replace(path, b"two")
    assert path.read_bytes() == b"two"

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write", "writev"):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="No space left"):
        files.replace(path, b"three")
    assert path.read_bytes() == b"two"
    assert [child.name for child in tmp_path.iterdir()] == ["position.json"]


def test_the_head_of_a_file_is_rewritten_in_place(tmp_path: Path) -> None:
    fd = files.open_in_place(tmp_path / "head")
    files.write_at_start(fd, b"12345678")
    files.write_at_start(fd, b"abcd")
    assert files.read_at(fd, 8, 0) == b"abcd5678"
    files.truncate(fd, 6)
    os.close(fd)
    assert (tmp_path / "head").read_bytes() == b"abcd56"


def what_is_no_file(folder: Path) -> list[Path]:
    pipe, there = folder / "pipe", folder / "socket"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(there))
    return [pipe, there, Path(os.devnull), folder]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in a folder here")
def test_what_is_no_file_is_refused_and_hangs_nobody(tmp_path: Path) -> None:
    for path in what_is_no_file(tmp_path):
        for call in (files.open_read, files.open_existing, files.open_in_place, files.read):
            with pytest.raises(OSError, match=f"not a regular file: '{path}'|Is a directory"):
                call(path)
