//! What the runtime and the event store promise, case by case, on SQLite and on Postgres.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says that something went wrong by panicking"
)]

/// Runs cases on one of the databases, each in a house of its own.
macro_rules! on {
    ($kind:ident, $module:ident: $($case:ident),+ $(,)?) => {
        mod $module {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::house::House::new(crate::house::Kind::$kind).await).await;
            } )+
        }
    };
}

/// Runs cases on both databases.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        on!(Sqlite, sqlite: $($case),+);
        on!(Postgres, postgres: $($case),+);
    };
}

mod consumer;
mod counter;
mod dropped;
mod house;
mod log;
mod lost_answers;
mod migrations;
mod poison;
mod processes;
mod proof;
mod proxy;
mod restore;
mod running;
mod snapshot;
mod timers;
mod units;
