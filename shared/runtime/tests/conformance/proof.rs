//! The proof: tables are the fold of their outbox, the event store is the outboxes, and whoever
//! changes either behind the runtime's back is found out.

use std::time::Duration;

use waybill_runtime::fold::{self, Finding};
use waybill_runtime::{Step, Steps};

use crate::counter::{CounterId, Follower, Leader};
use crate::house::{House, Kind, command, counter, hear_all, raise, relay_all, ring_all, ringing};

on_both!(
    what_is_rebuilt_is_what_was_there,
    rows_in_memory_are_loaded_anew_after_they_were_rebuilt,
    events_that_are_not_relayed_yet_are_backlog_and_no_error,
    a_changed_missing_or_extra_row_is_found,
    a_changed_missing_or_extra_timer_is_found,
    a_changed_or_missing_event_of_an_outbox_is_found,
    a_changed_or_missing_event_of_the_event_store_is_found,
);
on!(Postgres, postgres_alone: the_event_store_refuses_update_delete_and_truncate);

struct Filled {
    leader: Steps<Leader>,
    follower: Steps<Follower>,
    counters: [CounterId; 3],
}

/// A house with a little history: events 1 to 6 of the leader, a ring among them, all copied.
async fn filled(house: &House) -> Filled {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let counters @ [a, b, c] = [counter(), counter(), counter()];
    let minute = Duration::from_mins(1);
    command(&mut leader, [raise(a, 1), ringing(b, minute), raise(a, 2)]).await;
    house.hand.advance(minute);
    ring_all(&mut leader).await;
    command(&mut leader, [ringing(c, minute), raise(b, 5)]).await;
    relay_all(&mut leader).await;
    hear_all(&mut follower).await;
    relay_all(&mut follower).await;
    house.proven().await;
    Filled { leader, follower, counters }
}

const ROWS: &str = "select id || ' ' || cast(total as text) || ' ' || cast(rings as text) || ' ' \
    || cast(version as text) from counters order by id";
const TIMERS: &str = "select timer_key || ' ' || cast(due_at as text) || ' ' || payload || ' ' \
    || event_id || ' ' || correlation_id from timers order by timer_key";

async fn what_is_rebuilt_is_what_was_there(house: House) {
    let mut filled = filled(&house).await;
    let before = [house.texts("leader", ROWS).await, house.texts("leader", TIMERS).await];
    assert_eq!((before[0].len(), before[1].len()), (3, 1));
    house
        .execute(
            "leader",
            "update counters set total = total + 1; delete from timers; \
             insert into counters (id, total, rings, version) values ('nobody', 1, 1, 1); \
             insert into timers (timer_key, due_at, payload, event_id, correlation_id, traceparent) \
             values ('nothing', 1, '', '', '', '')",
        )
        .await;
    let told = std::sync::Mutex::new(Vec::new());
    let progress = |done, all| told.lock().unwrap().push((done, all));
    assert_eq!(fold::rebuild::<Leader>(&house.location, &house.clock, &progress).await.unwrap(), 6);
    assert_eq!(told.into_inner().unwrap().last(), Some(&(6, 6)));
    let after = [house.texts("leader", ROWS).await, house.texts("leader", TIMERS).await];
    assert_eq!(after, before);
    house.proven().await;
    // And a service that is up goes on with what was rebuilt.
    let total = command(&mut filled.leader, [raise(filled.counters[0], 4)]).await;
    assert_eq!(total[0].body, "7");
    house.hand.advance(Duration::from_mins(1));
    ring_all(&mut filled.leader).await;
    house.proven().await;
}

async fn rows_in_memory_are_loaded_anew_after_they_were_rebuilt(house: House) {
    let filled = filled(&house).await;
    let counter = filled.counters[0];
    house.execute("leader", "update counters set total = total + 100").await;
    // A process that has the wrong row in memory.
    let mut leader = house.leader().await;
    let wrong = command(&mut leader, [raise(counter, 1)]).await;
    assert_eq!(wrong[0].body, "104");
    fold::rebuild::<Leader>(&house.location, &house.clock, &|_, _| {}).await.unwrap();
    let right = command(&mut leader, [raise(counter, 1)]).await;
    assert_eq!(right[0].body, "5");
    house.proven().await;
}

