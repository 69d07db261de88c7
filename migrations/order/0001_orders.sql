-- The tables of the order service. Each is the fold of the service's outbox: `waybill verify`
-- compares them, `waybill rebuild order` makes them anew. Nothing but the service writes them.

-- Every order as it stands.
create table orders (
    id text not null primary key,           -- UUIDv7, so that the largest id is the newest order
    number text not null,                   -- short, for people
    customer_id text not null,
    status text not null check (status in (
        'placed', 'confirmed', 'cancelling', 'dispatched', 'delivered',
        'completed', 'rejected', 'cancelled'
    )),
    -- Which of its two answers it has: the stock, the payment.
    secured text not null check (secured in ('nothing', 'stock', 'payment', 'both')),
    lines text not null,                    -- JSON: what was ordered, at the prices of that moment
    total bigint not null check (total between 0 and 1000000000000),
    currency text not null,                 -- ISO 4217, of `total`, which is in its minor units
    ship_to text not null,                  -- JSON: the address
    placed_at bigint not null,              -- microseconds since 1970-01-01 UTC, as all times
    updated_at bigint not null,
    expires_at bigint not null,             -- when it is cancelled if it is still only placed
    shipment_id text not null,              -- empty before the parcel left, as the two below
    carrier text not null,
    tracking_number text not null,
    cancel_comment text not null,           -- what the customer said when asking to cancel
    reasons text not null,                  -- JSON: why it did not come to a good end
    version bigint not null check (version >= 1),
    -- An order has both answers from the moment it is confirmed, and a parcel once that left.
    check (status in ('placed', 'rejected', 'cancelled') or secured = 'both'),
    check (status not in ('dispatched', 'delivered', 'completed') or shipment_id <> '')
);

create unique index orders_number on orders (number);

-- The lists of the API, newest first; all of them by the primary key.
create index orders_by_customer on orders (customer_id, id);
create index orders_by_status on orders (status, id);
create index orders_by_customer_and_status on orders (customer_id, status, id);

-- The products as this service knows them, so that placing an order asks nobody else.
create table catalogue (
    sku text collate "binary" not null primary key,
    name text not null,
    price bigint not null check (price between 0 and 1000000000000),
    currency text not null,                 -- ISO 4217, of `price`, which is in its minor units
    updated_at bigint not null,
    version bigint not null check (version >= 1)
);
