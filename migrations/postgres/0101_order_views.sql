-- For people who query Postgres by hand: the order service's tables with native types.
create view orders_readable as
select id::uuid as id,
       number,
       customer_id::uuid as customer_id,
       status,
       secured,
       lines::jsonb as lines,
       total,
       currency,
       ship_to::jsonb as ship_to,
       timestamptz 'epoch' + placed_at * interval '1 microsecond' as placed_at,
       timestamptz 'epoch' + updated_at * interval '1 microsecond' as updated_at,
       timestamptz 'epoch' + expires_at * interval '1 microsecond' as expires_at,
       nullif(shipment_id, '')::uuid as shipment_id,
       nullif(carrier, '') as carrier,
       nullif(tracking_number, '') as tracking_number,
       nullif(cancel_comment, '') as cancel_comment,
       reasons::jsonb as reasons,
       version
from orders;

create view catalogue_readable as
select sku,
       name,
       price,
       currency,
       timestamptz 'epoch' + updated_at * interval '1 microsecond' as updated_at,
       version
from catalogue;
