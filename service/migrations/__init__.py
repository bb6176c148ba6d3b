"""The schema: each step is one file `NNNN.sql`, run once and in order. Every package may import it."""

from pathlib import Path

FOLDER = Path(__file__).parent

NEWEST = max(path.stem for path in FOLDER.glob("[0-9][0-9][0-9][0-9].sql"))
"""The schema that this code needs. A newer one is fine: a step removes nothing that the previous release needs."""
