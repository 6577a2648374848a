"""The jars of Apache Kafka, copied once from Maven Central into the checkout's cache.

`python -m tests.support.kafka_jars` fetches them ahead of the tests.
"""

import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.support.server import ServerError, executable

POM = Path(__file__).parent / "kafka" / "pom.xml"
DEFAULT_LIBS = Path(__file__).parents[2] / ".cache" / "kafka-libs"
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
ATTEMPTS = 3
PAUSE_S = 5.0


def kafka_libs() -> Path:
    """The folder of the jars, filled if it is not yet; safe with several test runs at once.

    `DRIFTLINE_KAFKA_LIBS` names another folder than the checkout's `.cache/kafka-libs`.
    """
    libs = Path(os.environ.get("DRIFTLINE_KAFKA_LIBS") or DEFAULT_LIBS).resolve()
    libs.parent.mkdir(parents=True, exist_ok=True)
    marker = libs / ".complete"
    wanted = POM.read_text()
    with libs.with_name(libs.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_text() != wanted:
            if libs.exists() and any(libs.iterdir()) and not _ours(libs):
                raise ServerError(f"{libs} holds more than jars: name an empty folder in DRIFTLINE_KAFKA_LIBS")
            shutil.rmtree(libs, ignore_errors=True)  # jars of another version must not stay on the class path
            _copy(libs)
            marker.write_text(wanted)
    return libs


def _ours(libs: Path) -> bool:
    return all(file.suffix == ".jar" or file.name == ".complete" for file in libs.iterdir())


def _copy(libs: Path) -> None:
    command = [
        *(executable("mvn", "maven"), "-q", "-B", "-f", str(POM), COPY_GOAL),
        *(f"-DoutputDirectory={libs}", "-DincludeScope=runtime"),
    ]
    for attempt in range(1, ATTEMPTS + 1):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if attempt < ATTEMPTS:
            time.sleep(PAUSE_S)
    output = (done.stdout + done.stderr)[-3000:]
    raise ServerError(f"Maven did not copy Kafka's jars in {ATTEMPTS} attempts; it says:\n{output}")


if __name__ == "__main__":
    try:
        kafka_libs()
    except ServerError as error:
        raise SystemExit(str(error)) from error
