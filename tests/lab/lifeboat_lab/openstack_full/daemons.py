# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The processes of the lab's OpenStack: each in a session of its own, with a log, and ended by its id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..recipe import LabError
from ..waiting import until

SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would have the services reach another cloud."""
    return {**{name: value for name, value in os.environ.items()
               if not name.startswith(("OS_", "PYTHON", "RABBITMQ_", "ERL_")) and "proxy" not in name.lower()},
            "PATH": SBIN, "LC_ALL": "C.UTF-8", **more}


def free_ports(count: int) -> list[int]:
    """So many ports on loopback that nobody has now."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for number in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in socks]


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):  # refused: nobody
        return True
    return False


def run(command: Sequence[str | Path], env: Mapping[str, str], timeout: float = 300, stdin: str = "") -> str:
    """Run a program to its end. Returns what it printed; raises LabError with it where that was a failure."""
    done = subprocess.run([str(word) for word in command], env=dict(env), input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise LabError(f"{Path(command[0]).name} {' '.join(str(word) for word in command[1:4])} ... failed:\n{done.stdout[-4000:]}")
    return done.stdout


class Daemon:
    """One process and its children. ready: whether it does its work."""

    def __init__(self, name: str, command: Sequence[str | Path], env: Mapping[str, str], logs: Path, ready: Callable[[], bool],
                 stop: signal.Signals = signal.SIGTERM):
        self.name = name
        self.log = logs / f"{name}.log"
        self.ready = ready
        self._stop_signal = stop
        with open(self.log, "ab") as log:
            # It goes with us, also where we are killed. Ctrl-C is for us; we end it.
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *(str(word) for word in command)], env=dict(env),
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=logs, start_new_session=True)

    def wait(self, seconds: float) -> None:
        """Wait until it is ready. Raises LabError with its last words where it ends before, or takes longer."""
        def words(what: str) -> str:
            return f"{self.name} {what}; its last words in {self.log}:\n" + \
                self.log.read_text(encoding="utf-8", errors="replace")[-3000:]

        def there() -> bool:
            ready = self.ready()
            if not ready and self.process.poll() is not None:
                raise LabError(words("ended"))
            return ready

        until(there, seconds, lambda: words(f"is not ready after {seconds:g} s"), every=0.05)

    def ask_to_end(self) -> None:
        """Tell it, and do not wait."""
        if self.process.poll() is None:
            self.process.send_signal(self._stop_signal)

    def end(self, seconds: float = 15.0) -> None:
        """Wait until it has ended, and end what is left of it hard."""
        self.ask_to_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=seconds)
        with contextlib.suppress(ProcessLookupError):
            # Its children are in its group.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=seconds)


def mariadb(data: Path, run_directory: Path, logs: Path) -> Daemon:
    """MariaDB on data, reached by run_directory/mariadb.sock alone, for which the path must be short."""
    sock = run_directory / "mariadb.sock"

    def ready() -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:  # not yet there, or does not listen yet
            client.connect(str(sock))
            return True
        return False

    return Daemon("mariadb", [
        _program("mariadbd"), "--no-defaults", f"--datadir={data}", f"--socket={sock}", f"--pid-file={run_directory}/mariadb.pid",
        "--skip-networking", "--skip-name-resolve", "--skip-log-bin", "--max-connections=500", "--performance-schema=off",
        *(["--user=root"] if os.geteuid() == 0 else []), f"--tmpdir={run_directory}",
        # Nobody minds when it is lost.
        "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--innodb-log-file-size=16M",
        "--innodb-buffer-pool-size=128M",
    ], environment(), logs, ready)


def make_mariadb(data: Path) -> None:
    """An empty data directory, whose root needs no password."""
    run([_program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
         "--skip-test-db", "--innodb-log-file-size=16M", *(["--user=root"] if os.geteuid() == 0 else [])], environment())


def mariadb_version() -> str:
    """As the program says."""
    return run([_program("mariadbd"), "--no-defaults", "--version"], environment())


def _program(name: str) -> str:
    found = shutil.which(name, path=SBIN)
    if not found:
        raise LabError(f"There is no {name}. On Debian it is in mariadb-server-core and mariadb-client-core.")
    return found


class RabbitMq:
    """RabbitMQ, from Debian packages that were only unpacked, so that the system has no such service.

    port: on loopback. user, password: the only account.
    """

    def __init__(self, root: Path, directory: Path, logs: Path, user: str, password: str, daemons: list[Daemon]):
        """root: where the packages were unpacked. daemons: what is started is added to them."""
        found = sorted(root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"))
        if not found:
            raise LabError(f"RabbitMQ is not in {root}. ./dev test openstack-full puts it there.")
        erlang = root / "usr/lib/erlang"
        self.port, distribution, epmd = free_ports(3)
        directory.mkdir(mode=0o700, parents=True)
        (directory / "rabbitmq.conf").touch(0o600)
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndefault_user = {user}\ndefault_pass = {password}\nlog.console = true\n"
            "log.file = false\n", encoding="utf-8")
        (directory / "plugins").write_text("[].\n", encoding="utf-8")
        env = environment(
            HOME=str(directory), PATH=f"{erlang}/bin:{SBIN}", ERL_EPMD_ADDRESS="127.0.0.1", ERL_EPMD_PORT=str(epmd),
            RABBITMQ_NODENAME="lab@localhost", RABBITMQ_DIST_PORT=str(distribution), RABBITMQ_MNESIA_BASE=str(directory / "mnesia"),
            RABBITMQ_LOG_BASE=str(directory), RABBITMQ_LOGS="-", RABBITMQ_CONFIG_FILE=str(directory / "rabbitmq.conf"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(directory / "plugins"), RABBITMQ_CONF_ENV_FILE="/dev/null",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
            # So that the script becomes the program, whose id is the one that we know.
            RUNNING_UNDER_SYSTEMD="1")
        # It would start one itself, which would outlive it.
        daemons.append(Daemon("epmd", [erlang / "bin/epmd", "-address", "127.0.0.1", "-port", str(epmd)], env, logs,
                              lambda: accepts(epmd)))
        daemons[-1].wait(60)
        log = logs / "rabbitmq.log"
        daemons.append(Daemon("rabbitmq", [found[-1]], env, logs, lambda: (
            "Server startup complete" in log.read_text(encoding="utf-8", errors="replace") and accepts(self.port))))

    @staticmethod
    def url(user: str, password: str, port: int) -> str:
        """As oslo.messaging wants it."""
        return f"rabbit://{user}:{password}@127.0.0.1:{port}/"
