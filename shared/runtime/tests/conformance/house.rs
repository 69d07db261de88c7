//! Fresh databases of either kind, and the two counters in them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::AnyPool;
use tempfile::TempDir;
use uuid::Uuid;
use waybill_runtime::{
    Clock, EventStore, Ids, Location, ManualClock, Migrations, Outcome, Request, RequestKey,
    Service, Step, Steps, Timestamp,
};

use crate::counter::{CounterId, Follower, Leader, Raise, Settings};

/// The two databases that every case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A fresh database, removed when it goes out of scope.
pub struct House {
    pub kind: Kind,
    pub location: Location,
    pub clock: Clock,
    pub hand: ManualClock,
    pub ids: Ids,
    _folder: TempDir,
}

/// Where Postgres is. Tests never skip it silently.
fn server() -> String {
    std::env::var("WAYBILL_TEST_DATABASE_URL").expect(
        "WAYBILL_TEST_DATABASE_URL names a Postgres to test with; `scripts/test` starts one",
    )
}

impl House {
    pub async fn new(kind: Kind) -> Self {
        sqlx::any::install_default_drivers();
        let folder = TempDir::new().expect("a folder for the test");
        let location = match kind {
            Kind::Sqlite => Location::Folder(folder.path().to_owned()),
            Kind::Postgres => Location::Postgres(fresh_database().await),
        };
        let (clock, hand) = Clock::manual(Timestamp(1_800_000_000_000_000));
        Self { kind, location, clock, hand, ids: Ids::system(), _folder: folder }
    }

    pub async fn event_store(&self) -> EventStore {
        EventStore::open(&self.location, self.clock.clone(), &self.ids, Migrations::Apply)
            .await
            .expect("the event store opens")
    }

    /// One more replica of a service.
    pub async fn steps<S: Service<Settings = Settings>>(&self, settings: &Settings) -> Steps<S> {
        let store = self.event_store().await;
        let (clock, ids) = (self.clock.clone(), self.ids.clone());
        Steps::open(&self.location, store, settings.clone(), clock, ids)
            .await
            .expect("the service opens")
    }

    pub async fn leader(&self) -> Steps<Leader> {
        self.steps(&Settings::default()).await
    }

    pub async fn follower(&self) -> Steps<Follower> {
        self.steps(&Settings::default()).await
    }

    /// An owner's tables, to look at behind the runtime's back.
    pub async fn pool(&self, owner: &str) -> AnyPool {
        let url = match &self.location {
            Location::Folder(folder) => format!("sqlite://{}/{owner}.db", folder.display()),
            Location::Postgres(url) => format!("{url}?options=-c%20search_path%3D{owner}"),
        };
        AnyPool::connect(&url).await.expect("the owner's tables are there")
    }

    pub async fn count(&self, owner: &str, sql: &'static str) -> i64 {
        let pool = self.pool(owner).await;
        let count = sqlx::query_scalar(sql).fetch_one(&pool).await.expect("a number");
        pool.close().await;
        count
    }

    pub async fn execute(&self, owner: &str, sql: &'static str) {
        let pool = self.pool(owner).await;
        sqlx::raw_sql(sql).execute(&pool).await.expect("the statement runs");
        pool.close().await;
    }
}

async fn fresh_database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = server();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("conformance_{}_{number}", std::process::id());
    let pool = AnyPool::connect(&server).await.expect("the test server answers");
    let drop = sqlx::AssertSqlSafe(format!("drop database if exists {name} with (force)"));
    sqlx::raw_sql(drop).execute(&pool).await.expect("the old database goes");
    let create = sqlx::AssertSqlSafe(format!("create database {name}"));
    sqlx::raw_sql(create).execute(&pool).await.expect("the new database comes");
    pool.close().await;
    let (base, _) = server.rsplit_once('/').expect("the address ends in a database");
    format!("{base}/{name}")
}

pub fn counter() -> CounterId {
    CounterId(Ids::system().next())
}

pub fn raise(counter: CounterId, by: i64) -> Raise {
    Raise { counter, by, rings_in: None, note: String::new() }
}

pub fn ringing(counter: CounterId, wait: Duration) -> Raise {
    Raise { rings_in: Some(wait), ..raise(counter, 1) }
}

pub fn noted(counter: CounterId, note: &str) -> Raise {
    Raise { note: note.to_owned(), ..raise(counter, 1) }
}

pub fn request<S: Service<Command = Raise>>(command: Raise, key: Option<&str>) -> Request<S> {
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
pub async fn batch<S: Service<Command = Raise>>(
    steps: &mut Steps<S>,
    requests: Vec<Request<S>>,
) -> Vec<Outcome<S>> {
    let waiting: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let handle = steps.handle.clone();
            tokio::spawn(async move { handle.submit(request).await })
        })
        .collect();
    let count = waiting.len();
    let mut done = 0;
    while done < count {
        match steps.step_commands(count).await {
            Ok(Step::Did(some)) => done += some,
            Ok(Step::Idle) => tokio::task::yield_now().await,
            Err(_) => done = count,
        }
    }
    let mut outcomes = Vec::with_capacity(count);
    for one in waiting {
        outcomes.push(one.await.expect("the caller is not cancelled"));
    }
    outcomes
}

/// Relays until there is nothing left.
pub async fn relay_all<S: Service>(steps: &mut Steps<S>) {
    while steps.relay.step().await.expect("the relay works") != Step::Idle {}
}

/// Handles events until there are none left.
pub async fn hear_all<S: Service>(steps: &mut Steps<S>) {
    while steps.writer.step_events(100).await.expect("the consumer works") != Step::Idle {}
}

pub fn uuid() -> Uuid {
    Ids::system().next()
}
