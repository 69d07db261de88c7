//! The log: no gaps, in order, nothing skipped, nothing twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use waybill_runtime::{
    Appended, Clock, Cursor, EventStore, Filter, Migrations, Position, Step, StoredEvent, Timestamp,
};

use crate::counter::CounterId;
use crate::house::{
    House, command, counter, noted, outbox_event, raise, relay_all, take_turn, total,
};

on_both!(
    positions_have_no_gaps_under_concurrent_writers,
    a_reader_skips_nothing_while_commits_are_slow_and_some_roll_back,
    an_append_that_does_not_begin_right_after_the_last_writes_nothing,
    a_relay_that_wakes_late_changes_nothing,
    pages_hold_every_event_that_fits_once_in_their_direction,
    recorded_at_never_decreases_when_the_clock_goes_back,
    what_was_recorded_by_a_time_is_found_among_any_number_of_events,
    data_is_kept_to_the_byte,
);

async fn positions_have_no_gaps_under_concurrent_writers(house: House) {
    const REPLICAS: i64 = 3;
    const BATCHES: i64 = 12;
    let counters: Arc<Vec<CounterId>> = Arc::new((0..4).map(|_| counter()).collect());
    let events = REPLICAS * BATCHES * 4;
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        let (mut leader, counters) = (house.leader().await, Arc::clone(&counters));
        replicas.push(tokio::spawn(async move {
            for _ in 0..BATCHES {
                command(&mut leader, counters.iter().map(|counter| raise(*counter, 2))).await;
                leader.relay.step().await.unwrap();
            }
            relay_all(&mut leader).await;
        }));
        let (mut follower, store) = (house.follower().await, house.event_store().await);
        replicas.push(tokio::spawn(async move {
            while store.head().await.unwrap() < Position(2 * events) {
                follower.writer.step_events(7).await.unwrap();
                follower.relay.step().await.unwrap();
            }
            relay_all(&mut follower).await;
        }));
    }
    for replica in replicas {
        replica.await.unwrap();
    }
    let mut follower = house.follower().await;
    relay_all(&mut follower).await;
    for counter in counters.iter() {
        assert_eq!(total(&follower, *counter).await, REPLICAS * BATCHES * 2, "of {counter}");
    }
    assert_eq!(house.event_store().await.head().await.unwrap(), Position(2 * events));
    house.proven().await;
}

/// Random to the eye, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

async fn a_reader_skips_nothing_while_commits_are_slow_and_some_roll_back(house: House) {
    const WRITERS: u64 = 16;
    const APPENDS: i64 = 12;
    let store = house.event_store().await;
    let done = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(read_along(house.event_store().await, Arc::clone(&done)));
    let mut writing = Vec::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        let slow = house.pool("event_store").await;
        let kind = house.kind;
        writing.push(tokio::spawn(async move {
            let source = format!("writer-{writer}");
            let mut dice = Dice(writer);
            let mut committed = 0;
            while committed < APPENDS {
                let event = outbox_event(&source, committed + 1, "{}");
                let done = if dice.roll(2) == 0 {
                    matches!(store.append(&[event]).await.unwrap(), Appended::Done(_))
                } else {
                    let mut turn = take_turn(kind, &slow).await;
                    append_raw(&mut turn, &source, committed + 1).await;
                    tokio::time::sleep(Duration::from_millis(dice.roll(8))).await;
                    let rolls_back = dice.roll(10) == 0;
                    if rolls_back {
                        turn.rollback().await.unwrap();
                    } else {
                        turn.commit().await.unwrap();
                    }
                    !rolls_back
                };
                committed += i64::from(done);
            }
        }));
    }
    for writer in writing {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let read = reading.await.unwrap();
    let sources = (0..WRITERS).map(|writer| format!("writer-{writer}"));
    let all: BTreeSet<(String, i64)> =
        sources.flat_map(|source| (1..=APPENDS).map(move |p| (source.clone(), p))).collect();
    assert_eq!(read.len(), all.len(), "each event is read once");
    assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), all);
}

