-- SQLite's json_each for Postgres, so that rows travel as one parameter with one SQL text for both.
-- A single SQL expression, which Postgres inlines into the statement that calls it.
create or replace function json_each(doc text)
returns table (value jsonb, atom text)
language sql immutable parallel safe rows 100
as $$ select v, v #>> '{}' from jsonb_array_elements(doc::jsonb) as e (v) $$;

-- Text in the order of its bytes, under the name that SQLite knows that order by. Columns whose
-- order is seen from outside name it, so that lists are the same on every server.
create collation "binary" (locale = 'C');
