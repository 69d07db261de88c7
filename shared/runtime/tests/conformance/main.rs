//! What the runtime and the event store promise, case by case, on SQLite and on Postgres.

/// Runs cases on both databases, each in a house of its own.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::house::House::new(crate::house::Kind::Sqlite).await).await;
            } )+
        }
        mod postgres {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::house::House::new(crate::house::Kind::Postgres).await).await;
            } )+
        }
    };
}

mod consumer;
mod counter;
mod house;
mod log;
mod poison;
mod processes;
mod units;
