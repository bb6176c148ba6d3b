"""For each alert: series for which it must fire, and series just within bounds for which it must not.

In promtool's notation `0+6x100` starts at 0 and grows by 6 per sample, a hundred times. Samples are a minute apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

HTTP = "rowlock_http_request_duration_seconds_count"
OPERATION = "rowlock_operation_duration_seconds"
LATENESS = "rowlock_expiry_lateness_seconds"
HOURS, DAYS = 60, 24 * 60
PROGRESS = "rowlock_loop_last_success_timestamp_seconds"
BUILD = "rowlock_build_info"
"""Every process exports it: the tests add it to a case that does not set it."""
Series = dict[str, str]


def _of(metric: str, **labels: str) -> str:
    matched = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{matched}}}"


def _answers(outcome: str, route: str = "/customer/book") -> str:
    return _of(HTTP, route=route, outcome=outcome)


@dataclass(frozen=True, slots=True)
class Case:
    """`labels` are the firing alert's labels besides its severity. The case is evaluated at `minute`."""

    alert: str
    what: str
    series: Series
    fires: bool
    minute: int = 60
    labels: dict[str, str] = field(default_factory=dict)


def _requests(failed: float, minutes: int, outcome: str = "unavailable") -> Series:
    """10,000 requests per minute, of which `failed` fail."""
    return {_answers("ok"): f"0+{10_000 - failed}x{minutes}", _answers(outcome): f"0+{failed}x{minutes}"}


def _unasked(outcome: str) -> Series:
    """10,000 requests per minute for an hour on each route that does not count."""
    return {_answers(outcome, route): f"0+10000x{HOURS}" for route in ("/livez", "/readyz", "other")}


def _good_of_all(histogram: str, bad: float, minutes: int, **labels: str) -> Series:
    """A thousand per minute, of which all except `bad` are within the bound `le`."""
    counted = {name: value for name, value in labels.items() if name != "le"}
    return {
        _of(f"{histogram}_bucket", **labels): f"0+{1_000 - bad}x{minutes}",
        _of(f"{histogram}_count", **counted): f"0+1000x{minutes}",
    }


def _operations(slow: float, minutes: int) -> Series:
    return _good_of_all(OPERATION, slow, minutes, operation="hold", le="0.5")


def _ended(late: float, minutes: int) -> Series:
    return _good_of_all(LATENESS, late, minutes, le="2.0")


FAST, SLOW = "RowlockAvailabilityBurnsFast", "RowlockAvailabilityBurnsSlowly"
AVAILABILITY = [
    Case(FAST, "1.5 % for an hour", _requests(150, HOURS), fires=True, minute=HOURS),
    Case(FAST, "0.7 % for six hours", _requests(70, 6 * HOURS), fires=True, minute=6 * HOURS),
    Case(FAST, "0.5 %", _requests(50, 6 * HOURS), fires=False, minute=6 * HOURS),
    Case(FAST, "409 only", _requests(9_000, HOURS, "conflict"), fires=False, minute=HOURS),
    Case(FAST, "health checks and unknown paths", _requests(0, HOURS) | _unasked("failed"), fires=False),
    Case(FAST, "1.5 % beside many good health checks", _requests(150, HOURS) | _unasked("ok"), fires=True),
    Case(
        FAST,
        "failures that ended",
        {_answers("ok"): "0+9850x20 197000+10000x40", _answers("failed"): "0+150x20 3000+0x40"},
        fires=False,
    ),
    Case(SLOW, "0.35 % for a day", _requests(35, DAYS), fires=True, minute=DAYS),
    Case(SLOW, "0.15 % for three days", _requests(15, 3 * DAYS), fires=True, minute=3 * DAYS),
    Case(SLOW, "0.05 %", _requests(5, 3 * DAYS), fires=False, minute=3 * DAYS),
]


