"""One run in a launcher that is a plain process."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from launcher_stage import connected, ended, new_directory, process, request, run, shell

LONGEST_MSG = 131_067
"""So that ``MSG=`` and its NUL fill the 128 KiB that Linux allows for one variable."""

ANY_BYTES = bytes(range(1, 256)).decode(errors="surrogateescape")


# -- the command


@pytest.mark.parametrize(
    ("argv", "output"),
    [
        (["/bin/echo", "two words", "", "$HOME"], b"two words  $HOME\n"),
        (["echo", "found"], b"found\n"),
        (["/bin/sh", "-c", 'echo "$0-$1"', "a", "b\nc"], b"a-b\nc\n"),
    ],
)
async def test_the_words_arrive_as_they_are(tmp_path: Path, argv: list[str], output: bytes) -> None:
    run_ = await run(tmp_path / "p", request(*argv))
    assert (run_.report.shell_exit_code, run_.output) == (0, output)


async def test_each_exit_code_is_reported(tmp_path: Path) -> None:
    async def exit_code(code: int) -> int:
        return (await run(tmp_path / str(code), shell(f"exit {code}"))).report.exit_code

    for first in range(0, 256, 16):
        codes = range(first, first + 16)
        assert await asyncio.gather(*map(exit_code, codes)) == list(codes)


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "ILL", "ABRT", "FPE", "KILL", "SEGV",
                                  "PIPE", "ALRM", "TERM", "USR1"])  # fmt: skip
async def test_death_by_a_signal_names_the_signal(tmp_path: Path, name: str) -> None:
    report = (await run(tmp_path / "p", shell(f"ulimit -c 0; kill -{name} $$; sleep 9"))).report
    number = signal.Signals[f"SIG{name}"]
    assert (report.signal, report.exit_code, report.shell_exit_code) == (number, 0, 128 + number)


def files(folder: Path) -> dict[str, str]:
    texts = {
        "plain": "not executable",
        "script": "#!/no/such/interpreter\n",
        "garbage": "neither ELF nor script",
        "denied/plain": "not executable",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o644 if name.endswith("plain") else 0o755)
    return {"PATH": f"{folder}/denied:/no/such"}


@pytest.mark.parametrize(
    ("word", "code", "words"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/nope", 127, 'exec: "/nope": No such file or directory'),
        ("./script", 127, "the interpreter or loader it names is not in the image"),
        ("./plain", 126, 'exec: "./plain": Permission denied'),
        ("plain", 126, 'exec: "plain": Permission denied'),
        ("./garbage", 126, 'exec: "./garbage": Exec format error'),
        (".", 126, "Permission denied"),
        ("./plain/x", 126, "Not a directory"),
        ("", 127, "no command specified"),
        ("no\nreport exit=0", 127, 'exec: "no?report exit=0"'),
    ],
)
async def test_what_cannot_be_run_is_127_or_126_with_words(
    tmp_path: Path, word: str, code: int, words: str
) -> None:
    wanted = request(word, environment=files(tmp_path), directory=str(tmp_path))
    report = (await run(tmp_path / "p", wanted)).report
    assert report.shell_exit_code == code
    assert words in report.error


async def test_no_command_at_all_is_said_so(tmp_path: Path) -> None:
    report = (await run(tmp_path / "p", request())).report
    assert (report.shell_exit_code, report.error) == (127, "no command specified")


# -- what it runs in


async def test_the_environment_is_the_requests_and_three_defaults(tmp_path: Path) -> None:
    given = {"A": "1", "EMPTY": "", "HOMER": "x"}
    run_ = await run(tmp_path / "p", request("/usr/bin/env", "-0", environment=given))
    found = dict(v.split("=", 1) for v in run_.output.decode().rstrip("\0").split("\0"))
    home = Path("~").expanduser() if os.geteuid() == 0 else found["HOME"]
    assert found == {
        **given,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": os.uname().nodename,
        "HOME": str(home),
    }


@pytest.mark.parametrize("home", ["/elsewhere", ""])
async def test_a_home_that_is_set_stays_and_an_empty_one_is_none(tmp_path: Path, home: str) -> None:
    wanted = request("/usr/bin/env", environment={"HOME": home, "PATH": "/bin", "HOSTNAME": "h"})
    lines = (await run(tmp_path / "p", wanted)).output.decode().splitlines()
    assert sorted(line.split("=")[0] for line in lines) == ["HOME", "HOSTNAME", "PATH"]
    assert ("HOME=/elsewhere" in lines) == bool(home)
    assert "HOME=" not in lines


@pytest.mark.parametrize(
    "message", ["", "x" * LONGEST_MSG, ANY_BYTES, "\n'\"$(reboot)`\\ é\t"],
    ids=["empty", "longest", "bytes", "quotes"],
)  # fmt: skip
async def test_a_message_arrives_byte_for_byte(tmp_path: Path, message: str) -> None:
    wanted = shell('printf %s "$MSG"', {"MSG": message})
    run_ = await run(tmp_path / "p", wanted)
    assert run_.output == message.encode(errors="surrogateescape")


async def test_a_message_one_byte_too_long_is_refused_by_the_system(tmp_path: Path) -> None:
    wanted = shell("true", {"MSG": "x" * (LONGEST_MSG + 1)})
    report = (await run(tmp_path / "p", wanted)).report
    assert (report.shell_exit_code, report.error) == (
        126,
        'exec: "/bin/sh": Argument list too long',
    )


async def test_the_program_has_a_session_default_signals_and_no_descriptor_of_ours(
    tmp_path: Path,
) -> None:
    script = (
        "cut -d' ' -f5,6 /proc/$$/stat; echo $$; "
        "grep -E '^Sig(Blk|Ign)' /proc/self/status; readlink /proc/$$/fd/0; ls /proc/$$/fd; true"
    )
    lines = (await run(tmp_path / "p", request("/bin/bash", "-c", script))).output.decode().split()
    assert lines[0] == lines[1] == lines[2]
    assert lines[3:7] == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]
    assert lines[7] == "/dev/null"
    assert [fd for fd in lines[8:] if fd != "255"] == ["0", "1", "2"]


async def test_the_directory_is_entered(tmp_path: Path) -> None:
    assert (await run(tmp_path / "a", shell("pwd", directory="/usr"))).output == b"/usr\n"
    assert (await run(tmp_path / "b", shell("pwd"))).output == b"/\n"


async def test_a_directory_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    report = (await run(tmp_path / "p", shell("pwd", directory="/no/such"))).report
    assert report.shell_exit_code == 126
    assert report.error == (
        "cannot enter the working directory /no/such: No such file or directory"
    )


# -- output


async def test_both_streams_come_in_the_order_they_were_written(tmp_path: Path) -> None:
    run_ = await run(tmp_path / "p", shell("for i in 1 2 3; do echo o$i; echo e$i >&2; done"))
    assert run_.output == b"o1\ne1\no2\ne2\no3\ne3\n"


async def test_binary_output_is_kept_as_it_is(tmp_path: Path) -> None:
    run_ = await run(tmp_path / "p", shell('printf %s "$MSG"; printf "\\0"', {"MSG": ANY_BYTES}))
    assert run_.output == bytes(range(1, 256)) + b"\0"


async def test_output_beyond_the_limit_is_counted_and_memory_stays_flat(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    gigabyte = 1_000_000_000
    with process(directory) as launcher:
        running = asyncio.create_task(
            ended(directory, shell(f"head -c {gigabyte} /dev/zero; sleep 0.3", output_bytes=1000))
        )
        peak = 0
        while not running.done():
            peak = max(peak, resident_bytes(launcher.pid))
            await asyncio.sleep(0.01)
    run_ = await running
    assert run_.output == bytes(1000)
    assert (run_.report.output_bytes, run_.report.dropped_bytes) == (1000, gigabyte - 1000)
    assert 0 < peak < 2_000_000


def resident_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (FileNotFoundError, IndexError, ProcessLookupError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def test_no_output_is_none(tmp_path: Path) -> None:
    run_ = await run(tmp_path / "p", request("true"))
    assert (run_.output, run_.report.output_bytes, run_.report.first_output_ns) == (b"", 0, 0)


async def test_all_output_is_there_with_the_report(tmp_path: Path) -> None:
    for n in range(20):
        run_ = await run(tmp_path / f"p{n}", shell("head -c 60000 /dev/zero; echo end"))
        assert run_.output == bytes(60_000) + b"end\n"


# -- processes that stay


async def test_a_grandchild_that_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    run_ = await run(tmp_path / "p", shell("sleep 50 & echo said; exit 3"))
    assert (run_.report.shell_exit_code, run_.output) == (3, b"said\n")
    assert time.monotonic() - began < 40


async def test_a_grandchild_that_goes_on_writing_does_not_keep_the_report_back(
    tmp_path: Path,
) -> None:
    script = "timeout 50 sh -c 'while :; do echo noise; done' & sleep 0.1; exit 4"
    began = time.monotonic()
    assert (await run(tmp_path / "p", shell(script))).report.shell_exit_code == 4
    assert time.monotonic() - began < 40


async def test_orphans_are_reaped(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    script = "for i in 1 2 3; do (sh -c 'sleep 0.1' &) ; done; sleep 0.4; exec cat /dev/stdin"
    with process(directory) as launcher:
        await ended(directory, shell(f"{script}; ps --ppid {launcher.pid}"))
        assert (directory.read_report() or 0) != 0
        run_ = directory.output.read_bytes()
    assert b"defunct" not in run_


# -- stopping


@pytest.mark.parametrize("script", ["sleep 60", "trap '' TERM; while :; do sleep 0.05; done"])
async def test_a_halt_ends_it_whether_it_listens_or_not(tmp_path: Path, script: str) -> None:
    directory = new_directory(tmp_path / "p")
    deaf = script.startswith("trap")
    with process(directory):
        async with connected(directory) as launcher:
            await launcher.launch(shell(f"{script}", grace_seconds=0.3))
            async for _ in launcher.messages():
                break
            await asyncio.sleep(0.1)  # until the trap is set
            await launcher.halt()
            report = await launcher.wait_for_report()
    assert report.signal == (signal.SIGKILL if deaf else signal.SIGTERM)
    assert (report.halted, report.timed_out) == (True, False)
    assert (report.ended_ns - report.started_ns > 300_000_000) == deaf


async def test_what_ends_well_after_a_halt_has_its_own_exit_code(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
    with process(directory):
        async with connected(directory) as launcher:
            await launcher.launch(shell(script))
            while not (directory.output.exists() and directory.output.read_bytes()):
                await asyncio.sleep(0.01)
            await launcher.halt()
            report = await launcher.wait_for_report()
    assert (report.shell_exit_code, report.halted) == (7, True)
    assert directory.output.read_bytes().endswith(b"bye\n")


@pytest.mark.parametrize("ends_by", ["halt", "time"])
async def test_the_image_says_which_signal_ends_it(tmp_path: Path, ends_by: str) -> None:
    directory = new_directory(tmp_path / "p")
    script = "trap '' TERM; trap 'echo saved; exit 0' INT; echo ready; while :; do sleep 0.02; done"
    limit = 0.5 if ends_by == "time" else 0
    with process(directory):
        async with connected(directory) as launcher:
            wanted = shell(script, stop_signal=signal.SIGINT, run_seconds=limit, grace_seconds=20)
            await launcher.launch(wanted)
            while not (directory.output.exists() and directory.output.read_bytes()):
                await asyncio.sleep(0.01)
            if ends_by == "halt":
                await launcher.halt()
            report = await launcher.wait_for_report()
    assert (report.shell_exit_code, report.halted, report.timed_out) == (
        0,
        ends_by == "halt",
        ends_by == "time",
    )
    assert directory.output.read_bytes() == b"ready\nsaved\n"


@pytest.mark.parametrize("script", ["sleep 60", "trap '' TERM; while :; do sleep 0.05; done"])
async def test_the_time_limit_ends_it(tmp_path: Path, script: str) -> None:
    wanted = shell(script, run_seconds=0.3, grace_seconds=0.2)
    report = (await run(tmp_path / "p", wanted)).report
    deaf = script.startswith("trap")
    seconds = (report.ended_ns - report.started_ns) / 1e9
    assert (report.timed_out, report.halted) == (True, False)
    assert report.signal == (signal.SIGKILL if deaf else signal.SIGTERM)
    assert (0.5 if deaf else 0.3) <= seconds < 20


async def test_a_time_limit_that_is_not_reached_does_nothing(tmp_path: Path) -> None:
    report = (await run(tmp_path / "p", shell("exit 5", run_seconds=30))).report
    assert (report.shell_exit_code, report.timed_out) == (5, False)


async def test_signals_are_passed_on(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    script = "trap 'echo usr1; exit 9' USR1; echo ready; while :; do sleep 0.02; done"
    with process(directory) as launcher:
        running = asyncio.create_task(ended(directory, shell(script)))
        while not (directory.output.exists() and directory.output.read_bytes()):
            await asyncio.sleep(0.01)
        launcher.send_signal(signal.SIGUSR1)
        run_ = await running
        assert launcher.wait(5) == 9
    assert run_.output.endswith(b"usr1\n")
    assert (run_.report.shell_exit_code, run_.report.halted) == (9, False)


# -- the account


async def test_the_times_are_in_order(tmp_path: Path) -> None:
    before = time.time_ns()
    report = (await run(tmp_path / "p", shell("sleep 0.1; echo x; sleep 1"))).report
    moments = [
        before, report.started_ns, report.first_output_ns, report.ended_ns, time.time_ns()
    ]  # fmt: skip
    assert moments == sorted(moments)
    assert report.first_output_ns - report.started_ns > 90_000_000
    assert report.ended_ns - report.first_output_ns > 90_000_000


async def test_a_short_run_has_a_duration(tmp_path: Path) -> None:
    report = (await run(tmp_path / "p", request("true"))).report
    assert 0 < report.ended_ns - report.started_ns < 1_000_000_000


async def test_cpu_and_memory_of_processes_are_counted(tmp_path: Path) -> None:
    script = (
        "import time; x = b'x' * 50_000_000; began = time.process_time()\n"
        "while time.process_time() < began + 0.3: pass\n"
        "print(time.process_time_ns())"
    )
    run_ = await run(tmp_path / "p", request("/usr/bin/python3", "-c", script))
    report, used = run_.report, int(run_.output)
    assert 0.3e9 <= used <= report.cpu_ns < 1.5 * used
    assert 50_000_000 < report.memory_bytes < 80_000_000
    assert not report.out_of_memory
