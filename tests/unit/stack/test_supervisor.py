"""The supervisor with real little processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack.supervisor import ProcessSpec, RestartPolicy, State, Status, Supervisor
from streams.errors import Unavailable
from tests.unit.stack.conditions import eventually, is_gone

QUICK = RestartPolicy(exit_codes=frozenset({75}), attempts=2, first_delay_s=0.01, longest_delay_s=0.02)


class Stack:
    """Supervisors of a test: stopped at its end; their status changes are recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[Status] = []
        self._supervisors: list[Supervisor] = []

    def supervisor(self, *specs: ProcessSpec) -> Supervisor:
        supervisor = Supervisor(self.folder, specs, self.seen.append)
        self._supervisors.append(supervisor)
        return supervisor

    def spec(
        self, name: str, code: str, ready: Callable[[], bool] | None = None, restart: RestartPolicy = QUICK
    ) -> ProcessSpec:
        """`code` runs with `mark(text)` to write a file beside the logs; it is ready when it says `up`."""
        return ProcessSpec(
            name,
            [sys.executable, "-c", PRELUDE + code, str(self.folder)],
            dict(os.environ),
            ready or (lambda: "up" in self.log(name)),
            ready_within_s=30.0,
            grace_s=5.0,
            restart=restart,
        )

    def log(self, name: str) -> str:
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def states(self, name: str) -> list[State]:
        return [status.state for status in self.seen if status.name == name]

    def close(self) -> None:
        for supervisor in self._supervisors:
            supervisor.stop()


PRELUDE = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def mark(text):
    with (folder / "marks").open("a") as file:
        file.write(text + "\\n")
def up():
    print("up", flush=True)
    while True:
        time.sleep(0.02)
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    it = Stack(tmp_path)
    yield it
    it.close()


def poll_until(supervisor: Supervisor, condition: Callable[[], bool], what: str) -> None:
    def step() -> bool:
        supervisor.poll()
        return condition()

    eventually(step, what)


def on_term(name: str) -> str:
    return f"signal.signal(signal.SIGTERM, lambda *_: (mark({name!r}), sys.exit(0)));"


def test_processes_start_in_order_and_stop_in_reverse(stack: Stack) -> None:
    """The second is started only when the first is ready; the first is stopped only when the second is gone."""
    supervisor = stack.supervisor(
        stack.spec("first", on_term("first stopped") + "mark('first up'); up()"),
        stack.spec("second", on_term("second stopped") + "mark('second up'); up()"),
    )
    supervisor.start()
    supervisor.stop()
    marks = (stack.folder / "marks").read_text().splitlines()
    assert marks == ["first up", "second up", "second stopped", "first stopped"]
    assert [(s.name, s.state) for s in stack.seen] == [
        ("first", State.STARTING),
        ("first", State.READY),
        ("second", State.STARTING),
        ("second", State.READY),
        ("second", State.STOPPED),
        ("first", State.STOPPED),
    ]


def test_a_restartable_end_is_followed_by_a_fresh_start(stack: Stack) -> None:
    """It ends with 75 once, waits, starts again and gets ready."""
    code = "if not (folder / 'marks').exists(): mark('gave up'); sys.exit(75)\nup()"
    supervisor = stack.supervisor(stack.spec("worker", code))
    supervisor.start()
    assert stack.states("worker") == [State.STARTING, State.WAITING, State.STARTING, State.READY]
    waiting = stack.seen[1]
    assert waiting.exit_code == 75
    assert "ended with exit code 75" in waiting.detail


def test_a_killed_process_is_started_again(stack: Stack) -> None:
    """A death by a signal is restarted, whatever the exit codes say."""
    supervisor = stack.supervisor(stack.spec("worker", "up()"))
    supervisor.start()
    first = stack.seen[-1].pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    (stack.folder / "logs" / "worker.log").write_text("")
    poll_until(supervisor, lambda: len(stack.seen) >= 5 and stack.seen[-1].state is State.READY, "it is ready again")
    assert stack.states("worker")[2:] == [State.WAITING, State.STARTING, State.READY]
    assert "was killed by signal 9" in stack.seen[2].detail
    assert stack.seen[-1].pid != first


def test_an_end_that_a_restart_cannot_help_fails_with_its_last_words(stack: Stack) -> None:
    """The error is one line: which process, how it ended, what it said; the others are stopped."""
    supervisor = stack.supervisor(
        stack.spec("first", "up()"), stack.spec("worker", "print('partition counts differ'); sys.exit(78)")
    )
    with pytest.raises(Unavailable, match="worker ended with exit code 78: partition counts differ") as caught:
        supervisor.start()
    assert "\n" not in str(caught.value)
    assert stack.states("worker")[-1] is State.FAILED
    assert stack.states("first")[-1] is State.STOPPED


