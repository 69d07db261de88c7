-- For people who query Postgres by hand: the event store with native types.
create view events_readable as
select position,
       timestamptz 'epoch' + recorded_at * interval '1 microsecond' as recorded_at,
       source,
       source_position,
       id::uuid as id,
       type,
       schema_version,
       stream,
       stream_version,
       timestamptz 'epoch' + occurred_at * interval '1 microsecond' as occurred_at,
       correlation_id,
       causation_id,
       actor,
       nullif(traceparent, '') as traceparent,
       data::jsonb as data
from event;