def _of_one_percent(name: str, of_a_thousand: Callable[[float, int], Series]) -> list[Case]:
    """Cases of an alert with a budget of 1 %. The function takes bad events per thousand, and minutes."""
    fast, slow = f"{name}BurnsFast", f"{name}BurnsSlowly"
    return [
        Case(fast, "20 % for an hour", of_a_thousand(200, HOURS), fires=True, minute=HOURS),
        Case(fast, "7 % for six hours", of_a_thousand(70, 6 * HOURS), fires=True, minute=6 * HOURS),
        Case(fast, "5 %", of_a_thousand(50, 6 * HOURS), fires=False, minute=6 * HOURS),
        Case(slow, "4 % for a day", of_a_thousand(40, DAYS), fires=True, minute=DAYS),
        Case(slow, "1.5 % for three days", of_a_thousand(15, 3 * DAYS), fires=True, minute=3 * DAYS),
        Case(slow, "0.5 %", of_a_thousand(5, 3 * DAYS), fires=False, minute=3 * DAYS),
    ]


BURNS = [*AVAILABILITY, *_of_one_percent("RowlockLatency", _operations), *_of_one_percent("RowlockExpiry", _ended)]

OVERDUE = "rowlock_overdue_hold_oldest_seconds"
RELAY, PROJECTOR = (_of("rowlock_log_lag_seconds", reader=reader) for reader in ("relay", "projector"))
PARKED = _of("rowlock_broker_messages", queue="parked")
LOCKED, DEADLOCK = (_of("rowlock_database_errors_total", error=error) for error in ("lock_timeout", "deadlock"))
OLD = "rowlock_write_transaction_oldest_seconds"
OWNERS = _of("rowlock_audit_violations", check="owners")
ROUND = "rowlock_audit_last_round_timestamp_seconds"
INTERVAL = "rowlock_audit_interval_seconds"
# Series of a replica without PostgreSQL.
AWAY, ROUND_AWAY = _of("rowlock_audit_violations", check="owners", pod="away"), _of(ROUND, pod="away")
NAN = " ".join(["NaN"] * 10)
EVENTS, MAPS = (_of("rowlock_audit_unlooked", what=what) for what in ("events", "maps"))
TOOK = "rowlock_audit_round_duration_seconds"
UNKNOWN = dict.fromkeys((EVENTS, MAPS, ROUND, TOOK), " ".join(["NaN"] * 100)) | {INTERVAL: "60x99"}
JOB, OTHER_JOB, OTHER_RELEASE = (
    _of("kube_job_failed", namespace="shop", job_name=name, condition="true")
    for name in ("rowlock-migrate-1-0-0-2", "backup-7", "another-rowlock-migrate-1-0-0-2")
)
WATCHED = ("sweep", "sequencer", "observer")


def _progress(still: str) -> Series:
    """All loops make progress, except `still`."""
    return {_of(PROGRESS, loop=loop): "0x10" if loop == still else "0+60x10" for loop in {*WATCHED, still}}


def _progress_without(never: str) -> Series:
    """All loops make progress, except `never`, which has not finished a step since the pods started."""
    return {_of(PROGRESS, loop=loop): "0+60x10" for loop in WATCHED if loop != never}


def _api(**readiness: str) -> Series:
    """An API's answers to `/readyz`, by outcome."""
    return {_answers("unavailable", "/readyz"): "0x20"} | {
        _answers(outcome, "/readyz"): values for outcome, values in readiness.items()
    }


def _two_apis(of_one: Series, of_other: Series) -> Series:
    return {
        name.replace("{", f'{{instance="{instance}", '): values
        for instance, series in (("a", of_one), ("b", of_other))
        for name, values in series.items()
    }


def _elsewhere(series: Series) -> Series:
    return {name.replace("{", '{namespace="elsewhere", '): values for name, values in series.items()}


