-- Every row is written four times within moments, and no index is over what changes. Where its page has
-- room for the next version, Postgres leaves the indexes as they are ("heap-only tuples").
alter table shipments set (fillfactor = 50);
