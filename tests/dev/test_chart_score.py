"""The exceptions from kube-score's findings."""

import json
from pathlib import Path
from typing import Any

from dev.chart_score import EXCEPTIONS, faults


def _finding(check: str, kind: str, **more: Any) -> dict[str, Any]:
    comments = [{"path": "api", "summary": "is wrong"}]
    graded = {"check": {"id": check}, "grade": 1, "skipped": False, "comments": comments} | more
    return {"type_meta": {"kind": kind}, "object_meta": {"name": "rowlock-api"}, "checks": [graded]}


def _faults(tmp_path: Path, *found: dict[str, Any]) -> list[str]:
    excepted = [_finding(check, kinds[0]) for check, kinds in EXCEPTIONS.items()]
    path = tmp_path / "findings.json"
    path.write_text(json.dumps([*excepted, *found]))
    return faults(path)


def test_a_finding_fails_unless_its_kind_is_excepted(tmp_path: Path) -> None:
    assert _faults(tmp_path) == []
    met = [_finding("new", "Pod", grade=10), _finding("new", "Pod", skipped=True)]
    assert _faults(tmp_path, *met, _finding("new", "Pod")) == ["new: Pod rowlock-api: api is wrong"]
    assert _faults(tmp_path, _finding("pod-probes", "Deployment"))


def test_an_exception_without_a_finding_fails(tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    path.write_text("[]")
    assert len(faults(path)) == len(EXCEPTIONS)
