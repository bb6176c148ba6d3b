"""Damages a good history in one place, as a defect of the product would. The checker must find each damage.

A mutator changes the history and returns the name of the rule that must find it. It raises Inapplicable if the history
has no place for the damage.
"""

import random
from collections.abc import Callable, Sequence

from load.campaign.history import History
from load.campaign.mutators import answers, ledger, refusals
from load.campaign.mutators.picking import Inapplicable

__all__ = ["MUTATORS", "Inapplicable", "Mutator"]

Mutator = Callable[[History, random.Random], str]

MUTATORS: Sequence[Mutator] = (
    ledger.lost_hold,
    ledger.lost_payment,
    ledger.lost_release,
    ledger.second_owner,
    ledger.late_payment,
    ledger.early_expiry,
    ledger.late_expiry,
    ledger.forgotten_hold,
    answers.swapped_order,
    ledger.missing_version,
    ledger.doubled_event,
    ledger.half_a_hold,
    answers.stale_map,
    answers.impossible_letter,
    answers.wrong_counts,
    answers.other_bytes,
    answers.other_content,
    answers.other_seat,
    refusals.unexplained_taken,
    refusals.unexplained_limit,
    refusals.unexplained_expiry,
    refusals.unexplained_reuse,
    answers.unasked_hold,
    answers.unasked_payment,
    ledger.unpaid_seat,
    ledger.doubled_payment,
    ledger.seat_without_owner,
    ledger.over_limit,
    ledger.clock_before_lock,
    ledger.wrong_deadline,
    ledger.unpublished,
    ledger.unnumbered,
    ledger.missing_number,
    ledger.swapped_numbers,
    ledger.not_quiet,
    answers.foreign_payment,
    ledger.deadlocked,
    answers.defect,
    answers.unresolved,
    answers.unanswered,
    answers.unread_map,
    answers.unread_list,
    answers.lost_session,
    refusals.refused_repetition,
    refusals.refused_after_deadline,
    refusals.refused_read,
    refusals.refused_role,
    refusals.forgotten_key,
    refusals.forgotten_commit,
)