BUILD_ELSEWHERE = _of(BUILD, namespace="elsewhere")
READY, NOT_READY = _api(ok="5+12x20"), _api(unavailable="0+12x20")
API = "RowlockApiNotServing"
SERVING = [
    Case(API, "one of two is ready", _two_apis(READY, NOT_READY), fires=False, minute=9),
    Case(API, "no API", {BUILD: "1x10"}, fires=True, minute=4),
    Case(API, "no series", {BUILD: "_x10"}, fires=True, minute=4),
    Case(API, "the last one is gone", {BUILD: "1x10"} | _api(ok="5+12x3 stale", unavailable="0x3 stale"), fires=True,
         minute=6),
    Case(API, "gone for a moment", _api(ok="5+12x3 stale 5+12x9", unavailable="0x3 stale 0x9"), fires=False,
         minute=4),
    Case(API, "none was ever ready", _two_apis(NOT_READY, NOT_READY), fires=True, minute=3),
    Case(API, "readiness fails", _api(failed="0+12x20"), fires=True, minute=3),
    Case(API, "no longer ready", _api(ok="5+12x5 65x9", unavailable="0x5 0+12x9"), fires=True, minute=9),
    Case(API, "none was ready for a minute", _api(ok="5+12x5 65x1 65+12x9", unavailable="0x5 0+12x1 12x9"), fires=False,
         minute=9),
    Case(API, "just started", {_answers("unavailable", "/readyz"): "_ 0 12x9", _answers("ok", "/readyz"):
         "_ _ 4+12x9"}, fires=False, minute=3),
    Case(API, "the only one makes way for a new one", _two_apis(
        _api(ok="5+12x5 stale", unavailable="0x5 stale"), _api(ok="_x6 1+12x9", unavailable="_x4 0+3x1 3x9")),
         fires=False, minute=7),
    Case(API, "no client polls", _api() | _requests(0, HOURS), fires=False, minute=9),
    Case(API, "no answers any more", _api(ok="5+12x9 113x90"), fires=True, minute=13),
    Case(API, "no answers of two any more", _two_apis(_api(ok="5+12x9 113x90"), _api(ok="5+12x6 77x90")), fires=True,
         minute=13),
    Case(API, "no answers of one of two", _two_apis(_api(ok="5+12x9 113x90"), READY), fires=False, minute=19),
    Case(API, "no answers for two minutes", _api(ok="5+12x9 113x2 113+12x9"), fires=False, minute=14),
    Case(API, "no scrapes for three minutes", _api(ok="5+12x9 _x3 161+12x9", unavailable="0x9 _x3 0x9"),
         fires=False, minute=13),
    Case(API, "no client polls for an hour", _api(ok="5+12x9 113x90"), fires=False, minute=71),
    Case(API, "a few manual requests", _api(ok="5x9 6 7 10x20"), fires=False, minute=14),
    Case(API, "one request every five minutes", _api(ok="5x4 6x4 7x4 8x4 9x4"), fires=False, minute=24),
    Case(API, "one release is removed, another one stays", {BUILD: "_x90", BUILD_ELSEWHERE: "1x90"}
         | _elsewhere(_api(ok="5+12x90")) | _api(ok="5+12x9 stale", unavailable="0x9 stale"), fires=False, minute=14),
]  # fmt: skip


def _rounds(maps: str, finished: str = "60+60x200", seconds: int = 60) -> Series:
    """An audit's series: maps that the last round could not check, its end, and the time of a round with the wait
    before it.
    """
    return {MAPS: maps, EVENTS: "0x200", ROUND: finished, INTERVAL: "60x200", TOOK: f"{seconds - 60}x200"}


def _of_pod(name: str, series: Series) -> Series:
    return {
        (key if "{" in key else f"{key}{{}}").replace("{", f'{{pod="{name}", '): values
        for key, values in series.items()
    }