async fn events_that_are_not_relayed_yet_are_backlog_and_no_error(house: House) {
    let mut filled = filled(&house).await;
    command(&mut filled.leader, (0..3).map(|_| raise(counter(), 1))).await;
    let Finding::Agrees { rows, .. } = house.finding().await else { panic!("it is only backlog") };
    assert_eq!(rows, 3, "of the follower, the last compared");
    relay_all(&mut filled.leader).await;
    while filled.follower.writer.step_events(1).await.unwrap() != Step::Idle {}
    house.proven().await;
}

/// Changes something behind the runtime's back, looks whether it is found, and mends it.
async fn found(house: &House, owner: &str, tamper: &str, mend: &str, place: &str) {
    let unlocked = |sql: &str| match (house.kind, owner) {
        (Kind::Postgres, "event_store") => {
            format!("set session_replication_role = replica; {sql}")
        }
        _ => sql.to_owned(),
    };
    house.execute(owner, &unlocked(tamper)).await;
    match house.finding().await {
        Finding::Differs(found) => {
            assert_eq!(found.place, place, "after {tamper}: {found}");
        }
        Finding::Agrees { .. } => panic!("not found: {tamper}"),
    }
    house.execute(owner, &unlocked(mend)).await;
    house.proven().await;
}

async fn a_changed_missing_or_extra_row_is_found(house: House) {
    let Filled { counters: [a, b, c], .. } = filled(&house).await;
    let row = |id: &str| format!("leader: counters {id}");
    let column = |id: CounterId, column: &str| format!("{}, column {column}", row(&id.to_string()));
    for (field, id, right, wrong) in
        [("total", a, 3, 4), ("rings", b, 1, 0), ("version", c, 1, 2), ("total", b, 6, -6)]
    {
        let set = |value| format!("update counters set {field} = {value} where id = '{id}'");
        found(&house, "leader", &set(wrong), &set(right), &column(id, field)).await;
    }
    let delete = |id: &str| format!("delete from counters where id = '{id}'");
    let insert = |id: &str, total| {
        format!("insert into counters (id, total, rings, version) values ('{id}', {total}, 0, 2)")
    };
    let a = a.to_string();
    found(&house, "leader", &delete(&a), &insert(&a, 3), &row(&a)).await;
    let nobody = counter().to_string();
    found(&house, "leader", &insert(&nobody, 1), &delete(&nobody), &row(&nobody)).await;
    let swapped =
        |from: &str, to: &str| format!("update counters set id = '{to}' where id = '{from}'");
    // One missing and one extra: the number of rows is right.
    let earlier = "00000000-0000-7000-8000-000000000000";
    found(&house, "leader", &swapped(&a, earlier), &swapped(earlier, &a), &row(earlier)).await;
}

async fn a_changed_missing_or_extra_timer_is_found(house: House) {
    let Filled { counters: [_, _, c], .. } = filled(&house).await;
    let timer = |key: &str| format!("leader: timers {key}");
    let key = format!("ring-{c}");
    let due = |change| format!("update timers set due_at = due_at {change} 1");
    found(&house, "leader", &due("+"), &due("-"), &timer(&key)).await;
    let cause = "update timers set event_id = 'x' || event_id";
    let mend = "update timers set event_id = substr(event_id, 2)";
    found(&house, "leader", cause, mend, &timer(&key)).await;
    let hide = "create table hidden as select * from timers; delete from timers";
    let show = "insert into timers select * from hidden; drop table hidden";
    found(&house, "leader", hide, show, &timer(&key)).await;
    let extra = "insert into timers (timer_key, due_at, payload, event_id, correlation_id, \
                 traceparent) values ('extra', 1, '', '', '', '')";
    let mend = "delete from timers where timer_key = 'extra'";
    found(&house, "leader", extra, mend, &timer("extra")).await;
}

