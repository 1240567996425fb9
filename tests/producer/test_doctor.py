"""What `dtolbus doctor` makes of what the system says: sample texts of systems that are not at hand."""

from pathlib import Path

import pytest

from dtolbus_producer.boards.finding import BoardFound, KindFound
from dtolbus_producer.doctor import clocks, database, disk, folder, memory, ports, power, software
from dtolbus_producer.doctor.examining import as_text
from dtolbus_producer.doctor.finding import Finding

CHRONY = """\
Reference ID    : C0A80101 (192.168.1.1)
Stratum         : 3
System time     : 0.000012345 seconds slow of NTP time
Leap status     : {leap}
"""
W32TM = """\
Leap Indicator: 0(no warning)
Stratum: 4 (secondary reference - syncd by (S)NTP)
Root Delay: 0.0312500s
ReferenceId: 0xC0A80101 (source IP:  192.168.1.1)
Last Successful Sync Time: 3/1/2026 8:00:00 AM
Source: time.windows.com,0x9
"""
W32TM_LOCAL = """\
Leap Indicator: 3(not synchronized)
Stratum: 0 (unspecified)
ReferenceId: 0x00000000 (unspecified)
Source: Local CMOS Clock
"""
W32TM_GERMAN = """\
Sprungindikator: 3(nicht synchronisiert)
Stratum: 0 (nicht angegeben)
Quelle: Lokale CMOS-Uhr
"""
POWERCFG = """\
Power Scheme GUID: 381b4222-f694-41f0-9685-ff5bb260df2e  (Balanced)
  Subgroup GUID: 238c9fa8-0aad-41ed-83f4-97be242c8f20  (Sleep)
    GUID Alias: SUB_SLEEP
    Power Setting GUID: 29f6c1db-86da-48c5-9fdb-f2b67b1f44da  (Sleep after)
      GUID Alias: STANDBYIDLE
      Minimum Possible Setting: 0x00000000
      Maximum Possible Setting: 0xffffffff
      Possible Settings increment: 0x00000001
      Possible Settings units: Seconds
    Current AC Power Setting Index: {standby:#010x}
    Current DC Power Setting Index: 0x00000384

    Power Setting GUID: 9d7815a6-7ee4-497e-8888-515a05f02364  (Hibernate after)
      GUID Alias: HIBERNATEIDLE
      Minimum Possible Setting: 0x00000000
      Maximum Possible Setting: 0xffffffff
      Possible Settings increment: 0x00000001
      Possible Settings units: Seconds
    Current AC Power Setting Index: {hibernate:#010x}
    Current DC Power Setting Index: 0x00002a30
"""
NETSTAT = """\

Aktive Verbindungen

  Proto  Lokale Adresse         Remoteadresse          Status           PID
  TCP    127.0.0.1:56010        0.0.0.0:0              ABHÖREN          11
  TCP    127.0.0.1:5601         127.0.0.1:50000        HERGESTELLT      12
  TCP    127.0.0.1:5601         0.0.0.0:0              ABHÖREN          4711
"""
PROC_NET_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:15E1 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 111 1 0
   1: 0100007F:15E1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0
