"""A killed run whose newest segment is gone is never certified as complete."""

from pathlib import Path

from tests.e2e.commands import run
from tests.producer.test_journal import block, info_of

from dtolbus_producer.journal import RunWriter

CONFIG = (
    "[gateway]\npub_port = 0\ncatchup_port = 0\n"
    '[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nkind = "readings"\nrate_hz = 50\nchannels = ["a"]\n'
)


def test_durable_records_that_are_gone_make_the_certificate_incomplete(tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "lab.toml"
    info = info_of()
    writer = RunWriter(data / "journal", info, sync_ms=0, segment_s=0.0)
    for index in range(3):
        writer.append(block(info, index))
    writer._release()
    (writer.path / "000000000002.dt-raw").unlink()
    config.write_text(CONFIG)

    done = run(
        *("dtolbus", "up", "--data", str(data), "--config", str(config)), *("--duration", "1", "--sinks", "parquet")
    )
    assert done.returncode == 0, done.stdout + done.stderr  # its certificate is of its own runs

    verified = run("dtolbus", "verify", "--data", str(data))
    assert verified.returncode == 1, verified.stdout + verified.stderr
    assert f"{info.run_id}: gap 2: missing in the journal" in verified.stdout
    assert verified.stdout.rstrip().endswith("INCOMPLETE")
