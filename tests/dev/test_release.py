"""The steps of a release: one version everywhere, its changes, and the published chart."""

from pathlib import Path

import pytest

from dev import release
from service import VERSION
from tests.chart.rendering import of_kind, pod_specs, rendered

CHANGELOG = "# Changelog\n\n## Unreleased\n- next\n\n## [0.2.0] - 2027-01-02\n### Added\n- seats\n\n## 0.1.0\n- first\n"


def test_package_chart_and_image_have_one_version() -> None:
    assert release.version() == VERSION


def test_another_version_in_a_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chart").mkdir()
    for name in release.PLACES:
        (tmp_path / name).write_text((release.ROOT / name).read_text().replace(VERSION, "9.9.9"))
    monkeypatch.setattr(release, "ROOT", tmp_path)
    with pytest.raises(release.ReleaseError, match=r"pyproject\.toml has 9\.9\.9"):
        release.version()
    release.write()
    assert release.version() == VERSION
    assert 'requires-python = ">=3.11"' in (tmp_path / "pyproject.toml").read_text()


def test_the_notes_are_the_section_of_the_version() -> None:
    assert release.notes(CHANGELOG, "0.2.0") == "### Added\n- seats\n"
    assert release.notes(CHANGELOG, "0.1.0") == "- first\n"
    for missing in ("0.3.0", "0.1", "0.2"):
        with pytest.raises(release.ReleaseError, match="no section"):
            release.notes(CHANGELOG, missing)


def test_the_published_chart_installs_the_published_image(tmp_path: Path) -> None:
    chart = tmp_path / "published"
    release.chart(chart, "https://code.example/rowlock", "registry.example/shop/rowlock")
    wanted = {"monitoring": {"force": True, "prometheusRule": {"enabled": True}}}
    objects = rendered(wanted, chart=chart)
    image = pod_specs(objects)["Deployment/rowlock-api"]["containers"][0]["image"]
    assert image == f"registry.example/shop/rowlock:{VERSION}"
    (rule, *_) = of_kind(objects, "PrometheusRule")["rowlock-alerts"]["spec"]["groups"][0]["rules"]
    assert rule["annotations"]["runbook_url"].startswith(f"https://code.example/rowlock/blob/v{VERSION}/")
