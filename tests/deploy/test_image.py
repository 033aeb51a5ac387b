"""The image of deploy/Dockerfile: it builds, and runs without root, rights or a writable root."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from arthur_relay.sandbox import ArthurSandbox
from tests.daemon.process import arrived, row
from tests.daemon.traces import PROTOBUF, body, hex_id, stored
from tests.waiting import wait_for

from .image import Engine, Image, build_example, build_relay
from .image import engine as running_engine
from .settings import DAEMON_PREFIX
from .test_kubernetes import Rendered
from .tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)  # the first test waits for the image
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("image") / "folder") as found:
        yield found


@pytest.fixture(scope="module")
def image(engine: Engine) -> Image:
    return build_relay(engine)


@pytest.fixture(scope="module")
def example(engine: Engine, image: Image) -> Image:
    return build_example(engine)


def relays_own(sandbox: ArthurSandbox) -> dict[str, str]:
    """Return what the relay is told; the model is its clients' matter."""
    given = sandbox.environment()
    return {name: given[name] for name in ("ARTHUR_ENDPOINT_URL", "ARTHUR_API_KEY")}


def test_it_says_what_it_is(image: Image) -> None:
    assert image.run("--version") == f"arthur-relay {VERSION}\n"
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert image.config["Cmd"] == ["serve"]
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["Healthcheck"]["Test"] == ["CMD", "arthur-relay", "healthcheck"]


def test_nothing_of_it_can_be_written_by_its_user(image: Image) -> None:
    uid = int(image.config["User"].partition(":")[0])
    assert uid > 0
    for path in (image.root / "opt").rglob("*"):
        status = path.lstat()
        assert status.st_uid != uid, path
        assert path.is_symlink() or not status.st_mode & 0o022, path
    assert not list((image.root / "opt").rglob("pip")), "nothing is to be installed into it"


def test_it_serves_with_a_read_only_root_and_ends_on_sigterm(
    image: Image, sandbox: ArthurSandbox
) -> None:
    with image.running("serve", environment=relays_own(sandbox)) as (process, pid):
        socket = image.state / "run/arthur-relay/relay.sock"
        wait_for(socket.exists)
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://relay", timeout=30
        ) as client:
            wait_for(lambda: client.get("/readyz").status_code == 200)
            answer = client.post(
                f"/api/v3/models/{sandbox.model_id}/inferences",
                headers={"Authorization": "any"},
                json=[row("through-the-image")],
            )
            assert answer.status_code == 207
            wait_for(lambda: arrived(sandbox) == ["through-the-image"])
        # As an engine sends it: to the first process of the container.
        os.kill(pid, signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0, out
        assert not socket.exists()
    spool = image.state / "var/lib/arthur-relay"
    assert spool.stat().st_uid == 10001


def test_it_delivers_to_arthur_engine_too(image: Image, sandbox: ArthurSandbox) -> None:
    given = sandbox.engine_environment()
    environment = {name: given[name] for name in ("ARTHUR_BASE_URL", "ARTHUR_API_KEY")}
    shutil.rmtree(image.state)  # with the socket of a daemon before
    with image.running("serve", environment=environment) as (process, pid):
        socket = image.state / "run/arthur-relay/relay.sock"
        wait_for(socket.exists)
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://relay", timeout=30
        ) as client:
            answer = client.post(
                "/v1/traces", headers=PROTOBUF, content=body(1, task=sandbox.task_id)
            )
            assert answer.status_code == 200, answer.text
        wait_for(lambda: stored(sandbox) == [hex_id(1)])
        os.kill(pid, signal.SIGTERM)
        process.communicate(timeout=30)
    wrong = image.run("check", environment={**given, "ARTHUR_API_KEY": "sandbox-write-key"})
    assert "may write traces and not read them" in wrong


def test_the_health_check_is_the_images_own_command(image: Image, sandbox: ArthurSandbox) -> None:
    words = image.config["Healthcheck"]["Test"]
    assert words[:2] == ["CMD", *image.config["Entrypoint"]]
    with image.running("serve", environment=relays_own(sandbox)):
        wait_for((image.state / "run/arthur-relay/relay.sock").exists)
        image.run(*words[2:])
    with image.running(*words[2:]) as (process, _):
        process.communicate(timeout=30)
        assert process.returncode == 1


