"""Key files: who can read them, what is taken for one, and that no secret shows anywhere."""

import errno
import json
import os
import stat
import traceback
from pathlib import Path, PureWindowsPath

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.e2e.commands import run

from dtolbus import files, privatefiles
from dtolbus.errors import CannotStartError, UsageError
from dtolbus.handshakes import Seen
from dtolbus.keyring import AllowedKeys, KeyRing, taken_back
from dtolbus.keys import (
    AllowedKey,
    Secret,
    decode_allowed,
    decode_keys,
    encode_keys,
    is_key,
    load_keys,
    load_server_keys,
    new_keys,
    public_key,
    raw_key,
    read_allowed,
)

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has access lists in the place of modes")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "data")


# ---- files ----


@POSIX
def test_what_is_made_is_its_owners_alone_whatever_the_umask(ring: KeyRing) -> None:
    before = os.umask(0)
    try:
        ring.new("lab", "sink")
    finally:
        os.umask(before)
    for path in (ring.server_file, ring.key_file("lab"), ring.allowed_folder / "lab"):
        assert mode(path) == 0o600
    for path in (ring.folder, ring.allowed_folder):
        assert mode(path) == 0o700
    assert sorted(path.name for path in ring.folder.iterdir()) == ["allowed", "lab.key", "server.key", "server.public"]


@POSIX
def test_a_secret_is_never_readable_by_others_not_even_for_an_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    append = files.append

    def watched(fd: int, parts: list[bytes]) -> int:
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return append(fd, parts)

    monkeypatch.setattr(files, "append", watched)
    privatefiles.create(tmp_path / "x.key", b"secret")
    assert seen == [0o600]
    with pytest.raises(FileExistsError):
        privatefiles.create(tmp_path / "x.key", b"other")
    assert (tmp_path / "x.key").read_bytes() == b"secret"
    assert [path.name for path in tmp_path.iterdir()] == ["x.key"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root makes what belongs to others")
def test_what_root_makes_belongs_to_the_owner_of_the_data_folder(ring: KeyRing) -> None:
    """The gateway may be a service of its own user, and the keys be made by whoever has sudo."""
    ring.folder.parent.mkdir()
    os.chown(ring.folder.parent, 4711, 4712)
    ring.new("lab", "read")
    ring.allow("lab", None, "sink")
    for path in (ring.folder, *ring.folder.rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712), path


@POSIX
@POSIX
def test_a_credential_of_systemd_is_no_file_that_others_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o440)  # root's, with an ACL for the service's user
    with pytest.raises(CannotStartError, match="others can read"):
        privatefiles.read(path, 100)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert privatefiles.read(path, 100) == b"secret"
    path.chmod(0o444)
    with pytest.raises(CannotStartError, match="others can read"):
        privatefiles.read(path, 100)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path.parent))
    path.chmod(0o440)
    with pytest.raises(CannotStartError, match="others can read"):
        privatefiles.read(path, 100)


@pytest.mark.parametrize("readable", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_read_is_refused(ring: KeyRing, readable: int) -> None:
    for path in (ring.new("lab", "read"), ring.server_file):
        path.chmod(readable)
        with pytest.raises(CannotStartError, match=f"chmod 600 '{path}'"):
            load_keys(path) if path.name == "lab.key" else ring.server()


@POSIX
def test_a_folder_in_which_others_can_write_is_refused(ring: KeyRing) -> None:
    ring.new("lab", "read")
    ring.allowed_folder.chmod(0o770)
    with pytest.raises(CannotStartError, match="chmod 700"):
        privatefiles.check_folder(ring.allowed_folder)


def test_on_windows_an_access_list_keeps_others_out(tmp_path: Path) -> None:
    owner = {"USERNAME": "ada", "USERDOMAIN": "LAB"}
    path = PureWindowsPath(r"C:\data\keys\x.key")
    assert privatefiles.owner_only(path, is_folder=False, environment=owner) == [
        *("icacls", r"C:\data\keys\x.key", "/inheritance:r", "/grant:r", r"LAB\ada:F"),
    ]
    assert privatefiles.owner_only(path, is_folder=True, environment={"USERNAME": "ada"})[-1] == "ada:(OI)(CI)F"


# ---- names ----


@pytest.mark.parametrize("name", ["../out", "..", "a/b", "a\\b", ".hidden", "con", "ü" * 30, "a.key", "/etc/passwd"])
def test_no_name_leaves_the_folder(ring: KeyRing, name: str) -> None:
    path = ring.new(name, "read")
    assert path.parent == ring.folder
    assert load_keys(path).name == name
    assert list(AllowedKeys(ring.allowed_folder).read()) == [name]
    found = [path for path in ring.folder.parent.parent.rglob("*") if path.is_file()]
    assert all(path.parent in (ring.folder, ring.allowed_folder) for path in found)
    assert ring.revoke(name)
    assert not ring.revoke(name)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 221, "server", "Server"])