/// Inserts the next event as an append does, for the caller to commit when it likes.
async fn append_raw(turn: &mut sqlx::AnyConnection, source: &str, source_position: i64) {
    sqlx::query(
        "insert into event (position, recorded_at, source, source_position, id, type, \
         schema_version, stream, stream_version, occurred_at, correlation_id, causation_id, \
         actor, traceparent, data, chain) select coalesce(max(position), 0) + 1, \
         1800000000000000, $1, $2, $3, 'counter.raised', 1, $1, $2, 0, $1, '', '', '', '{}', '' \
         from event",
    )
    .bind(source.to_owned())
    .bind(source_position)
    .bind(outbox_event(source, 1, "").envelope.id.to_string())
    .execute(turn)
    .await
    .unwrap();
}

/// Reads whatever is new, again and again; each read must begin right after the last.
async fn read_along(store: EventStore, done: Arc<AtomicBool>) -> Vec<(String, i64)> {
    let mut read = Vec::new();
    let mut after = Position(0);
    loop {
        let ending = done.load(Ordering::SeqCst);
        let page = store.find(&Filter { after, ..Filter::default() }, 50).await.unwrap();
        for event in &page {
            assert_eq!(event.position, after.next(), "a position became visible before another");
            after = event.position;
            read.push((event.envelope.source.clone(), event.source_position.0));
        }
        if ending && page.is_empty() {
            return read;
        }
        tokio::task::yield_now().await;
    }
}

async fn an_append_that_does_not_begin_right_after_the_last_writes_nothing(house: House) {
    let store = house.event_store().await;
    let events: Vec<_> = (1..=9).map(|p| outbox_event("a", p, "{}")).collect();
    assert_eq!(store.append(&events[..4]).await.unwrap(), Appended::Done(Position(4)));
    let at_4 =
        Appended::NotNext(Cursor { position: Position(4), event: Some(events[3].envelope.id) });
    let gap_inside = [events[4].clone(), events[6].clone()];
    let other_inside = [events[4].clone(), outbox_event("b", 6, "{}")];
    let attempts: [(&str, &[_]); 6] = [
        ("the same page", &events[..4]),
        ("an older page", &events[1..3]),
        ("a page that overlaps", &events[2..6]),
        ("a page after a gap", &events[5..]),
        ("a page with a gap inside", &gap_inside),
        ("a page with another source inside", &other_inside),
    ];
    for (what, page) in attempts {
        assert_eq!(store.append(page).await.unwrap(), at_4, "{what}");
        assert_eq!(store.head().await.unwrap(), Position(4), "{what}");
    }
    assert_eq!(store.append(&events[4..]).await.unwrap(), Appended::Done(Position(9)));
}

async fn a_relay_that_wakes_late_changes_nothing(house: House) {
    let (mut late, mut other) = (house.leader().await, house.leader().await);
    let a = counter();
    command(&mut late, [raise(a, 1)]).await;
    relay_all(&mut late).await;
    // The late one knows the cursor as of now; the other goes on without it.
    command(&mut other, (0..5).map(|_| raise(a, 1))).await;
    relay_all(&mut other).await;
    let before = everything(&house).await;
    assert_eq!(late.relay.step().await.unwrap(), Step::Did(0), "it finds that it is late");
    relay_all(&mut late).await;
    assert_eq!(everything(&house).await, before);
    command(&mut late, [raise(a, 1)]).await;
    relay_all(&mut late).await;
    relay_all(&mut other).await;
    assert_eq!(everything(&house).await.len(), 7);
    house.follower().await;
    house.proven().await;
}

async fn everything(house: &House) -> Vec<StoredEvent> {
    house.event_store().await.find(&Filter::default(), 1_000).await.unwrap()
}

