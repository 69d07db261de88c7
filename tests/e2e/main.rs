//! The whole house from end to end: over HTTP, against the real executable on SQLite and on
//! Postgres, and against the containers of `compose.yaml`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says that something went wrong by panicking, and shows the log of its servers"
)]

/// Runs each case on both databases; a case is an `async fn(kind: Kind)`.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(crate::support::Kind::Sqlite).await; } )+
        }
        mod postgres {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(crate::support::Kind::Postgres).await; } )+
        }
    };
}

/// Runs each case on both databases, and on the containers that users start: through the gateway,
/// every service twice.
macro_rules! on_every_deployment {
    ($($case:ident),+ $(,)?) => {
        on_both!($($case),+);
        mod compose {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs the containers that `scripts/test compose` starts"]
            async fn $case() { super::$case(crate::support::Kind::Compose).await; } )+
        }
    };
}

mod apart;
mod audit;
mod breaking;
mod commands;
mod containers;
mod document;
mod errors;
mod faults;
mod hostile;
mod idempotency;
mod journeys;
mod judge;
mod load;
mod metrics;
mod peers;
mod raw;
mod reading;
mod scarce;
mod stream;
mod support;
mod traces;
mod walls;
