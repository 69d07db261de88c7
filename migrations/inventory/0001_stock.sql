-- The tables of the inventory service. Each is the fold of the service's outbox: `waybill verify`
-- compares them, `waybill rebuild inventory` makes them anew. Nothing but the service writes them.

-- Every product with its stock. The list of the API is in the order of the primary key.
create table products (
    sku text collate "binary" not null primary key,
    name text not null,
    price bigint not null check (price between 0 and 1000000000000),
    currency text not null,                 -- ISO 4217, of `price`, which is in its minor units
    on_hand bigint not null,                -- how many are in the house
    reserved bigint not null,               -- how many of those are set aside for orders
    created_at bigint not null,             -- microseconds since 1970-01-01 UTC, as all times
    updated_at bigint not null,
    version bigint not null check (version >= 1),
    -- Nothing is promised twice, nor anything that is not there.
    check (reserved >= 0 and reserved <= on_hand)
);

-- What each order holds, or held, or could not have.
create table reservations (
    order_id text not null primary key,
    status text not null check (status in (
        'reserved', 'rejected', 'shipped', 'released', 'returned'
    )),
    lines text not null,                    -- JSON: what was set aside; empty where nothing ever was
    created_at bigint not null,
    updated_at bigint not null,
    version bigint not null check (version >= 1),
    -- All lines or none.
    check (status <> 'rejected' or lines = '[]')
);