@pytest.mark.parametrize("volumes", ["of docker", "of the kubelet"])
def test_the_example_of_another_user_sends_through_the_shared_socket(
    image: Image, example: Image, sandbox: ArthurSandbox, volumes: str
) -> None:
    """As compose and a pod with a sidecar have it: two images, two users, one volume, one group."""
    uid, gid = map(int, image.config["User"].split(":"))
    assert int(example.config["User"].partition(":")[0]) not in (0, uid)
    shutil.rmtree(image.state)
    if volumes == "of the kubelet":  # it gives an emptyDir to the pod's fsGroup, not to a user
        for volume in image.config["Volumes"]:
            folder = image.state / volume.lstrip("/")
            folder.mkdir(parents=True)
            os.chown(folder, 0, gid)
            folder.chmod(0o2777)
    socket = ["/run/arthur-relay"]
    environment = {
        "ARTHUR_ENDPOINT_URL": "unix:///run/arthur-relay/relay.sock",
        "ARTHUR_API_KEY": "relay",
        "ARTHUR_MODEL_ID": sandbox.model_id,
        "EXAMPLE_PAUSE_SECONDS": "0.01",
        "EXAMPLE_QUESTIONS": "4",
    }
    with image.running("serve", environment=relays_own(sandbox)):
        wait_for((image.state / "run/arthur-relay/relay.sock").exists)
        assert "delivered=4" in example.run(environment=environment, groups=[gid], volumes=socket)
        wait_for(lambda: len(sandbox.inferences) == 4)
        # Who is not in the group is not let in.
        lonely = {**environment, "ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS": "0.5"}
        assert "delivered=0" in example.run(environment=lonely, volumes=socket)
    assert len(sandbox.inferences) == 4


def test_the_gateway_of_kubernetes_takes_rows_over_tls_with_a_token(
    image: Image, example: Image, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    """With the settings of the manifest, and with its secrets as the kubelet mounts them."""
    gateway = Rendered("gateway")
    gid = int(gateway.pod["securityContext"]["fsGroup"])
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    contents = {
        "key": {"arthur-api-key": sandbox.api_key.encode()},
        "tls": {"tls.crt": chain, "tls.key": certificate.private_key_pem.bytes()},
        "tokens": {"tokens": b"the-example:a-token-of-the-example-0123456789\n"},
    }
    shown = {}
    for mount in gateway.relay["volumeMounts"]:
        if mount["name"] in contents:
            shown[mount["mountPath"]] = secret(
                tmp_path / mount["name"], contents[mount["name"]], gid
            )
    settings = {
        **gateway.settings,
        "ARTHUR_ENDPOINT_URL": sandbox.url,
        # The network is the test's own, where these ports may be taken.
        f"{DAEMON_PREFIX}LISTEN": "127.0.0.1:0",
        f"{DAEMON_PREFIX}METRICS_LISTEN": "127.0.0.1:0",
    }
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    authority.cert_pem.write_to_path(trusted / "ca.crt")
    shutil.rmtree(image.state, ignore_errors=True)
    with image.running("serve", environment=settings, groups=[gid], shown=shown) as (process, _):
        assert process.stdout is not None
        said = ""
        while "ready: " not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        address = re.search(r"taking rows on (127.0.0.1:\d+) \(https\)", said)
        views = re.search(r"health and metrics are on (127.0.0.1:\d+)", said)
        assert address is not None, said
        assert views is not None, said
        assert httpx.get(f"http://{views[1]}/readyz").status_code == 200
        environment = {
            "ARTHUR_ENDPOINT_URL": f"https://{address[1]}",
            "ARTHUR_API_KEY": "a-token-of-the-example-0123456789",
            "ARTHUR_MODEL_ID": sandbox.model_id,
            "SSL_CERT_FILE": "/etc/trusted/ca.crt",
            "EXAMPLE_PAUSE_SECONDS": "0.01",
            "EXAMPLE_QUESTIONS": "3",
        }
        theirs = {"/etc/trusted": trusted}
        out = example.run(environment=environment, volumes=[], shown=theirs)
        assert "delivered=3" in out
        wait_for(lambda: len(sandbox.inferences) == 3)
        stranger = {**environment, "ARTHUR_API_KEY": "another-token-0123456789"}
        with example.running(environment=stranger, volumes=[], shown=theirs) as (refused, _):
            out, _ = refused.communicate(timeout=60)
        assert refused.returncode != 0, out
    assert len(sandbox.inferences) == 3


def secret(folder: Path, files: dict[str, bytes], gid: int) -> Path:
    """Make a folder as the kubelet mounts a secret with `defaultMode: 0440` for an fsGroup."""
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.write_bytes(content)
        os.chown(path, 0, gid)
        path.chmod(0o440)
    os.chown(folder, 0, gid)
    folder.chmod(0o3777)
    return folder
