-- History is not rewritten: the event store refuses UPDATE, DELETE and TRUNCATE, whoever asks.
create function refuse_change() returns trigger
language plpgsql
as $$ begin raise exception 'the event store is append-only: % is refused', tg_op; end $$;

create trigger event_is_append_only before update or delete on event
    for each row execute function refuse_change();
create trigger event_is_not_truncated before truncate on event
    for each statement execute function refuse_change();
create trigger log_is_append_only before update or delete on log
    for each row execute function refuse_change();
create trigger log_is_not_truncated before truncate on log
    for each statement execute function refuse_change();