/// Every part of an event: as changed and as changed back.
const CHANGES: [(&str, &str, &str); 7] = [
    ("data", "replace(data, ':2,', ':3,')", "replace(data, ':3,', ':2,')"),
    ("data", "data || ' '", "substr(data, 1, length(data) - 1)"),
    ("occurred_at", "occurred_at + 1", "occurred_at - 1"),
    ("actor", "actor || 'x'", "substr(actor, 1, length(actor) - 1)"),
    ("causation_id", "causation_id || 'x'", "substr(causation_id, 1, length(causation_id) - 1)"),
    ("correlation_id", "upper(correlation_id)", "lower(correlation_id)"),
    ("type", "replace(type, 'raised', 'rang')", "replace(type, 'rang', 'raised')"),
];

async fn a_changed_or_missing_event_of_an_outbox_is_found(house: House) {
    filled(&house).await;
    let third = house.texts("event_store", "select id from event where position = 3").await;
    let place = format!("event_store: position 3 (counter.raised {})", third[0]);
    for (column, change, back) in CHANGES {
        let set = |to: &str| format!("update outbox set {column} = {to} where position = 3");
        found(&house, "leader", &set(change), &set(back), &place).await;
    }
    let move_last =
        |from: i64, to: i64| format!("update outbox set position = {to} where position = {from}");
    let beyond = "leader: outbox position 6";
    found(&house, "leader", &move_last(6, 7), &move_last(7, 6), beyond).await;
    let first_after = "leader: outbox position 2";
    let shifted = "update outbox set position = position + 100 where position > 1";
    let back = "update outbox set position = position - 100 where position > 1";
    found(&house, "leader", shifted, back, first_after).await;
    // What the event store does not hold yet has to follow as well.
    let version = |by: i64| {
        format!("update outbox set stream_version = stream_version + {by} where position = 6")
    };
    found(&house, "leader", &version(1), &version(-1), &sixth(&house).await).await;
}

async fn sixth(house: &House) -> String {
    let id = house.texts("event_store", "select id from event where position = 6").await;
    format!("event_store: position 6 (counter.raised {})", id[0])
}

async fn a_changed_or_missing_event_of_the_event_store_is_found(house: House) {
    filled(&house).await;
    let third = house.texts("event_store", "select id from event where position = 3").await;
    let place = format!("event_store: position 3 (counter.raised {})", third[0]);
    for (column, change, back) in CHANGES {
        let set = |to: &str| format!("update event set {column} = {to} where position = 3");
        // What was changed to another kind is shown as that.
        let place = if column == "type" { place.replace("raised", "rang") } else { place.clone() };
        found(&house, "event_store", &set(change), &set(back), &place).await;
    }
    let set =
        |column: &str, to: &str| format!("update event set {column} = {to} where position = 4");
    let id = |to: &str| set("id", to);
    let chain = "event_store: position 4, column chain";
    let other_id = "'01937b6e-0000-7000-8000-000000000000'";
    let right_id = house.texts("event_store", "select id from event where position = 4").await;
    let right_id = format!("'{}'", right_id[0]);
    found(&house, "event_store", &id(other_id), &id(&right_id), chain).await;
    let (spoiled, mended) = (set("chain", "'x' || chain"), set("chain", "substr(chain, 2)"));
    found(&house, "event_store", &spoiled, &mended, chain).await;
    let time = |change| set("recorded_at", &format!("recorded_at {change} 100000000000"));
    let late = "event_store: position 5, column recorded_at";
    found(&house, "event_store", &time("+"), &time("-"), late).await;
    let gap =
        |from: i64, to: i64| format!("update event set position = {to} where position = {from}");
    found(&house, "event_store", &gap(4, 1_000), &gap(1_000, 4), "event_store: position 4").await;
}

async fn the_event_store_refuses_update_delete_and_truncate(house: House) {
    filled(&house).await;
    for statement in [
        "update event set data = '{}' where position = 1",
        "delete from event where position = 1",
        "truncate event",
        "update log set id = 'another'",
        "delete from log",
        "truncate log",
    ] {
        let refused = house.try_to_execute("event_store", statement).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{statement}: {refused}");
    }
    house.proven().await;
}