LONG_SECONDS = 3_900
"""65 minutes."""
ONE_LONG, TWO_LONG = "60x64 3960x200", "60x64 3960x64 7860x200"
"""One or two long rounds after a first one."""
INCOMPLETE = "RowlockAuditIncomplete"
LOOKING = [
    Case(INCOMPLETE, "Redis is down for less than an hour, twice", _rounds("0x4 1x59 0 1x60"), fires=False, minute=126),
    Case(INCOMPLETE, "for more than an hour", _rounds("0x4 1x99"), fires=True, minute=65, labels={"what": "maps"}),
    Case(INCOMPLETE, "everything is checked", _rounds("0x99"), fires=False, minute=99),
    Case(INCOMPLETE, "no complete round is known", _rounds("1x99"), fires=True, minute=61),
    Case(INCOMPLETE, "one expirer takes the place of another", _of_pod("old", _rounds("1x30 stale")) |
         _of_pod("new", _rounds("_x30 1x60")), fires=True, minute=66),
    Case(INCOMPLETE, "one of two has no PostgreSQL", _of_pod("a", _rounds("0x4 1x99")) | _of_pod("away", UNKNOWN),
         fires=True, minute=66),
    Case(INCOMPLETE, "no expirer has PostgreSQL", UNKNOWN, fires=False, minute=99),
    Case(INCOMPLETE, "one incomplete round, then a long one", _rounds("0x64 1x200", ONE_LONG, LONG_SECONDS),
         fires=False, minute=129),
    Case(INCOMPLETE, "one incomplete round, then none", _of_pod("a", _rounds("0x64 1x200", ONE_LONG, LONG_SECONDS)),
         fires=False, minute=199),
    Case(INCOMPLETE, "two long rounds", _rounds("0x64 1x200", TWO_LONG, LONG_SECONDS), fires=True, minute=192),
    Case(INCOMPLETE, "one long round after two complete ones", _rounds("0x84 1x200", "60x19 3960x64 7860x200",
         LONG_SECONDS), fires=False, minute=199),
    Case(INCOMPLETE, "one short round, with an hour between", _rounds("0x64 1x200", ONE_LONG) | {
         INTERVAL: "3600x200", TOOK: "300x200"}, fires=False, minute=199),
    Case(INCOMPLETE, "one round of two hours, with a day between", {MAPS: "0x1559 1x1559", ROUND: "60x1559 93660x1559",
         INTERVAL: "86400x3119", TOOK: "7200x3119"}, fires=False, minute=3090),
]  # fmt: skip
SYMPTOMS = [
    Case("RowlockOverdueHold", "overdue for more than 10 s", {OVERDUE: "11+60x5"}, fires=True, minute=2),
    Case("RowlockOverdueHold", "for a moment", {OVERDUE: "0 11 0 0"}, fires=False, minute=2),
    Case("RowlockOverdueHold", "not yet", {OVERDUE: "9x5"}, fires=False, minute=4),
    *(
        Case("RowlockExpirerNotProgressing", f"the {still} stopped", _progress(still), fires=True, minute=4,
             labels={"loop": still})
        for still in WATCHED
    ),
    *(
        Case("RowlockExpirerNotProgressing", f"the {never} has never finished", _progress_without(never), fires=True,
             minute=4)
        for never in WATCHED
    ),
    Case("RowlockExpirerNotProgressing", "the relay stopped", _progress("relay"), fires=False, minute=9),
    Case("RowlockExpirerNotProgressing", "no expirer", {BUILD: "1x10"}, fires=True, minute=4),
    Case("RowlockExpirerNotProgressing", "no series", {BUILD: "_x10"}, fires=True, minute=4),
    Case("RowlockExpirerNotProgressing", "one of two makes progress", _progress("relay") | {
        _of(PROGRESS, loop="sweep", instance="a"): "0x10", _of(PROGRESS, loop="sweep", instance="b"): "0+60x10",
    }, fires=False, minute=9),
    Case("RowlockExpirerNotProgressing", "each loop runs in another pod", {
        _of(PROGRESS, loop=loop, instance=loop): "0+60x10" for loop in WATCHED}, fires=False, minute=9),
    Case("RowlockExpirerNotProgressing", "the loops start after the pods", {
        _of(PROGRESS, loop=loop): "_ 60+60x10" for loop in WATCHED}, fires=False, minute=2),
    Case("RowlockExpirerNotProgressing", "no expirer for a moment", {
        _of(PROGRESS, loop=loop): "0+60x3 stale 300+60x9" for loop in WATCHED}, fires=False, minute=4),
    Case("RowlockRelayLag", "more than a minute", {RELAY: "61+60x10"}, fires=True, minute=3),
    Case("RowlockRelayLag", "a minute", {RELAY: "60x10"}, fires=False, minute=9),
    Case("RowlockCacheBehind", "the projector lags", {PROJECTOR: "31x10"}, fires=True, minute=3),
    Case("RowlockCacheBehind", "a pod without Redis", {
        _of("rowlock_cache_up", instance="a"): "0x10", _of("rowlock_cache_up", instance="b"): "1x10"}, fires=True,
        minute=3),
    Case("RowlockCacheBehind", "neither", {PROJECTOR: "30x10", "rowlock_cache_up": "1x10"}, fires=False, minute=9),
    Case("RowlockParkedMessages", "one", {PARKED: "1x10"}, fires=True, minute=2),
    Case("RowlockParkedMessages", "none", {PARKED: "0x10"}, fires=False, minute=9),
    Case("RowlockLockWaits", "one in eight seconds", {LOCKED: "0+8x20"}, fires=True, minute=15),
    Case("RowlockLockWaits", "one in twelve seconds", {LOCKED: "0+5x20"}, fires=False, minute=15),
    Case("RowlockOldWriteTransaction", "more than a minute", {OLD: "61+60x5"}, fires=True, minute=2),
    Case("RowlockOldWriteTransaction", "a minute", {OLD: "60x5"}, fires=False, minute=4),
    Case("RowlockDeadlocks", "one", {DEADLOCK: "0x9 1x20"}, fires=True, minute=20),
    Case("RowlockDeadlocks", "none for a long time", {DEADLOCK: "1x200"}, fires=False, minute=200),
    Case("RowlockAuditFailed", "one", {OWNERS: "0 0 1x5"}, fires=True, minute=3, labels={"check": "owners"}),
    Case("RowlockAuditFailed", "none", {OWNERS: "0x9"}, fires=False, minute=9),
    Case("RowlockAuditFailed", "repaired, known to one of two", {OWNERS: "1 0x9", AWAY: NAN}, fires=False, minute=9),
    Case("RowlockAuditFailed", "one, known to one of two", {OWNERS: "1x9", AWAY: NAN}, fires=True, minute=9,
         labels={"check": "owners"}),
    Case("RowlockAuditStale", "no round for an hour", {ROUND: "60x90", INTERVAL: "60x90"}, fires=True, minute=69),
    Case("RowlockAuditStale", "one in three hours", {ROUND: "60x190", INTERVAL: "10800x190"}, fires=False, minute=190),
    Case("RowlockAuditStale", "no round ever", {ROUND: "0x90"}, fires=True, minute=10),
    Case("RowlockAuditStale", "no series", {BUILD: "_x90"}, fires=True, minute=10),
    Case("RowlockAuditStale", "no expirer knows", {ROUND: NAN, INTERVAL: "60x9"}, fires=True, minute=8),
    Case("RowlockAuditStale", "one of two knows", {ROUND: "60+60x9", ROUND_AWAY: NAN, INTERVAL: "60x9"}, fires=False,
         minute=9),
    Case("RowlockAuditStale", "each minute", {ROUND: "60+60x90", INTERVAL: "60x90"}, fires=False, minute=80),
    Case("RowlockMigrationFailed", "the Job failed", {JOB: "1x5"}, fires=True, minute=2,
         labels={"namespace": "shop", "job_name": "rowlock-migrate-1-0-0-2"}),
    Case("RowlockMigrationFailed", "other Jobs", {JOB: "0x5", OTHER_JOB: "1x5", OTHER_RELEASE: "1x5"}, fires=False,
         minute=2),
]  # fmt: skip
CASES = [*BURNS, *SERVING, *LOOKING, *SYMPTOMS]