async fn pages_hold_every_event_that_fits_once_in_their_direction(house: House) {
    let store = house.event_store().await;
    let events: Vec<_> = (1..=25).map(|p| outbox_event("a", p, "{}")).collect();
    store.append(&events).await.unwrap();
    for size in [1, 5, 24, 25, 26] {
        for newest_first in [false, true] {
            let filter = Filter { after: Position(3), newest_first, ..Filter::default() };
            let mut pages = store.pages(filter, size);
            let mut read = Vec::new();
            while let Some(page) = pages.next().await.unwrap() {
                assert!((1..=size).contains(&page.len()), "{} of {size}", page.len());
                read.extend(page.into_iter().map(|event| event.position.0));
            }
            let mut expected: Vec<i64> = (4..=25).collect();
            if newest_first {
                expected.reverse();
            }
            assert_eq!(read, expected);
        }
    }
}

async fn recorded_at_never_decreases_when_the_clock_goes_back(house: House) {
    let now = house.event_store().await;
    let (an_hour_ago, _) = Clock::manual(house.clock.now().minus(Duration::from_hours(1)));
    let early = EventStore::open(&house.location, an_hour_ago, &house.ids, Migrations::Apply);
    let early = early.await.unwrap();
    now.append(&[outbox_event("a", 1, "{}")]).await.unwrap();
    early.append(&[outbox_event("a", 2, "{}"), outbox_event("a", 3, "{}")]).await.unwrap();
    house.hand.advance(Duration::from_secs(1));
    now.append(&[outbox_event("a", 4, "{}")]).await.unwrap();
    let recorded: Vec<Timestamp> =
        everything(&house).await.iter().map(|event| event.recorded_at).collect();
    let start = house.clock.now().minus(Duration::from_secs(1));
    assert_eq!(recorded, [start, start, start, house.clock.now()]);
    assert_eq!(now.position_at(start).await.unwrap(), Position(3));
}

async fn what_was_recorded_by_a_time_is_found_among_any_number_of_events(house: House) {
    let store = house.event_store().await;
    let start = house.clock.now();
    assert_eq!(store.position_at(start).await.unwrap(), Position(0));
    for position in 1..=9 {
        // Two at each time.
        if position % 2 == 1 {
            house.hand.advance(Duration::from_secs(1));
        }
        store.append(&[outbox_event("a", position, "{}")]).await.unwrap();
        for seconds in 0..=6 {
            let time = start.plus(Duration::from_secs(seconds));
            let by_then = position.min(2 * i64::try_from(seconds).unwrap());
            assert_eq!(store.position_at(time).await.unwrap(), Position(by_then));
        }
    }
}

async fn data_is_kept_to_the_byte(house: House) {
    let data = [
        r#"{"twice":1,"twice":2}"#,
        r#"{"big":123456789012345678901234567890,"small":1e400,"minus":-0,"zeros":1.000}"#,
        r#"{ "spaces" :  [ 1 ,2 ] }"#,
        r#"{"escapes":"\u00e9\ud83d\ude00\u0000\/\b","lone":"\ud800"}"#,
        "{\"text\":\"é 日本語 😀 \u{202e}\u{feff}\",\"line\":\"\\n\"}",
        "not even JSON: '\"\\ \u{1} $1 ?",
        "",
    ];
    let store = house.event_store().await;
    let events: Vec<_> = (1..).zip(data).map(|(p, data)| outbox_event("a", p, data)).collect();
    store.append(&events).await.unwrap();
    for (stored, event) in everything(&house).await.iter().zip(&events) {
        assert_eq!(stored.envelope, event.envelope);
    }
    // And the whole way: a command's outbox, its relay, another service's outbox, its relay.
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    for note in &data[..6] {
        command(&mut leader, [noted(counter(), note)]).await;
    }
    relay_all(&mut leader).await;
    follower.writer.step_events(100).await.unwrap();
    let first = house.texts("leader", "select data from outbox order by position").await;
    let last = house.texts("follower", "select data from outbox order by position").await;
    assert_eq!(first.len(), 6);
    for (note, data) in data.iter().zip(first) {
        let event: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!(event["note"], *note);
        assert!(last.contains(&data), "{note} arrives as it was written");
    }
}
