-- The tables of the user service. Each is the fold of the service's outbox: `waybill verify`
-- compares them, `waybill rebuild user` makes them anew. Nothing but the service writes them.

-- Every user with a wallet of one currency. The list of the API is in the order of the primary key.
create table users (
    id text not null primary key,           -- UUIDv7, so that the largest id is the newest user
    name text not null,
    email text not null,
    currency text not null check (length(currency) = 3), -- ISO 4217
    -- The wallet, in minor units: what can be spent, and what is set aside for orders.
    available bigint not null check (available >= 0),
    held bigint not null check (held >= 0),
    created_at bigint not null,             -- microseconds since 1970-01-01 UTC, as all times
    updated_at bigint not null,
    version bigint not null check (version >= 1)
);

-- What each order holds, spent or gave back, or could not have.
create table payments (
    order_id text not null primary key,
    user_id text not null,                  -- who pays; of a declined one there may be no such user
    status text not null check (status in (
        'authorized', 'declined', 'captured', 'released', 'refunded'
    )),
    amount bigint not null check (amount between 0 and 1000000000000),
    currency text not null,                 -- ISO 4217, of `amount`; empty where nothing was ever held
    created_at bigint not null,
    updated_at bigint not null,
    version bigint not null check (version >= 1),
    -- An amount has a currency, and only what was held can be spent or come back from being spent.
    check (length(currency) = 3 or (currency = '' and amount = 0)),
    check (currency <> '' or status in ('declined', 'released')),
    check (currency = '' or status <> 'declined')
);

-- What users were told: of each order each kind once.
create table notifications (
    id text not null primary key,
    event_id text not null,                 -- UUIDv7, so that the largest is the newest
    user_id text not null,
    order_id text not null,
    kind text not null check (kind in (
        'confirmed', 'rejected', 'dispatched', 'delivered', 'cancelled'
    )),
    text text not null,
    created_at bigint not null,
    version bigint not null check (version = 1),
    check (id = order_id || ':' || kind)
);

-- The list of the API: of one user, newest first.
create unique index notifications_by_user on notifications (user_id, event_id);