def test_restarts_are_bounded(stack: Stack) -> None:
    """A process that ends with 75 again and again has failed after the attempts of its policy."""
    supervisor = stack.supervisor(stack.spec("worker", "mark('run'); sys.exit(75)"))
    with pytest.raises(Unavailable, match="ended with exit code 75"):
        supervisor.start()
    assert (stack.folder / "marks").read_text().splitlines() == ["run"] * (1 + QUICK.attempts)


def test_a_healthy_run_gives_the_attempts_back(stack: Stack) -> None:
    """Three deaths over a long life are not a crash loop, though the policy allows two in a row."""
    healthy = RestartPolicy(attempts=2, first_delay_s=0.01, healthy_after_s=0.0)
    supervisor = stack.supervisor(stack.spec("worker", "up()", restart=healthy))
    supervisor.start()
    for death in range(1, 5):
        pid = stack.seen[-1].pid
        assert pid is not None
        poll_until(supervisor, lambda: True, "it was seen healthy")
        os.kill(pid, signal.SIGKILL)
        poll_until(supervisor, lambda n=death: stack.states("worker").count(State.READY) > n, "it is back")  # type: ignore[misc]


def test_a_process_that_never_gets_ready_is_an_error(stack: Stack) -> None:
    """The bound on readiness ends it and says so."""
    spec = stack.spec("worker", "up()", ready=lambda: False)
    supervisor = stack.supervisor(
        ProcessSpec(spec.name, spec.argv, spec.env, spec.ready, ready_within_s=0.2, restart=QUICK)
    )
    with pytest.raises(Unavailable, match="worker is not ready after"):
        supervisor.start()
    pid = stack.seen[0].pid
    assert pid is not None
    assert is_gone(pid)


def test_a_process_that_ignores_sigterm_does_not_hold_the_stop_up(stack: Stack) -> None:
    """After its grace period it is killed, and the ones before it still stop in order."""
    stubborn = stack.spec("stubborn", "signal.signal(signal.SIGTERM, signal.SIG_IGN); up()")
    supervisor = stack.supervisor(
        stack.spec("first", on_term("first stopped") + "up()"),
        ProcessSpec(stubborn.name, stubborn.argv, stubborn.env, stubborn.ready, grace_s=0.1),
    )
    supervisor.start()
    supervisor.stop()
    assert (stack.folder / "marks").read_text() == "first stopped\n"
    assert [s.exit_code for s in stack.seen if s.state is State.STOPPED] == [-9, 0]


def test_two_processes_of_one_name_are_refused(stack: Stack) -> None:
    """They would share a log and a pid file."""
    with pytest.raises(ValueError, match="repeat"):
        stack.supervisor(stack.spec("a", "up()"), stack.spec("a", "up()"))


RUN = """
import os, sys
from pathlib import Path
from stack.supervisor import ProcessSpec, Supervisor
folder = Path(sys.argv[1])
code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)));"
code += "print('up', flush=True); time.sleep(600)"
ready = lambda: "up" in (folder / "logs" / "worker.log").read_text()
spec = ProcessSpec("worker", [sys.executable, "-c", code], dict(os.environ), ready)
Supervisor(folder, [spec], lambda status: print(status.state.value, status.pid, flush=True)).run()
print("done", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_supervisor_stops_the_processes_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """They get SIGTERM and the time to say goodbye; `run` returns without a traceback."""
    parent = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        lines = [parent.stdout.readline(), parent.stdout.readline()]
        assert lines[1].startswith("ready ")
        parent.send_signal(number)
        rest, _ = parent.communicate(timeout=60)
    finally:
        parent.kill()
        parent.communicate()
    assert rest == "stopped None\ndone\n"
    assert parent.returncode == 0
    assert (tmp_path / "logs" / "worker.log").read_text() == "up\nbye\n"


def test_delays_double_up_to_their_bound() -> None:
    """Backoff: first, twice, four times …, never more than the longest; none beyond the attempts."""
    policy = RestartPolicy(exit_codes=frozenset({75}), attempts=5, first_delay_s=1.0, longest_delay_s=5.0)
    assert [policy.delay_s(n, 75) for n in range(6)] == [1.0, 2.0, 4.0, 5.0, 5.0, None]
    assert policy.delay_s(0, 78) is None
    assert policy.delay_s(0, -11) == 1.0


def test_a_poll_after_the_stop_changes_nothing(stack: Stack) -> None:
    """A late poll does not bring a stopped process back."""
    supervisor = stack.supervisor(stack.spec("worker", "up()"))
    supervisor.start()
    supervisor.stop()
    before = len(stack.seen)
    supervisor.poll()
    assert len(stack.seen) == before
