"""The table of values: what its lines come from. That it is up to date, `make check` says."""

from dev.chart_values import values_table

VALUES = """\
# Said of the file, and of nothing in it.

# -- How many
replicas: 2
# Said to who reads the file.
image:
  # -- Where it
  # comes from
  name: rowlock
  tag: ""
# -- As a whole
limits:
  memory: 1Gi
# -- With a part that needs a word
scaling:
  enabled: false
  # -- In percent
  target: 70
"""


def test_a_line_tells_path_default_and_comment() -> None:
    assert values_table(VALUES).splitlines()[2:] == [
        "| `replicas` | `2` | How many |",
        '| `image.name` | `"rowlock"` | Where it comes from |',
        '| `image.tag` | `""` |  |',
        '| `limits` | `{"memory": "1Gi"}` | As a whole |',
        "| `scaling` |  | With a part that needs a word |",
        "| `scaling.enabled` | `false` |  |",
        "| `scaling.target` | `70` | In percent |",
    ]
