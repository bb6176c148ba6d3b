-- The trace (W3C traceparent) that made a hold or an event, where it is recorded; later work continues it.

alter table reservations add column traceparent text;
alter table events add column traceparent text;
