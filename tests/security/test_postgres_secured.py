"""Postgres behind TLS: certificates, passwords from wherever they are kept, and no word of them anywhere."""

import contextlib
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.e2e.commands import run
from tests.e2e.stacks import Up, assert_complete
from tests.producer.bus import RunningGateway
from tests.protocol.specimens import block, block_run, reading, reading_run
from tests.security.secured_postgres import PASSWORD, QUOTED, Secured, needs_tls, secured_postgres
from tests.workers.postgres import query

from dtolbus_producer.journal import RunWriter

RUNS = (
    (block_run("0190a5f4-0000-7000-8000-000000000001"), block),
    (reading_run("0190a5f4-0000-7000-8000-000000000002"), reading),
)
SECRETS = (PASSWORD, QUOTED, "s3cr3t")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_postgres(tmp_path_factory.mktemp("keys")) as secured:
        yield secured


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    for info, make in RUNS:
        writer = RunWriter(tmp_path / "data" / "journal", info)
        for index in range(5):
            writer.append(make(info, index))  # type: ignore[operator]
        writer.close()
    return tmp_path / "data"


def worked(journal: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a worker until all is stored."""
    with RunningGateway(journal) as gateway:
        ports = (
            "--connect",
            f"tcp://127.0.0.1:{gateway.pub_port}",
            "--catchup",
            f"tcp://127.0.0.1:{gateway.catchup_port}",
        )
        done = run("dtolbus-postgres", *ports, "--until-end", *words, env=env)
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr
    return done


def stored(server: Secured, schema: str) -> int:
    ((count,),) = query(server.administrator, f"SELECT count(*) FROM {schema}.blocks")
    return count


def drop(server: Secured, schema: str) -> None:
    query(server.administrator, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture
def schema(server: Secured) -> Iterator[str]:
    drop(server, "lab")
    yield "lab"
    drop(server, "lab")


@needs_tls
def test_a_certificate_is_checked_and_the_password_comes_from_a_file(
    server: Secured, journal: Path, schema: str
) -> None:
    secret = journal.parent / "dsn"
    secret.write_text(server.dsn() + "\n")
    tls = ("--sslmode", "verify-full", "--sslrootcert", str(server.ca))
    done = worked(journal, "--schema", schema, *tls, "--log-level", "debug", env={"DTOLBUS_DSN_FILE": str(secret)})
    assert (done.returncode, stored(server, schema)) == (0, 5), done.stderr
    kept = (journal / "sinks" / "postgres.json").read_text()
    assert not any(secret in kept for secret in SECRETS)
    verified = run("dtolbus", "verify", "--data", str(journal), env={"DTOLBUS_DSN_FILE": str(secret)})
    assert verified.returncode == 0, verified.stdout + verified.stderr


@needs_tls
@pytest.mark.parametrize("wrong", ["another CA", "another name", "no TLS"])
def test_a_server_that_is_not_the_one_gets_no_password(wrong: str, server: Secured, journal: Path, schema: str) -> None:
    ca = server.other_ca if wrong == "another CA" else server.ca
    host = "localhost" if wrong == "another name" else "127.0.0.1"
    mode = "disable" if wrong == "no TLS" else "verify-full"
    words = ("--schema", schema, "--sslmode", mode, "--sslrootcert", str(ca), "--debug")
    done = worked(journal, *words, env={"DTOLBUS_DSN": server.dsn(host=host)})
    assert done.returncode != 0
    assert f"postgresql://{host}:{server.port}/postgres.{schema} is not to be had" in done.stderr


@needs_tls
def test_the_url_may_say_it_all(server: Secured, journal: Path, schema: str) -> None:
    dsn = server.dsn(query=f"?sslmode=verify-ca&sslrootcert={server.ca}")
    done = worked(journal, "--schema", schema, env={"DTOLBUS_DSN": dsn})
    assert (done.returncode, stored(server, schema)) == (0, 5), done.stderr


@needs_tls
def test_a_client_is_known_by_its_certificate(server: Secured, journal: Path, schema: str) -> None:
    server.key.chmod(0o600)
    words = ("--sslmode", "verify-full", "--sslrootcert", str(server.ca))
    words += ("--sslcert", str(server.certificate), "--sslkey", str(server.key))
    done = worked(journal, "--schema", schema, *words, env={"DTOLBUS_DSN": server.dsn("certified", None)})
    assert (done.returncode, stored(server, schema)) == (0, 5), done.stderr
    verified = run("dtolbus", "verify", "--data", str(journal), env={"DTOLBUS_DSN": server.dsn("certified", None)})
    assert verified.returncode == 0, verified.stdout + verified.stderr


@needs_tls
@pytest.mark.parametrize("how", ["PGPASSWORD", "PGPASSFILE", "passfile"])
def test_a_password_need_not_be_in_the_url(how: str, server: Secured, journal: Path, schema: str) -> None:
    file = journal.parent / "pgpass"
    file.write_text(f"127.0.0.1:{server.port}:*:lab:{PASSWORD}\n")  # asyncpg takes it as it is
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    env = {"PGPASSWORD": PASSWORD} if how == "PGPASSWORD" else {"PGPASSFILE": str(file)} if how == "PGPASSFILE" else {}
    dsn = server.dsn(password=None, query=f"?passfile={file}" if how == "passfile" else "")
    done = worked(journal, "--schema", schema, env={**env, "DTOLBUS_DSN": dsn})
    assert (done.returncode, stored(server, schema)) == (0, 5), done.stderr


@needs_tls
def test_no_part_of_a_stack_tells_the_password(server: Secured, schema: str, tmp_path: Path) -> None:
    config = tmp_path / "lab.toml"
    config.write_text(
        "[[device]]\nname = 'sim0'\nboard = 'sim'\n[[device.task]]\nname = 't'\nrate_hz = 1000.0\nchannels = ['a']\n"
        f"[[sink]]\nkind = 'postgres'\ndsn = '{server.dsn()}'\n[sink.options]\nschema = '{schema}'\n"
        f"sslmode = 'verify-full'\nsslrootcert = '{server.ca}'\n[[sink]]\nkind = 'csv'\n"
    )
    with Up(tmp_path / "data", "--config", str(config), DTOLBUS_LOG_LEVEL="debug") as up:
        up.wait_for_positions(4, ("postgres",))
        seen = list(command_lines([up.process.pid, *up.pids().values()]))
        up.process.send_signal(2)
        assert_complete(up, up.end())
    assert len(seen) >= 4
    texts = [*seen, up.output, up.errors, *(path.read_text("latin-1") for path in up.data.rglob("*") if is_text(path))]
    assert len(texts) > 10
    for text in texts:
        assert not any(secret in text for secret in SECRETS)
    doctor = run("dtolbus", "doctor", "--config", str(config), "--data", str(tmp_path / "data"))
    assert "answers, and tables can be made" in doctor.stdout, doctor.stdout
    assert not any(secret in doctor.stdout + doctor.stderr for secret in SECRETS)


def command_lines(pids: Sequence[int]) -> Iterator[str]:
    for pid in pids:
        with contextlib.suppress(OSError):
            yield Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")


def is_text(path: Path) -> bool:
    return path.is_file() and path.suffix in (".log", ".json", ".jsonl", ".csv", ".txt", ".toml", "")


WRONG = "postgresql://lab:s3cr3t@[/postgres"


@pytest.mark.parametrize(
    "words",
    [
        ("dtolbus-postgres", "--dsn", WRONG),
        ("dtolbus-postgres", "--dsn", "postgresql://lab:s3cr3t/x@127.0.0.1/d"),
        ("dtolbus-postgres", "--dsn", "mysql://lab:s3cr3t@127.0.0.1/d"),
        ("dtolbus-postgres", "postgresql://lab:s3cr3t@127.0.0.1/d"),
        ("dtolbus-postgres", "--dns=postgresql://lab:s3cr3t@127.0.0.1/d"),
        ("dtolbus-postgres", "--dsn", "postgresql://lab:s3cr3t@127.0.0.1:1/d"),
        ("dtolbus-postgres", "--dsn", "postgresql://lab@127.0.0.1:1/d?password=s3cr3t&sslmode=nonsense"),
        ("dtolbus", "up", "--dsn", "postgresql://lab:s3cr3t@127.0.0.1:1/d", "--duration", "0.2"),
        ("dtolbus", "doctor", "--dsn", "postgresql://lab:s3/cr3t@127.0.0.1:1/d"),
        ("dtolbus", "doctor", "--dsn", WRONG),
        (
            "dtolbus",
            "verify",
            "--catchup",
            "tcp://127.0.0.1:1",
            "--at",
            "postgres=postgresql://lab:s3cr3t@127.0.0.1:1/d",
        ),
    ],
)
@pytest.mark.parametrize("debug", [pytest.param(False, marks=pytest.mark.soak), True])
def test_no_error_tells_a_password(words: tuple[str, ...], debug: bool, tmp_path: Path) -> None:
    folder = ("--data", str(tmp_path)) if words[:2] in (("dtolbus", "up"), ("dtolbus", "doctor")) else ()
    done = run(*words, *folder, *(("--debug",) if debug else ()))
    assert done.returncode != 0
    assert not re.search("s3/?cr3t", done.stdout + done.stderr), done.stdout + done.stderr
    for path in tmp_path.rglob("*.log"):
        assert "s3cr3t" not in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "[[sink]]\nkind = 'postgres'\ndsn = 'postgresql://lab:s3cr3t@h/d\n",
        '[[sink]]\nkind = "postgres"\ndsn = "postgresql://lab:s3cr3t@h/d" x\n',
        "[[sink]]\nkind = 'postgres'\ndsm = 'postgresql://lab:s3cr3t@h/d'\n",
        "[[sink]]\nkind = 'postgres'\ndsn = ['postgresql://lab:s3cr3t@h/d']\n",
        "[[sink]]\nkind = 'postgres'\ndsn = 'lab:s3cr3t@h/d'\n",
        "[[sink]]\nkind = 'csv'\ndsn = 'postgresql://lab:s3cr3t@h/d'\n",
        "[[sink]]\nkind = 'csv'\npath = 'postgresql://lab:s3cr3t@h/d'\nx = 1\n",
        "dsn = 'postgresql://lab:s3cr3t@h/d'\n",
        "[[sink]]\nkind = 'postgres'\n[sink.options]\ndsn = 'postgresql://lab:s3cr3t@h/d'\n",
    ],
)
def test_no_mistake_in_a_config_tells_a_password(text: str, tmp_path: Path) -> None:
    config = tmp_path / "lab.toml"
    config.write_text(text)
    for words in (("up", "--duration", "0.1"), ("check",), ("doctor",)):
        done = run("dtolbus", *words, "--config", str(config), "--data", str(tmp_path / "data"))
        assert "s3cr3t" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.returncode == 2


def test_a_secret_file_that_is_none_is_told_without_its_content(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    for content in (b"", b"one s3cr3t\ntwo\n", b"\xff\xfes3cr3t"):
        file.write_bytes(content)
        done = run("dtolbus-postgres", "--dsn-file", str(file))
        assert (done.returncode, "s3cr3t" in done.stderr) == (2, False), done.stderr
    both = run("dtolbus-postgres", "--dsn-file", str(file), "--dsn", "postgresql://h/d")
    assert both.returncode == 2
    assert "give one of the two" in both.stderr
    missing = run("dtolbus-postgres", env={"DTOLBUS_DSN_FILE": str(tmp_path / "none")})
    assert missing.returncode == 2
    assert str(tmp_path / "none") in missing.stderr
