-- What the user service owns: users with their wallets, the payments of orders, what users were told.
-- Only bigint and text, never null; times are microseconds since 1970-01-01 UTC, money is in minor
-- units of its currency. Every row is the fold of this service's outbox.

-- Users, each with one wallet of one currency. Listed newest first, by id.
create table users (
    id         text   not null primary key,
    name       text   not null,
    email      text   not null,
    currency   text   not null check (length(currency) = 3), -- ISO 4217
    available  bigint not null check (available >= 0),       -- can be spent
    held       bigint not null check (held >= 0),            -- set aside for orders
    created_at bigint not null,
    updated_at bigint not null,
    version    bigint not null
);

-- Payments, one per order that was heard of.
create table payments (
    order_id   text   not null primary key,
    user_id    text   not null,
    status     text   not null
        check (status in ('authorized', 'declined', 'captured', 'released', 'refunded')),
    amount     bigint not null check (amount >= 0), -- what was held; 0 where nothing ever was
    currency   text   not null,                     -- empty where nothing was ever held
    created_at bigint not null,
    updated_at bigint not null,
    version    bigint not null,
    check (length(currency) = 3 or (currency = '' and amount = 0)),
    check (currency <> '' or status in ('declined', 'released'))
);

-- What users were told: of each order each kind once.
create table notifications (
    id         text   not null primary key check (id = order_id || ':' || kind),
    event_id   text   not null, -- the event that says so; grows with time
    user_id    text   not null,
    order_id   text   not null,
    kind       text   not null
        check (kind in ('confirmed', 'rejected', 'dispatched', 'delivered', 'cancelled')),
    text       text   not null,
    created_at bigint not null,
    version    bigint not null
);

-- A user's notifications, the newest first.
create unique index notifications_of_user on notifications (user_id, event_id);
