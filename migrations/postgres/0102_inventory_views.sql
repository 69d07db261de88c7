-- For people who query Postgres by hand: the inventory service's tables with native types.
create view products_readable as
select sku,
       name,
       price,
       currency,
       on_hand,
       reserved,
       on_hand - reserved as available,
       timestamptz 'epoch' + created_at * interval '1 microsecond' as created_at,
       timestamptz 'epoch' + updated_at * interval '1 microsecond' as updated_at,
       version
from products;

create view reservations_readable as
select order_id::uuid as order_id,
       status,
       lines::jsonb as lines,
       timestamptz 'epoch' + created_at * interval '1 microsecond' as created_at,
       timestamptz 'epoch' + updated_at * interval '1 microsecond' as updated_at,
       version
from reservations;
