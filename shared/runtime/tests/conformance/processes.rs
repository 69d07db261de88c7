//! Parts of cases that need a process of their own: this binary, started again for one of these.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use waybill_runtime::{Clock, EventStore, Ids, Location, Migrations, Service, Step, Steps};

use crate::counter::{ENDED, Follower, Leader, Raise, Settings};
use crate::house::{batch, counter, noted, request};

const WHERE: &str = "WAYBILL_CONFORMANCE_LOCATION";

/// Runs one of these in a process of its own, on that database.
pub(crate) async fn run(name: &str, location: &Location) -> Output {
    let location = match location {
        Location::Folder(folder) => folder.display().to_string(),
        Location::Postgres(url) => url.clone(),
    };
    tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(WHERE, location)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

async fn open<S: Service<Settings = Settings>>(settings: Settings) -> Steps<S> {
    let place = std::env::var(WHERE).expect("a case names the database");
    let location = if place.starts_with("postgres") {
        Location::Postgres(place)
    } else {
        Location::Folder(place.into())
    };
    let (clock, ids) = (Clock::system(), Ids::system());
    let store = EventStore::open(&location, clock.clone(), &ids, Migrations::Apply);
    let store = store.await.unwrap();
    Steps::open(&location, store, settings, clock, ids).await.unwrap()
}

/// Starts a follower, has it handle everything, stops it cleanly; unless an event ends it before.
#[tokio::test]
#[ignore = "a part of other cases"]
async fn follows() {
    let mut follower: Steps<Follower> = open(Settings::default()).await;
    follower.writer.start(&Ids::system().next().to_string()).await.unwrap();
    while follower.writer.step_retries(100).await.unwrap() != Step::Idle {}
    while follower.writer.step_events(100).await.unwrap() != Step::Idle {}
    follower.writer.stop("no run of that name").await.unwrap();
}

/// Starts a leader whose timers end the process as they fire.
#[tokio::test]
#[ignore = "a part of other cases"]
async fn rings() {
    let settings = Settings::default();
    settings.fails_on.lock().unwrap().push("ring: end the process".to_owned());
    let mut leader: Steps<Leader> = open(settings).await;
    leader.writer.start(&Ids::system().next().to_string()).await.unwrap();
    while leader.writer.step_timers(100).await.unwrap() != Step::Idle {}
}

/// Whether a process ended because a message ended it.
pub(crate) fn was_ended(output: &Output) -> bool {
    output.status.code() == Some(ENDED)
}

/// Counts what the runtime says it has a database do.
#[derive(Clone, Default)]
struct Statements(Arc<AtomicUsize>);

impl Subscriber for Statements {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "waybill::sql"
    }
    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
#[ignore = "a part of other cases"]
async fn counts_statements() {
    let statements = Statements::default();
    tracing::subscriber::set_global_default(statements.clone()).unwrap();
    let mut leader: Steps<Leader> = open(Settings::default()).await;
    let mut follower: Steps<Follower> = open(Settings::default()).await;
    let mut counts = Vec::new();
    for size in [1, 2, 100, 400] {
        let note = |n| if n % 2 == 0 { "new" } else { "" };
        let asked: Vec<Raise> = (0..size).map(|n| noted(counter(), note(n))).collect();
        let keyed = |(n, raise)| request(raise, Some(&format!("{size} {n}")));
        let requests = asked.into_iter().enumerate().map(keyed).collect();
        statements.0.store(0, Ordering::SeqCst);
        let answered = batch(&mut leader, requests).await;
        assert!(answered.iter().all(Result::is_ok), "{answered:?}");
        let commands = statements.0.swap(0, Ordering::SeqCst);
        leader.relay.step().await.unwrap();
        let relay = statements.0.swap(0, Ordering::SeqCst);
        assert_eq!(follower.writer.step_events(500).await.unwrap(), Step::Did(size));
        counts.push((commands, relay, statements.0.swap(0, Ordering::SeqCst)));
    }
    println!("statements of commands, relay and events by size of batch: {counts:?}");
    assert!(counts[0].0 >= 5 && counts[0].1 >= 3 && counts[0].2 >= 5, "they are counted");
    // The very first page of a consumer reads the checkpoint as well.
    assert!(counts[2..].iter().all(|count| *count == counts[1]), "{counts:?}");
}
