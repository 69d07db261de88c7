-- A service that connects with a role of its own (waybill_order, …) appends its own events and no
-- other's; all roles that may read the event store read all of it. The owner is not bound by this.
create policy read_all on event for select using (true);
create policy append_own on event for insert with check (current_user = 'waybill_' || source);
alter table event enable row level security;

-- To lock the turn takes the right to change it, which nobody is to use.
create trigger turn_is_not_changed before update or delete on turn
    for each row execute function refuse_change();
create trigger turn_is_not_truncated before truncate on turn
    for each statement execute function refuse_change();
