-- The event store: what all services said happened, in one order that all read.
-- Only bigint and text, never null; times are microseconds since 1970-01-01 UTC.

-- The turn: whoever appends locks this one row first and holds it to the commit.
create table turn (
    owner text not null primary key
);
insert into turn (owner) values ('writer');

-- Which log this is. One row, written when it is first opened; a checkpoint names it.
create table log (
    id         text   not null primary key,
    created_at bigint not null
);

-- Positions have no gaps and become visible in order: appends take turns.
create table event (
    position        bigint not null primary key,
    recorded_at     bigint not null, -- never decreases with the position
    source          text   not null, -- the service that wrote it
    source_position bigint not null, -- its place in that service's outbox
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
    chain           text   not null, -- digest of the chain before it and its id: where two chains
                                     -- are equal, so is everything up to there
    unique (source, source_position)
);
create index event_correlation on event (correlation_id, position);
create index event_stream on event (stream, position);
create index event_type on event (type, position);
create index event_recorded_at on event (recorded_at, position);