def test_names_that_cannot_be(ring: KeyRing, name: str) -> None:
    for call in (lambda: ring.new(name, "read"), lambda: ring.allow(name, new_keys("x").public, None)):
        with pytest.raises(UsageError, match="the key's name"):
            call()


# ---- the ring ----


def test_a_name_has_one_key_until_it_is_taken_back(ring: KeyRing) -> None:
    first = load_keys(ring.new("lab", "read"))
    with pytest.raises(UsageError, match="has a key already"):
        ring.new("lab", "sink")
    with pytest.raises(UsageError, match="allowed with another key"):
        ring.allow("lab", new_keys("lab").public, None)
    with pytest.raises(UsageError, match="allowed as 'lab' already"):
        ring.allow("second", first.public, None)
    assert ring.allow("lab", None, "sink").role == "sink"
    assert ring.allow("lab", None, None).role == "sink"
    assert ring.revoke("lab")
    assert not ring.key_file("lab").exists()
    assert load_keys(ring.new("lab", "read")).public != first.public


def test_a_sink_of_the_stack_gets_a_key_and_keeps_it(ring: KeyRing) -> None:
    path = ring.of_sink("csv")
    keys = load_keys(path)
    assert AllowedKeys(ring.allowed_folder).read()["csv"].role == "sink"
    assert load_keys(ring.of_sink("csv")) == keys or load_keys(ring.of_sink("csv")).public == keys.public
    (ring.allowed_folder / "csv").unlink()  # taken back by hand: that key does not come back
    assert load_keys(ring.of_sink("csv")).public != keys.public
    ring.allow("csv", None, "read")
    with pytest.raises(CannotStartError, match="may only read"):
        ring.of_sink("csv")


