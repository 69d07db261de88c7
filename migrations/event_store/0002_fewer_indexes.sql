-- Times never decrease with positions, which have no gaps: what was recorded by a time is found by halving,
-- without an index that every event would have to be entered in.
drop index event_recorded_at;
