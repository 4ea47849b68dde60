"""``compose.yaml`` and the files it mounts keep their promises."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from abaco_api import VERSION
from abaco_api.api_settings import ApiSettings as ApiConfig
from abaco_proto import permissions

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
CLUSTER = ROOT / "compose.cluster.yaml"
NATS = ROOT / "compose" / "nats.conf"
NGINX = ROOT / "compose" / "nginx.conf"
SERVICES = ("api", "scheduler", "worker", "projector")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return parsed


def test_the_log_is_on_the_disk_when_it_says_so() -> None:
    assert "sync_interval: always" in NATS.read_text()


def test_nginx_speaks_as_the_api_does() -> None:
    text = NGINX.read_text()
    assert f'"version":"{VERSION}"' in text
    default = ApiConfig().max_body_bytes
    assert f"${{ABACO_MAX_BODY_BYTES:-{default}}}" in NGINX.with_name("nginx.sh").read_text()


def test_what_is_published_is_published_on_the_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(re.match(r"(\$\{ABACO_API_HOST:-127\.0\.0\.1\}|127\.0\.0\.1):", p) for p in ports)


def test_every_service_is_confined_checked_and_restarted(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"]


def test_no_secret_stands_in_the_file(compose: dict[str, Any]) -> None:
    assert not re.search(r"(?i)password\w*: +[^\s{\"$/]", COMPOSE.read_text())
    for secret in compose["secrets"].values():
        assert secret["file"].startswith("${SECRETS_DIR:-./compose/secrets}/")


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_what_its_service_needs_and_no_more(service: str) -> None:
    recipe = (ROOT / "services" / service / "Dockerfile").read_text()
    assert f"--require-hashes -r requirements/{service}.txt" in recipe
    others = [other for other in SERVICES if other != service]
    assert not any(f"services/{other}" in recipe or f"{other}.txt" in recipe for other in others)


def test_the_images_have_the_versions_of_a_checkout() -> None:
    run = pins(ROOT / "requirements" / "run.txt")
    for name in (*SERVICES, "build"):
        assert pins(ROOT / "requirements" / f"{name}.txt") <= run
    assert pins(ROOT / "requirements" / "otel.txt") <= pins(ROOT / "requirements" / "dev.txt")


def pins(path: Path) -> set[str]:
    return set(re.findall(r"^[a-z0-9._-]+==\S+", path.read_text(), flags=re.MULTILINE))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "secrets"
    make_secrets(folder)
    return folder


def make_secrets(folder: Path) -> None:
    subprocess.run([ROOT / "compose" / "make-secrets", folder], check=True, timeout=30)


def test_secrets_are_made_once(made: Path) -> None:
    before = {path.name: path.read_text() for path in made.iterdir()}
    make_secrets(made)
    assert {path.name: path.read_text() for path in made.iterdir()} == before


def test_only_the_owner_finds_the_secrets(made: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o644}


def test_every_secret_is_made(made: Path, compose: dict[str, Any]) -> None:
    of_cluster = yaml.safe_load(CLUSTER.read_text())["secrets"]
    every = {*compose["secrets"], *of_cluster, "nats_reader_url"}
    assert {path.name for path in made.iterdir()} == every


def test_nats_takes_its_configuration(made: Path) -> None:
    conf = made.parents[1] / "etc" / "nats" / "nats.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(NATS.read_text())
    of_cluster = conf.with_name("cluster.conf")
    of_cluster.write_text(NATS.with_name("cluster.conf").read_text())
    program = Path(sys.executable).with_name("nats-server")
    subprocess.run(
        [program, "-t", "-c", of_cluster], env={"SERVER_NAME": "nats-1"}, timeout=30, check=True
    )
    argv = [str(Path(sys.executable).with_name("nats-server")), "-t", "-c", str(conf)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    (made / "nats_passwords").write_text("")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert "API_PASSWORD" in done.stderr


def test_every_user_has_a_password(made: Path) -> None:
    text = (made / "nats_passwords").read_text()
    assert re.findall(r"^([A-Z]+)_PASSWORD", text, flags=re.MULTILINE) == [
        user.upper() for user in permissions.users()
    ]


def test_the_cluster_confines_what_it_adds(compose: dict[str, Any]) -> None:
    cluster = yaml.safe_load(CLUSTER.read_text())
    for name in set(cluster["services"]) - set(compose["services"]):
        service = cluster["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"]
        assert "ports" not in service


def test_every_service_of_the_cluster_knows_all_servers_and_keeps_three_copies() -> None:
    services = yaml.safe_load(CLUSTER.read_text())["services"]
    ours = {name: service for name, service in services.items() if not name.startswith("nats")}
    assert {*ours} == {"api-1", "api-2", "scheduler", "projector", "worker", "worker-2"}
    for service in ours.values():
        assert service["environment"]["ABACO_NATS_REPLICAS"] == "3"
        assert service["environment"]["ABACO_NATS_URL_FILE"].endswith("_urls")
