"""The contents of the image: what it must have, and what it must not."""

import json
import secrets
import subprocess
from pathlib import Path

import pytest

from tests.image.docker import docker, run

MEGABYTES_ADDED_MAX = 160
"""The product and its packages, on top of Python's image."""
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""The authorities that this machine trusts, which the package index may need."""
COMPILERS = ("cc", "gcc", "g++", "clang", "ld", "make", "rustc", "cargo")


def test_it_has_a_numeric_user_and_labels(image: str) -> None:
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert run(image, "id", "--user").strip() == "10001"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    # Each command has another health check.
    assert config.get("Healthcheck") is None


def test_its_user_can_change_no_file_of_the_product(image: str) -> None:
    writable = docker("run", "--rm", image, "find", "/app", "/opt/rowlock", "-writable", "-not", "-type", "l")
    assert writable == ""


def test_it_has_neither_a_compiler_nor_an_installer(image: str) -> None:
    looked_for = "; ".join(f"command -v {name} || :" for name in COMPILERS)
    assert run(image, "sh", "-c", looked_for) == ""
    assert run(image, "sh", "-c", "ls /opt/rowlock/bin | grep -E '^(pip[0-9.]*|uv)$' || :") == ""


def test_it_has_the_product_without_the_tests(image: str) -> None:
    assert set(run(image, "ls", "-A", "/app").split()) == {"LICENSE", "expirer", "service"}


def test_every_module_is_compiled_already(image: str) -> None:
    script = (
        "import importlib.util as u, pathlib as p, site;"
        "print([str(f) for r in ('/app', *site.getsitepackages()) for f in p.Path(r).rglob('*.py')"
        " if not p.Path(u.cache_from_source(str(f))).exists()])"
    )
    assert run(image, "python", "-c", script).strip() == "[]"


@pytest.mark.parametrize("command", ["service.migrate", "service.make_manager", "service.smoke"])
def test_every_command_is_there(image: str, command: str) -> None:
    assert f"usage: python -m {command}" in run(image, "python", "-m", command, "--help")


def test_it_stays_small(image: str) -> None:
    sizes = {name: json.loads(docker("image", "inspect", name))[0]["Size"] for name in (image, "python:3.13-slim")}
    assert sizes[image] - sizes["python:3.13-slim"] < MEGABYTES_ADDED_MAX * 1_000_000


BUILD = ("build", "--progress", "plain", "--no-cache-filter", "packages")


def test_the_build_uses_a_given_index_and_authority(image: str, tmp_path: Path) -> None:
    authority, index = tmp_path / "ca.pem", tmp_path / "pip.conf"
    build = (*BUILD, "--tag", f"{image}-refused", "--secret", f"id=pip,src={index}")
    index.write_text("[global]\nindex-url = https://no-such-index.invalid/simple\nretries = 0\n")
    assert "no-such-index.invalid" in docker(*build, ".", expected=1)
    index.write_text("[global]\nno-cache-dir = true\nretries = 0\n")
    authority.write_text("no certificate\n")
    assert "CERTIFICATE" in docker(*build, "--secret", f"id=ca,src={authority}", ".", expected=1)


def test_secrets_of_the_build_leave_no_trace(image: str, tmp_path: Path) -> None:
    marker = f"# {secrets.token_hex(16)}\n"
    authority, index, built = tmp_path / "ca.pem", tmp_path / "pip.conf", f"{image}-secret"
    authority.write_text(AUTHORITIES.read_text() + marker)
    index.write_text(f"[global]\n{marker}")
    docker(*BUILD, "--tag", built, "--secret", f"id=pip,src={index}", "--secret", f"id=ca,src={authority}", ".")
    try:
        assert marker not in docker("history", "--no-trunc", built) + docker("image", "inspect", built)
        assert marker.encode() not in files_of(built)
    finally:
        docker("image", "rm", built)


def files_of(image: str) -> bytes:
    """The uncompressed archive of all files of the image."""
    container = docker("create", image).strip()
    try:
        exported = subprocess.run(["docker", "export", container], check=True, capture_output=True, timeout=120)  # noqa: S607 - where the machine has it
    finally:
        docker("rm", container)
    assert b"app/service/smoke.py" in exported.stdout
    return exported.stdout
