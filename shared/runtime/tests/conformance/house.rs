//! Fresh databases of either kind, and the two counters in them.

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Transaction};
use tempfile::TempDir;
use waybill_runtime::fold::{self, EventStoreSnapshot, Finding};
use waybill_runtime::{
    Answer, Clock, DeadLetter, DeadLetterStatus, Envelope, EventId, EventStore, Ids, Location,
    ManualClock, Migrations, OutboxEvent, Outcome, Position, Request, RequestKey, Service, Step,
    Steps, Timestamp, Version,
};

use crate::counter::{Counter, CounterEvent, CounterId, Follower, Leader, Raise, Settings};

/// The two databases that every case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A fresh database, removed when it goes out of scope.
pub(crate) struct House {
    pub(crate) kind: Kind,
    pub(crate) location: Location,
    pub(crate) clock: Clock,
    pub(crate) hand: ManualClock,
    pub(crate) ids: Ids,
    folder: TempDir,
    stores: Mutex<Vec<EventStore>>,
}

/// Where Postgres is. Tests never skip it silently.
fn server() -> String {
    std::env::var("WAYBILL_TEST_DATABASE_URL").expect(
        "WAYBILL_TEST_DATABASE_URL names a Postgres to test with; `scripts/test` starts one",
    )
}

impl House {
    pub(crate) async fn new(kind: Kind) -> Self {
        sqlx::any::install_default_drivers();
        let folder = TempDir::new().expect("a folder for the test");
        let location = match kind {
            Kind::Sqlite => Location::Folder(folder.path().to_owned()),
            Kind::Postgres => Location::Postgres(fresh_database().await),
        };
        let (clock, hand) = Clock::manual(Timestamp(1_800_000_000_000_000));
        Self { kind, location, clock, hand, ids: Ids::system(), folder, stores: Mutex::default() }
    }

    /// The folder of the SQLite files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address of the Postgres database.
    pub(crate) fn url(&self) -> &str {
        match &self.location {
            Location::Postgres(url) => url,
            Location::Folder(_) => panic!("this house is on SQLite"),
        }
    }

    pub(crate) async fn event_store(&self) -> EventStore {
        let store =
            EventStore::open(&self.location, self.clock.clone(), &self.ids, Migrations::Apply)
                .await
                .expect("the event store opens");
        self.stores.lock().expect("no panic holds it").push(store.clone());
        store
    }

    /// Ends every connection to the event store, as the end of a process does.
    pub(crate) async fn close_event_stores(&self) {
        let stores = std::mem::take(&mut *self.stores.lock().expect("no panic holds it"));
        for store in stores {
            store.close().await;
        }
    }

    /// One more replica of a service.
    pub(crate) async fn steps<S: Service<Settings = Settings>>(
        &self,
        settings: &Settings,
    ) -> Steps<S> {
        let store = self.event_store().await;
        let (clock, ids) = (self.clock.clone(), self.ids.clone());
        Steps::open(&self.location, store, settings.clone(), clock, ids)
            .await
            .expect("the service opens")
    }

    pub(crate) async fn leader(&self) -> Steps<Leader> {
        self.steps(&Settings::default()).await
    }

    pub(crate) async fn follower(&self) -> Steps<Follower> {
        self.steps(&Settings::default()).await
    }

    /// A follower that fails on these notes until they are taken off its list.
    pub(crate) async fn follower_failing_on(&self, notes: &[&str]) -> (Steps<Follower>, Settings) {
        let settings = Settings::default();
        let notes = notes.iter().map(ToString::to_string);
        settings.fails_on.lock().expect("no panic holds it").extend(notes);
        (self.steps(&settings).await, settings)
    }

    /// How much the follower has: events, rows, dead letters, timers.
    pub(crate) async fn counts_of_follower(&self) -> [i64; 4] {
        [
            self.count("follower", "select count(*) from outbox").await,
            self.count("follower", "select count(*) from counters").await,
            self.count("follower", "select count(*) from dead_letters").await,
            self.count("follower", "select count(*) from timers").await,
        ]
    }

    /// An owner's tables, to look at behind the runtime's back.
    pub(crate) async fn pool(&self, owner: &str) -> AnyPool {
        let url = match &self.location {
            Location::Folder(folder) => format!("sqlite://{}/{owner}.db", folder.display()),
            Location::Postgres(url) => format!("{url}?options=-c%20search_path%3D{owner}"),
        };
        let one = AnyPoolOptions::new().max_connections(1);
        one.connect(&url).await.expect("the owner's tables are there")
    }

