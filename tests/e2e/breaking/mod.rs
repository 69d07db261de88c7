//! What breaks in earnest, and what is there afterwards: processes and servers are killed,
//! connections cut, disks full, power lost. `scripts/test faults` prepares what this needs, runs it,
//! and tells how often each fault happened.
//!
//! # Layout
//! - [`disk::Disk`]: a file system that can be filled and can lose its power.
//! - [`postgres::Postgres`]: a server of one case's own, which can be killed.
//! - [`wire::Wire`]: what lies between Waybill and Postgres, and may fail.
//! - [`Trial`]: a stack under load while something happens to it, and the books in the end.
//! - [`Share`]: how long a case that repeats itself goes on. `tally`: how often faults happened.

/// Runs each case on both databases; a case is an `async fn(kind: Kind)`.
macro_rules! breaking_both {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs what `scripts/test faults` prepares"]
            async fn $case() { super::$case(crate::support::Kind::Sqlite).await; } )+
        }
        mod postgres {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs what `scripts/test faults` prepares"]
            async fn $case() { super::$case(crate::support::Kind::Postgres).await; } )+
        }
    };
}

mod backups;
mod commit_points;
mod connections;
mod disk;
mod full_disk;
mod kills;
mod lies;
mod postgres;
mod power;
mod replicas;
mod scarcity;
mod servers;
mod share;
mod snapshot;
mod tally;
mod trial;
mod wire;

use share::Share;
use trial::{Place, Trial};
