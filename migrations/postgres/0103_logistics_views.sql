-- For people who query Postgres by hand: the logistics service's tables with native types.
create view shipments_readable as
select id::uuid as id,
       order_id::uuid as order_id,
       status,
       lines::jsonb as lines,
       ship_to::jsonb as ship_to,
       nullif(carrier, '') as carrier,
       nullif(tracking_number, '') as tracking_number,
       nullif(location, '') as location,
       nullif(note, '') as note,
       timestamptz 'epoch' + created_at * interval '1 microsecond' as created_at,
       timestamptz 'epoch' + updated_at * interval '1 microsecond' as updated_at,
       version
from shipments;