"""
MOUNTS = """\
tmpfs /mnt/my\\040lab/fast tmpfs rw 0 0
server:/lab /mnt/my\\040lab nfs4 rw 0 0
/dev/sda1 / ext4 rw 0 0
"""


class TestClocks:
    def test_a_clock_of_15_ms_is_a_problem_and_a_coarse_wall_clock_a_warning(self):
        assert clocks.resolution(1e-9, 1e-9).state == "ok"
        assert clocks.resolution(0.015, 1e-9).state == "problem"
        assert clocks.resolution(1e-7, 0.05).state == "warning"

    @pytest.mark.parametrize(
        ("text", "state", "says"),
        [
            ("NTP=yes\nNTPSynchronized=yes\n", "ok", "kept right"),
            ("NTP=yes\nNTPSynchronized=no\n", "warning", "not set the clock yet"),
            ("NTP=no\nNTPSynchronized=no\n", "warning", "NTP is off"),
            ("Timezone=UTC\n", "warning", "nothing here tells"),
        ],
    )
    def test_timedatectl(self, text, state, says):
        found = clocks.timedatectl(text)
        assert (found.state, says in found.what) == (state, True)

    def test_chrony(self):
        assert "0.000012345 seconds slow" in clocks.chrony(CHRONY.format(leap="Normal")).what
        assert clocks.chrony(CHRONY.format(leap="Normal")).state == "ok"
        assert clocks.chrony(CHRONY.format(leap="Not synchronised")).state == "warning"
        assert clocks.chrony(CHRONY.format(leap="Normal").replace("C0A80101", "00000000")).state == "warning"

    @pytest.mark.parametrize(
        ("text", "state"), [(W32TM, "ok"), (W32TM_LOCAL, "warning"), (W32TM_GERMAN, "warning"), (None, "warning")]
    )
    def test_the_windows_time_service_in_any_language(self, text, state):
        found = clocks.windows_time(text)
        assert found.state == state
        assert bool(found.todo) == (state == "warning")


class TestPower:
    @pytest.mark.parametrize(
        ("standby", "hibernate", "state", "says"),
        [
            (0, 0, "ok", "switched off"),
            (1800, 0, "warning", "goes to sleep after 30 min"),
            (0, 7200, "warning", "goes to hibernate after 120 min"),
            (60, 120, "warning", "sleep after 1 min and hibernate after 2 min"),
        ],
    )
    def test_windows_counts_the_setting_on_mains_not_that_on_battery(self, standby, hibernate, state, says):
        found = power.windows_sleep(POWERCFG.format(standby=standby, hibernate=hibernate))
        assert found.state == state
        assert says in found.what
        assert ("powercfg /change" in found.todo) == (state == "warning")

    def test_windows_in_another_language_and_without_an_answer(self):
        german = POWERCFG.format(standby=600, hibernate=0)
        german = german.replace("Current AC Power Setting Index", "Index der aktuellen Wechselstromeinstellung")
        german = german.replace("Minimum Possible Setting", "Minimal mögliche Einstellung")
        assert power.windows_sleep(german).state == "warning"
        assert "cannot be told" in power.windows_sleep("").what

    def test_linux(self):
        static, masked = {"sleep.target": "static"}, {"sleep.target": "masked"}
        assert "switched off" in power.linux_sleep(masked, "IdleAction=suspend\n").what
        assert power.linux_sleep(static, "#IdleAction=suspend\n").state == "ok"
        assert power.linux_sleep(static, "IdleAction=ignore\nIdleAction=suspend\n").state == "warning"
        assert "closing a lid does nothing" in power.linux_sleep(static, "HandleLidSwitch=ignore\n").what
        assert "cannot be told" in power.linux_sleep({"sleep.target": ""}, "").what


class TestDisk:
    def test_a_disk_slower_than_what_is_recorded_loses_samples(self):
        assert disk.speed(100e6, 0.01, 1e6).state == "ok"
        assert disk.speed(3e6, 0.01, 1e6).state == "warning"
        assert disk.speed(0.9e6, 0.01, 1e6).state == "problem"
        assert disk.speed(100e6, 2.0, 1e6).state == "warning"

    def test_room(self):
        assert disk.room_left(10 << 30, 1 << 30, 500.0).state == "ok"
        assert disk.room_left(10 << 30, 1 << 30, 5.0).state == "warning"
        assert disk.room_left(1 << 29, 1 << 30, 0.0).state == "problem"
        assert disk.room_left(10 << 30, 0, None).state == "ok"

    @pytest.mark.parametrize(
        ("folder", "state", "kind"),
        [
            ("/home/lab", "ok", "ext4"),
            ("/mnt/my lab/data", "warning", "nfs4"),
            ("/mnt/my lab/fast/data", "warning", "tmpfs"),
            ("/mnt/my laboratory", "ok", "ext4"),
        ],
    )
    def test_a_network_mount_and_memory_are_warned_of(self, folder, state, kind):
        found = disk.file_system(MOUNTS, Path(folder))
        assert (found.state, found.what.partition(":")[0]) == (state, kind)

    def test_windows_paths(self):
        assert disk.windows_path("\\\\nas\\lab").state == "warning"
        assert disk.windows_path("C:\\lab").state == "ok"
        assert disk.windows_path("\\\\?\\C:\\lab").state == "ok"

    def test_a_real_folder_is_measured_and_left_as_it_was(self, tmp_path):
        found = {finding.name: finding for finding in disk.examine_folder(tmp_path / "data", 1.0)}
        assert found["data folder"].state == found["new files"].state == "ok"
        assert "a second written and synced" in found["disk speed"].what
        assert list(tmp_path.iterdir()) == []

    def test_a_rename_that_replaces_is_a_problem(self, tmp_path, monkeypatch):
        monkeypatch.setattr("dtolbus.files.publish_new", lambda temp, final: temp.replace(final))
        assert disk.publishing(tmp_path).state == "problem"

    def test_a_data_folder_that_is_a_file_is_a_problem(self, tmp_path):
        (tmp_path / "data").write_text("mine")
        (found,) = disk.examine_folder(tmp_path / "data" / "deeper", 1.0)
        assert (found.state, "is not a folder" in found.what) == ("problem", True)


class TestPorts:
    def test_who_listens_is_read_from_netstat_in_any_language(self):
        assert ports.windows_listener(NETSTAT, 5601) == 4711
        assert ports.windows_listener(NETSTAT, 5602) is None
        assert ports.windows_process('"python.exe","4711","Console","1","9.000 K"\r\n', 4711) == "pid 4711, python.exe"
        assert ports.windows_process("INFO: No tasks are running", 4711) == "pid 4711"

    def test_who_listens_is_read_from_proc(self):
        assert ports.linux_listener(PROC_NET_TCP, 5601) == "222"
        assert ports.linux_listener(PROC_NET_TCP, 5602) is None


class TestMemory:
    def test_little_memory_is_warned_of(self):
        assert memory.linux_free_bytes("MemFree: 5 kB\nMemAvailable:   1024 kB\n") == 1 << 20
        assert memory.windows_free_bytes("8388608\r\n") == 8 << 30
        assert memory.windows_free_bytes("denied") is None
        assert [memory.memory(size).state for size in (8 << 30, 1 << 20, None)] == ["ok", "warning", "ok"]


class TestSoftware:
    def test_python_and_versions(self):
        assert software.python((3, 10, 9)).state == "problem"
        assert software.python((3, 11, 0)).state == "ok"
        same = {"dtolbus": "1.0", "dtolbus-producer": "1.0"}
        assert software.versions(same).state == "ok"
        assert software.versions({**same, "dtolbus": "1.1"}).state == "problem"
        missing = software.versions({**same, "dtolbus-workers": None})
        assert (missing.state, "pip install dtolbus-workers" in missing.todo) == ("warning", True)

    def test_a_missing_package_is_a_problem_where_its_sink_is_configured(self):
        missing = {"parquet": "pyarrow is not installed: pip install 'dtolbus-workers[parquet]'", "postgres": None}
        for configured, state in (({"parquet"}, "problem"), ({"sqlite"}, "ok")):
            first, second = software.packages(missing, configured)
            assert (first.state, first.todo) == (state, "pip install 'dtolbus-workers[parquet]'")
            assert second.state == "ok"

    def test_a_board_without_its_sdk_is_a_problem_where_it_is_configured(self):
        kinds = [
            KindFound(kind="dt", is_usable=False, about="no SDK"),
            KindFound(kind="usb", is_usable=True, about="", lists_boards=True),
            KindFound(
                kind="sim", is_usable=True, about="", lists_boards=True, boards=(BoardFound(board="sim", model="M"),)
            ),
            KindFound(kind="playback", is_usable=True, about=""),
        ]
        assert [found.state for found in software.boards(kinds, {"dt", "usb", "sim", "playback"})] == [
            "problem",
            "problem",
            "ok",
            "ok",
        ]
        assert {found.state for found in software.boards(kinds, set())} == {"ok"}


class TestTheRest:
    def test_a_database_is_told_without_its_password(self):
        assert database.where("postgresql://ada:s%40cret@db:5433/lab?sslmode=require") == "db:5433/lab"
        assert database.database("db/lab", True).state == "ok"
        assert database.database("db/lab", False).state == "warning"

    def test_a_database_that_does_not_answer_is_a_problem(self):
        found = database.examine_database("postgresql://ada:secret@127.0.0.1:1/lab")
        assert found.state == "problem"
        assert found.what.startswith("127.0.0.1:1/lab: ")
        assert "secret" not in str(found)

    def test_recordings(self):
        assert "gateway 12" in folder.running(True, {"gateway": 12}).what
        assert folder.interrupted(0).state == "ok"
        assert "2 runs have not been ended" in folder.interrupted(2).what

    def test_the_lines_for_people(self):
        lines = as_text([Finding("disk", "problem", "full", "make room"), Finding("clock", "ok", "fine")])
        assert lines == ["disk   problem  full", "    → make room", "clock  ok       fine", "1 problem, no warnings"]