def test_a_key_that_could_not_be_allowed_is_not_left_behind(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full: the name is free once there is room."""
    ring.new("lab", "read")
    replace = privatefiles.replace

    def full(path: Path, data: bytes) -> None:
        if path.parent == ring.allowed_folder:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        replace(path, data)

    monkeypatch.setattr(privatefiles, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        ring.new("rig", "sink")
    monkeypatch.undo()
    assert not ring.key_file("rig").exists()
    assert load_keys(ring.new("rig", "sink")).name == "rig"


def test_a_pair_of_the_gateway_that_is_made_anew_is_the_one_to_copy(ring: KeyRing) -> None:
    ring.new("lab", "read")
    ring.server_file.unlink()
    keys = load_keys(ring.new("rig", "read"))
    assert keys.server == public_key(str(ring.server_public_file), "--server-key")
    assert keys.server == load_server_keys(ring.server_file).public


@POSIX
def test_one_file_that_leads_nowhere_keeps_nobody_else_out(ring: KeyRing, caplog: pytest.LogCaptureFixture) -> None:
    ring.new("lab", "read")
    for name, leads_to in (("loop", "loop"), ("nowhere", "not/there"), ("away", "/proc/self/mem")):
        (ring.allowed_folder / name).symlink_to(leads_to)
    (ring.allowed_folder / "folder").mkdir()
    os.mkfifo(ring.allowed_folder / "pipe")
    allowed = AllowedKeys(ring.allowed_folder)
    assert list(allowed.read()) == ["lab"]
    assert allowed.read() is allowed.read()
    told = {Path(vars(record)["file"]).name for record in caplog.records}
    assert {"loop", "folder", "pipe"} <= told


def test_what_changed_is_noticed(ring: KeyRing) -> None:
    allowed = AllowedKeys(ring.allowed_folder)
    assert allowed.read() == {}
    ring.new("lab", "read")
    before = allowed.read()
    assert list(before) == ["lab"]
    assert allowed.read() is before
    ring.new("rig", "sink")
    both = allowed.read()
    assert taken_back(before, both) == []
    ring.allow("rig", None, "read")
    assert taken_back(both, allowed.read()) == ["rig"]
    ring.revoke("lab")
    assert taken_back(both, allowed.read()) == ["lab", "rig"]


# ---- what is taken for a key ----


def test_a_pair_comes_back_from_its_file(ring: KeyRing) -> None:
    keys = new_keys("lab", new_keys("x").public)
    assert encode_keys(decode_keys(encode_keys(keys), "x")) == encode_keys(keys)
    assert len(raw_key(keys.public)) == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"public": "x"},
        {"secret": "x"},
        {"secret": 7},
        {"server": "x" * 41},
        {"server": "#" * 40},  # beyond 32 bytes
        {"more": 1},
        {"name": ""},
        {"name": "a\nb"},
        {"public": new_keys("x").public},
    ],
)
def test_a_file_at_fault_is_none_and_its_secret_is_not_told(ring: KeyRing, changes: dict[str, object]) -> None:
    plain = {**json.loads(encode_keys(new_keys("lab", new_keys("x").public))), **changes}
    with pytest.raises(CannotStartError, match="not a key file of dtolbus") as error:
        decode_keys(json.dumps(plain).encode(), "x.key")
    assert str(plain["secret"]) not in str(error.value) or plain["secret"] in ("x", 7)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_key_or_refused(data: bytes) -> None:
    with pytest.raises(CannotStartError):
        decode_keys(data, "x")
    with pytest.raises(ValueError):  # noqa: PT011  # msgspec's errors are of its kinds
        decode_allowed(data)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "public", "secret", "server", "role", "x"]), inner)))  # fmt: skip  # noqa: E501
def test_any_json_is_a_key_or_refused(value: object) -> None:
    data = json.dumps(value).encode()
    with pytest.raises(CannotStartError):
        decode_keys(data, "x")
    with pytest.raises(ValueError):  # noqa: PT011  # as above
        decode_allowed(data)


@given(st.text(max_size=45))
def test_a_text_is_a_key_only_where_it_is_32_bytes(text: str) -> None:
    assert not is_key(text) or len(raw_key(text)) == 32


def test_a_public_key_is_a_text_or_in_a_file(tmp_path: Path) -> None:
    keys = new_keys("lab")
    (tmp_path / "lab.public").write_text(f"{keys.public}\n")
    (tmp_path / "lab.key").write_bytes(encode_keys(keys))
    (tmp_path / "odd").write_text("hello")
    for given_as in (keys.public, str(tmp_path / "lab.public"), str(tmp_path / "lab.key")):
        assert public_key(given_as, "--public") == keys.public
    for wrong in ("hello", str(tmp_path / "odd"), str(tmp_path)):
        with pytest.raises(UsageError, match="--public"):
            public_key(wrong, "--public")


# ---- secrets ----


def test_no_text_of_a_pair_shows_its_secret() -> None:
    keys = new_keys("lab")
    secret = keys.secret.reveal()
    assert isinstance(keys.secret, Secret)
    for shown in (repr(keys), str(keys), f"{keys.secret}", repr(msgspec.structs.asdict(keys)), f"{keys!r}"):
        assert secret not in shown
    with pytest.raises(TypeError):
        msgspec.json.encode(keys)
    try:
        raise ValueError(keys)
    except ValueError:
        assert secret not in traceback.format_exc()


def test_the_commands_make_allow_list_and_take_back_and_show_no_secret(tmp_path: Path) -> None:
    data, words = tmp_path / "data", ["--data", str(tmp_path / "data")]
    told = [
        run("dtolbus", "keys", "new", "lab pc", *words),
        run("dtolbus", "keys", "new", "rig", "--role", "sink", *words),
    ]
    assert f"copy {data / 'keys' / 'lab pc.key'} to the client's machine" in told[0].stdout
    assert "dtolbus-sqlite --out lab.sqlite --key rig.key --connect tcp://HOST:5601" in told[1].stdout
    assert f"these are the first keys in {data}: " in told[0].stdout
    assert "if your gateway's folder is another, name it with --data" in told[0].stdout
    assert "the first keys" not in told[1].stdout
    assert f"dtolbus keys revoke --data {data} 'lab pc'" in told[0].stdout or os.name == "nt"
    told += [run("dtolbus", "keys", "list", *words, "--debug")]
    assert [line.split()[-4] for line in told[2].stdout.splitlines()[1:3]] == ["read", "sink"]
    secrets = [load_keys(data / "keys" / f"{name}.key").secret.reveal() for name in ("lab pc", "rig")]
    told += [run("dtolbus", "keys", "new", "rig", *words), run("dtolbus", "keys", "revoke", "rig", *words)]
    told += [run("dtolbus", "keys", "revoke", "rig", *words), run("dtolbus", "keys", "list", *words)]
    assert [done.returncode for done in told] == [0, 0, 0, 2, 0, 2, 0]
    assert "rig" not in told[-1].stdout
    for done in told:
        assert not any(secret in done.stdout + done.stderr for secret in secrets)


def test_a_pair_made_on_the_clients_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing(tmp_path / "data")
    ring.made_server()
    monkeypatch.chdir(tmp_path)
    done = run("dtolbus", "keys", "new", "lab", "--only-pair", "--server-key", str(ring.server_public_file))
    assert done.returncode == 0, done.stderr
    keys = load_keys(tmp_path / "lab.key")
    assert mode(tmp_path / "lab.key") == 0o600 or os.name == "nt"
    assert keys.secret.reveal() not in done.stdout
    assert run("dtolbus", "keys", "new", "lab", "--only-pair").returncode == 2
    done = run("dtolbus", "keys", "allow", "lab", "--public", "lab.public", "--role", "sink", "--data", "data")
    assert done.returncode == 0, done.stderr
    assert read_allowed(ring.allowed_folder / "lab") == AllowedKey(
        public=keys.public, role="sink", since_utc=read_allowed(ring.allowed_folder / "lab").since_utc
    )


# ---- what a handshake tells ----


def test_one_handshake_that_fails_is_told_only_where_it_says_why() -> None:
    keys, url = new_keys("lab", new_keys("x").public), "tcp://daq-pc:5601"
    failed = Seen().after(2048, 0)
    assert failed.words(url, keys, 60.0) == ""
    assert "check the server key" in failed.after(2048, 0).after(2048, 0).words(url, keys, 2.5)
    assert "its gateway hangs" in failed.after(2048, 0).after(2048, 0).words(url, keys, 6.0)
    assert failed.words(url, None, 60.0) == failed.after(2048, 0).after(2048, 0).words(url, None, 1.0) == ""
    assert "it may ask for a key" in failed.after(2048, 0).after(2048, 0).words(url, None, 60.0)
    assert failed.after(16384, 400).words(url, keys, 0.0).startswith("not allowed by tcp://daq-pc:5601 (key lab)")
    assert failed.after(4096, 0).words(url, keys, 60.0) == ""
    assert failed.after(4096, 0).succeeded == 1
