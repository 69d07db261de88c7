-- The table of the logistics service. It is the fold of the service's outbox: `waybill verify`
-- compares them, `waybill rebuild logistics` makes it anew. Nothing but the service writes it.

-- Every parcel as it stands. The order is the key: an order has one parcel, and what is heard names
-- the order. One that was cancelled before its order was known here is a tombstone, without
-- contents and address, so that it is never packed.
create table shipments (
    order_id text not null primary key,
    id text not null,                       -- UUIDv7, so that the largest id is the newest parcel
    status text not null check (status in (
        'created', 'dispatched', 'in_transit', 'delivered', 'failed', 'cancelled'
    )),
    lines text not null,                    -- JSON: what is in it; an empty list in a tombstone
    ship_to text not null,                  -- JSON: the address; `null` in a tombstone
    carrier text not null,                  -- empty before it left, as the one below
    tracking_number text not null,
    location text not null,                 -- where it was last seen; empty if nobody said
    note text not null,                     -- the carrier's last words; why, if it failed
    created_at bigint not null,             -- microseconds since 1970-01-01 UTC, as all times
    updated_at bigint not null,
    version bigint not null check (version >= 1),
    -- What left has a carrier, and what was cancelled never left.
    check ((carrier = '') = (status in ('created', 'cancelled'))),
    check ((tracking_number = '') = (status in ('created', 'cancelled'))),
    -- Only a tombstone goes nowhere.
    check (ship_to <> 'null' or status = 'cancelled'),
    check (status <> 'failed' or note <> '')
);

-- Finds a parcel by its own id, and lists all of them, newest first; those of an order are found
-- by the primary key.
create unique index shipments_by_id on shipments (id);
