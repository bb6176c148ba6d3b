"""What the image is made of, and what stays out of it."""

import json
import secrets
import subprocess
from pathlib import Path

import pytest

from tests.image.docker import docker, run

MEGABYTES_ADDED_MAX = 160
"""By the product and its packages to Python's image."""
COMPILERS = ("cc", "gcc", "g++", "clang", "ld", "make", "rustc", "cargo")


def test_it_is_nobody_by_number_and_says_what_it_is(image: str) -> None:
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert run(image, "id", "--user").strip() == "10001"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    # What is healthy differs from command to command.
    assert config.get("Healthcheck") is None


def test_nobody_can_change_what_it_runs(image: str) -> None:
    writable = docker("run", "--rm", image, "find", "/app", "/opt/rowlock", "-writable", "-not", "-type", "l")
    assert writable == ""


def test_there_is_neither_a_compiler_nor_an_installer_in_its_packages(image: str) -> None:
    looked_for = "; ".join(f"command -v {name} || :" for name in COMPILERS)
    assert run(image, "sh", "-c", looked_for) == ""
    assert run(image, "sh", "-c", "ls /opt/rowlock/bin | grep -E '^(pip[0-9.]*|uv)$' || :") == ""


def test_it_has_the_product_and_nothing_of_the_tests(image: str) -> None:
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


def test_an_authority_and_an_index_are_used_and_leave_no_trace(image: str, tmp_path: Path) -> None:
    marker = f"marker-{secrets.token_hex(16)}"
    authority, index = tmp_path / "ca.pem", tmp_path / "pip.conf"
    authority.write_text(f"# {marker}\n")
    index.write_text(f"[global]\nindex-url = https://{marker}.invalid/simple\n")
    # What pip has kept from elsewhere is no use: it asks this index, which is not there.
    build = ("build", "--progress", "plain", "--no-cache-filter", "packages", "--tag", f"{image}-secret")
    said = docker(*build, "--secret", f"id=pip,src={index}", ".", expected=1)
    assert f"{marker}.invalid" in said or marker in said
    index.write_text(f"[global]\n# {marker}\n")
    authority.write_bytes(system_authorities() + f"\n# {marker}\n".encode())
    docker(*build, "--secret", f"id=pip,src={index}", "--secret", f"id=ca,src={authority}", ".")
    try:
        assert marker not in docker("history", "--no-trunc", f"{image}-secret")
        assert marker not in docker("image", "inspect", f"{image}-secret")
        assert marker.encode() not in files_of(f"{image}-secret")
    finally:
        docker("image", "rm", f"{image}-secret")


def system_authorities() -> bytes:
    """The bundle that this machine trusts, with which the registry can be reached from here."""
    return Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()


def files_of(image: str) -> bytes:
    """Every layer of the image, as one archive."""
    saved = subprocess.run(["docker", "save", image], check=True, capture_output=True, timeout=120)  # noqa: S607
    return saved.stdout
