"""Turns a short description of a dashboard into Grafana's JSON, with Grafana's own builders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "rowlock"

Unit = Literal["s", "short", "reqps", "ops", "percentunit", "bytes"]


@dataclass(frozen=True, slots=True)
class Panel:
    """`lines` maps legends to expressions. `now` shows the last value large instead of a curve."""

    title: str
    description: str
    unit: Unit
    lines: Mapping[str, str]
    width: int = 8
    now: bool = False
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and the panels below it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`uid` is part of every link to the dashboard, and never changes."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]

    def expressions(self) -> list[str]:
        """The expressions of all panels."""
        return [expression for row in self.rows for panel in row.panels for expression in panel.lines.values()]


def to_json(described: Dashboard) -> str:
    """The JSON that Grafana loads."""
    source = dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source")
    namespace = (
        dashboard.QueryVariable("namespace")
        .label("Namespace")
        .datasource(SOURCE)
        .query("label_values(rowlock_build_info, namespace)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .include_all(include_all=True)
        # A target without the label matches it too: there are no namespaces outside Kubernetes.
        .all_value(".*")
        .current(VariableOption(text="All", value="$__all"))
    )
    links = dashboard.DashboardLink("Rowlock").tags([TAG]).as_dropdown(as_dropdown=True).include_vars(include_vars=True)
    made = (
        dashboard.Dashboard(described.title)
        .uid(described.uid)
        .description(described.description)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(source)
        .with_variable(namespace)
        .link(links.keep_time(keep_time=True))
    )
    ids = count(1)
    for row in described.rows:
        made.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            made.with_panel((_stat(panel) if panel.now else _curves(panel)).id(next(ids)))
    text: str = JSONEncoder(sort_keys=True, indent=2).encode(made.build())
    return text + "\n"


def _stat(panel: Panel) -> stat.Panel:
    made = stat.Panel().title(panel.title).description(panel.description).datasource(SOURCE)
    made.unit(panel.unit).height(4).span(panel.width).targets(_targets(panel))
    made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return made


def _curves(panel: Panel) -> timeseries.Panel:
    made = timeseries.Panel().title(panel.title).description(panel.description).datasource(SOURCE)
    made.unit(panel.unit).height(8).span(panel.width).min(0).fill_opacity(10).targets(_targets(panel))
    made.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    made.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
    )
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    return made


def _targets(panel: Panel) -> list[Builder[Dataquery]]:
    return [
        prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + place)).datasource(SOURCE)
        for place, (legend, expression) in enumerate(panel.lines.items())
    ]
