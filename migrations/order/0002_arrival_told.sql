-- Whether the customer was told that the parcel arrived while this service had not heard that it left.
-- In an event store that was filled again from the outboxes, the one may come before the other.
alter table orders add column arrival_told text not null default 'no'
    check (arrival_told in ('no', 'yes'));