    pub(crate) async fn count(&self, owner: &str, sql: &'static str) -> i64 {
        let pool = self.pool(owner).await;
        let count = sqlx::query_scalar(sql).fetch_one(&pool).await.expect("a number");
        pool.close().await;
        count
    }

    pub(crate) async fn texts(&self, owner: &str, sql: &'static str) -> Vec<String> {
        let pool = self.pool(owner).await;
        let texts = sqlx::query_scalar(sql).fetch_all(&pool).await.expect("texts");
        pool.close().await;
        texts
    }

    pub(crate) async fn execute(&self, owner: &str, sql: &str) {
        self.try_to_execute(owner, sql).await.expect("the statement runs");
    }

    pub(crate) async fn try_to_execute(&self, owner: &str, sql: &str) -> Result<(), sqlx::Error> {
        let pool = self.pool(owner).await;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&pool).await;
        pool.close().await;
        done.map(|_| ())
    }

    /// What the proof finds first, in the event store or in either service.
    pub(crate) async fn finding(&self) -> Finding {
        let mut store = EventStoreSnapshot::take(&self.location).await.expect("a snapshot");
        let mut finding = store.verify_positions().await.expect("the event store can be read");
        if matches!(finding, Finding::Agrees { .. }) {
            finding = self.finding_of::<Leader>(&mut store).await;
        }
        if matches!(finding, Finding::Agrees { .. }) {
            finding = self.finding_of::<Follower>(&mut store).await;
        }
        store.release().await.expect("the snapshot ends");
        finding
    }

    async fn finding_of<S: Service>(&self, store: &mut EventStoreSnapshot) -> Finding {
        fold::verify::<S>(&self.location, store, &|_, _| {}).await.expect("the service can be read")
    }

    /// Everything agrees: tables with outboxes, outboxes with the event store.
    pub(crate) async fn proven(&self) {
        let finding = self.finding().await;
        assert!(matches!(finding, Finding::Agrees { .. }), "{finding:?}");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Location::Postgres(url) = &self.location {
            let (_, name) = url.rsplit_once('/').expect("the address ends in a database");
            let drop = format!("drop database if exists {name} with (force)");
            // The case's own runtime cannot wait here.
            let dropping = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let mut server = AnyConnection::connect(&server()).await?;
                    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut server).await
                })
            });
            // What is left is dropped with the server.
            let _ = dropping.join();
        }
    }
}

async fn fresh_database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = server();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("conformance_{}_{number}", std::process::id());
    let mut connection = AnyConnection::connect(&server).await.expect("the test server answers");
    let drop = AssertSqlSafe(format!("drop database if exists {name} with (force)"));
    sqlx::raw_sql(drop).execute(&mut connection).await.expect("the old database goes");
    let create = AssertSqlSafe(format!("create database {name}"));
    sqlx::raw_sql(create).execute(&mut connection).await.expect("the new database comes");
    connection.close().await.expect("goodbye");
    let (base, _) = server.rsplit_once('/').expect("the address ends in a database");
    format!("{base}/{name}")
}

pub(crate) fn counter() -> CounterId {
    CounterId(Ids::system().next())
}

pub(crate) fn raise(counter: CounterId, by: i64) -> Raise {
    Raise { counter, by, rings_in: None, note: String::new() }
}

pub(crate) fn ringing(counter: CounterId, wait: Duration) -> Raise {
    Raise { rings_in: Some(wait), ..raise(counter, 1) }
}

pub(crate) fn noted(counter: CounterId, note: &str) -> Raise {
    Raise { note: note.to_owned(), ..raise(counter, 1) }
}

pub(crate) fn request<S: Service<Command = Raise>>(
    command: Raise,
    key: Option<&str>,
) -> Request<S> {
    Request {
        key: key.map(|key| RequestKey {
            key: key.to_owned(),
            fingerprint: format!("{} by {}", command.counter, command.by),
        }),
        command,
        id: Ids::system().next(),
        if_match: None,
        actor: "test".to_owned(),
        traceparent: String::new(),
    }
}

/// Carries out these commands as one batch; their outcomes in order.
pub(crate) async fn batch<S: Service<Command = Raise>>(
    steps: &mut Steps<S>,
    requests: Vec<Request<S>>,
) -> Vec<Outcome<S>> {
    let (handle, count) = (steps.handle.clone(), requests.len());
    let mut asking = pin!(join_all(requests.into_iter().map(|request| handle.submit(request))));
    // Asking once puts all of them into the queue.
    if let Some(outcomes) = asking.as_mut().now_or_never() {
        return outcomes;
    }
    // Trouble is told to those who asked as well.
    let _ = steps.step_commands(count).await;
    asking.await
}

