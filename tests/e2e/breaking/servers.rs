//! A Postgres that is killed under load.

use tempfile::TempDir;

use super::disk::open_to_all;
use super::postgres::{Kill, Postgres};
use super::{Share, Trial};
use crate::support::{Dice, Kind, Options, Stack, Store};

/// A server whose data is on the disk of this machine.
async fn server() -> (TempDir, Postgres) {
    let folder = TempDir::with_prefix("waybill-server.").expect("a folder for the server");
    open_to_all(folder.path());
    let server = Postgres::make(folder.path()).await;
    (folder, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `scripts/test faults` prepares"]
async fn a_postgres_that_is_killed_at_random_loses_and_doubles_nothing() {
    let mut dice = Dice::thrown();
    let (_folder, mut server) = server().await;
    let stack = Stack::on(Store::At(server.url()), Options::default()).await;
    let mut trial = Trial::of(stack, Kind::Postgres).await;
    let mut share = Share::of(3).at_least(4);
    while share.goes_on() {
        tokio::time::sleep(dice.time(0, 300)).await;
        if dice.roll(4) == 0 {
            server.kill(Kill::One, &mut dice).await;
        } else {
            server.kill(Kill::All, &mut dice).await;
            tokio::time::sleep(dice.time(0, 800)).await;
            server.start().await;
        }
        trial.answers(1 + usize::from(dice.roll(2) == 0) * 20).await;
    }
    trial.ends_well().await;
}
