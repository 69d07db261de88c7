-- Every row is written twice within moments, and no index is over what changes. Where its page has
-- room for the next version, Postgres leaves the indexes as they are ("heap-only tuples").
alter table payments set (fillfactor = 50);