/// More steps than any case takes: one that goes on for ever fails instead of hanging.
const STEPS: usize = 5_000;

/// Relays until there is nothing left.
pub(crate) async fn relay_all<S: Service>(steps: &mut Steps<S>) {
    for _ in 0..STEPS {
        if steps.relay.step().await.expect("the relay works") == Step::Idle {
            return;
        }
    }
    panic!("the relay comes to no end");
}

/// Handles events until there are none left.
pub(crate) async fn hear_all<S: Service>(steps: &mut Steps<S>) {
    for _ in 0..STEPS {
        if steps.writer.step_events(100).await.expect("the consumer works") == Step::Idle {
            return;
        }
    }
    panic!("the consumer comes to no end");
}

/// Fires timers until none is due.
pub(crate) async fn ring_all<S: Service>(steps: &mut Steps<S>) {
    for _ in 0..STEPS {
        if steps.writer.step_timers(100).await.expect("timers fire") == Step::Idle {
            return;
        }
    }
    panic!("timers come to no end");
}

/// Tries dead letters again until none is to be tried.
pub(crate) async fn retry_all<S: Service>(steps: &mut Steps<S>) {
    for _ in 0..STEPS {
        if steps.writer.step_retries(100).await.expect("retries run") == Step::Idle {
            return;
        }
    }
    panic!("retries come to no end");
}

/// Carries out commands of which none is refused.
pub(crate) async fn command<S: Service<Command = Raise>>(
    steps: &mut Steps<S>,
    commands: impl IntoIterator<Item = Raise>,
) -> Vec<Answer> {
    let requests = commands.into_iter().map(|command| request(command, None)).collect();
    let outcomes = batch(steps, requests).await;
    outcomes.into_iter().map(|outcome| outcome.expect("the command is carried out")).collect()
}

/// The counter as the service has it.
pub(crate) async fn seen<S>(steps: &Steps<S>, counter: CounterId) -> Option<Counter>
where
    S: Service<Event = CounterEvent>,
{
    steps.handle.get::<Counter>(&counter).await.expect("the table can be read")
}

/// What the counter counted to, 0 if it is not there.
pub(crate) async fn total<S: Service<Event = CounterEvent>>(
    steps: &Steps<S>,
    counter: CounterId,
) -> i64 {
    seen(steps, counter).await.map_or(0, |counter| counter.total)
}

/// The dead letters as `status kind attempts`, in the order they came in.
pub(crate) async fn letters<S: Service>(steps: &Steps<S>) -> Vec<String> {
    let mut letters = steps.handle.dead_letters(None, None, 100).await.expect("dead letters");
    letters.sort_by(|a, b| a.position.cmp(&b.position).then(a.id.cmp(&b.id)));
    letters.iter().map(|l| format!("{} {} {}", l.status, l.kind, l.attempts)).collect()
}

/// The only dead letter that is parked.
pub(crate) async fn parked<S: Service>(steps: &Steps<S>) -> DeadLetter {
    let status = Some(DeadLetterStatus::Parked);
    let parked = steps.handle.dead_letters(status, None, 100).await.expect("dead letters");
    let [parked] = <[DeadLetter; 1]>::try_from(parked).expect("one is parked");
    parked
}

/// An event of a made-up source, as a relay hands it over.
pub(crate) fn outbox_event(source: &str, position: i64, data: &str) -> OutboxEvent {
    let envelope = Envelope {
        id: EventId(Ids::system().next()),
        source: source.to_owned(),
        kind: "counter.raised".to_owned(),
        schema: 1,
        stream: format!("{source}-stream"),
        version: Version(position),
        time: Timestamp(1_800_000_000_000_000),
        correlation: format!("{source}-lane"),
        causation: "a test".to_owned(),
        actor: "test".to_owned(),
        traceparent: String::new(),
        data: data.to_owned(),
    };
    OutboxEvent { position: Position(position), envelope: Arc::new(envelope) }
}

/// A turn taken behind the runtime's back.
pub(crate) async fn take_turn(kind: Kind, pool: &AnyPool) -> Transaction<'static, Any> {
    match kind {
        Kind::Sqlite => pool.begin_with("begin immediate").await.expect("the turn"),
        Kind::Postgres => {
            let mut turn = pool.begin().await.expect("a transaction");
            let lock = sqlx::query("select owner from turn for update");
            lock.execute(&mut *turn).await.expect("the turn");
            turn
        }
    }
}
