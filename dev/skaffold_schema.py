"""`python -m dev.skaffold_schema FOLDER`: validates skaffold.yaml against its version's schema in the folder."""

import json
import sys
from pathlib import Path

import jsonschema_rs
import yaml

SKAFFOLD = Path(__file__).parent.parent / "skaffold.yaml"


def faults(folder: Path) -> list[str]:
    """The violations of the schema, each with its place in the file."""
    config = yaml.safe_load(SKAFFOLD.read_text())
    schema = json.loads((folder / f"{config['apiVersion'].partition('/')[2]}.json").read_text())
    found = jsonschema_rs.validator_for(schema).iter_errors(config)
    return [f"{'.'.join(map(str, error.instance_path))}: {error.message[:200]}" for error in found]


if __name__ == "__main__":
    found = faults(Path(sys.argv[1]))
    sys.exit("\n".join(f"skaffold.yaml: {fault}" for fault in found) or 0)
