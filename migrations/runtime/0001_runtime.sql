-- What the runtime keeps beside every service's own tables, in that service's database.
-- Only bigint and text, never null; times are microseconds since 1970-01-01 UTC.

-- The turn: whoever writes locks this one row first and holds it to the commit.
-- It is locked, never changed, so that no dead versions of it pile up under a long snapshot.
create table turn (
    owner text not null primary key
);
insert into turn (owner) values ('writer');

-- The outbox: everything this service says happened, in the order in which it did. Append-only.
-- Positions have no gaps: each unit of work deals them after the highest, under the turn.
create table outbox (
    position        bigint not null primary key,
    id              text   not null unique,
    type            text   not null,
    schema_version  bigint not null,
    stream          text   not null,
    stream_version  bigint not null,
    occurred_at     bigint not null,
    correlation_id  text   not null,
    causation_id    text   not null,
    actor           text   not null,
    traceparent     text   not null,
    data            text   not null, -- the exact bytes; parsed by readers only
    unique (stream, stream_version)
);

-- How far this service has read the event store. Inserted and pruned, not updated: a row updated
-- hundreds of times a second rots under a long snapshot. The highest sequence counts.
create table checkpoints (
    sequence bigint not null primary key,
    log_id   text   not null, -- the event store it was made in; empty before the first event
    position bigint not null, -- everything up to here is handled
    event_id text   not null, -- the event found there; empty at position 0
    chain    text   not null, -- the event store's chain there: tells everything up to here
    sources  text   not null, -- JSON: of each source the highest outbox position handled
    saved_at bigint not null
);

-- Answers under their idempotency keys, written in the transaction of what they answer.
create table answers (
    idempotency_key text   not null primary key,
    fingerprint     text   not null, -- digest of method, path and body
    answer          text   not null, -- JSON: status, location, version, body
    stored_at       bigint not null
);
create index answers_stored_at on answers (stored_at);

-- What this service asked to be reminded of. Set and cleared by its own events alone.
create table timers (
    timer_key      text   not null primary key,
    due_at         bigint not null,
    payload        text   not null, -- JSON
    event_id       text   not null, -- the event that set it, which its own events name as cause
    correlation_id text   not null,
    traceparent    text   not null
);
create index timers_due_at on timers (due_at);

-- Messages that could not be handled, and those that wait behind them in the same lane.
create table dead_letters (
    id             text   not null primary key, -- of the event; event id and key of a timer
    lane           text   not null, -- correlation id: what keeps its order
    status         text   not null
        check (status in ('parked', 'waiting', 'retrying', 'handled', 'discarded')),
    kind           text   not null, -- the event's type, or 'timer'
    position       bigint not null, -- in the event store; 0 for a timer
    cause          text   not null,
    attempts       bigint not null,
    parked_at      bigint not null,
    changed_at     bigint not null,
    message        text   not null  -- JSON: the message as it was heard
);
create index dead_letters_lane on dead_letters (lane, position)
    where status in ('parked', 'waiting', 'retrying');

-- Messages being tried one by one, each attempt committed before it runs, so that a crash counts.
create table attempts (
    message_id text   not null primary key,
    number     bigint not null
);

-- Runs of this service that have not ended cleanly, or not yet.
create table runs (
    id         text   not null primary key,
    started_at bigint not null
);
