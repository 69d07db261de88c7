//! What was lost, or restored from a backup: it refills, goes on, or is refused in a sentence.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use super::postgres::program;
use super::{Trial, tally};
use crate::load::each_exists_once;
use crate::support::{Kind, PATIENCE, Store, run, until};

breaking_both!(
    an_event_store_that_is_lost_refills_and_after_a_rewind_nothing_is_doubled,
    an_event_store_restored_older_refills_and_after_a_rewind_nothing_is_doubled,
    a_service_restored_older_is_refused_in_a_sentence,
    a_house_restored_as_one_goes_on_from_there,
);

const WRITERS: [&str; 4] = ["order", "inventory", "logistics", "user"];
const EVENT_STORE: &str = "event_store";

/// What some owners had when nobody was at work.
struct Backup {
    folder: TempDir,
    owners: Vec<&'static str>,
}

fn file(store: &Store, owner: &str) -> PathBuf {
    store.folder().join(format!("{owner}.db"))
}

impl Backup {
    fn of(store: &Store, kind: Kind, owners: &[&'static str]) -> Self {
        let folder = TempDir::with_prefix("waybill-backup.").expect("a folder for the backup");
        let backup = Self { folder, owners: owners.to_vec() };
        for owner in owners {
            if kind == Kind::Postgres {
                let dump = File::create(backup.file(owner)).expect("a file");
                let mut dumping = program("pg_dump");
                dumping.arg(format!("--schema={owner}")).arg(store.database().0);
                let dumped = dumping.stdout(dump).status().expect("pg_dump starts");
                assert!(dumped.success(), "{owner} is dumped");
            } else {
                // Who stopped cleanly has left everything in this one file.
                std::fs::copy(file(store, owner), backup.file(owner)).expect("a copy");
            }
        }
        backup
    }

    fn file(&self, owner: &str) -> PathBuf {
        self.folder.path().join(owner)
    }

    async fn restore(&self, store: &Store, kind: Kind) {
        for owner in &self.owners {
            lose(store, kind, owner).await;
            if kind == Kind::Postgres {
                let dump = File::open(self.file(owner)).expect("the backup");
                let mut loading = program("psql");
                loading.args(["--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]);
                let loaded = loading.arg(store.database().0).stdin(dump).stdout(Stdio::null());
                assert!(loaded.status().expect("psql starts").success(), "{owner} is restored");
            } else {
                std::fs::copy(self.file(owner), file(store, owner)).expect("a copy");
            }
        }
    }
}

/// Everything that an owner has goes away.
async fn lose(store: &Store, kind: Kind, owner: &str) {
    if kind == Kind::Postgres {
        store.execute(owner, &format!("drop schema \"{owner}\" cascade")).await;
    } else {
        std::fs::remove_file(file(store, owner)).expect("it was there");
    }
}

impl Trial {
    /// Starts again, and waits until consumers say that an operator must decide, or all is well;
    /// whether they say so.
    async fn refuses_until_a_rewind(&mut self) -> bool {
        assert!(self.stack.try_restart().await, "it serves");
        let mut last = String::new();
        until("services are ready, or wait for a rewind", PATIENCE, async || {
            let reply = self.stack.get("/readyz").await;
            // What is said for a moment, while the event store refills, is not the last word.
            let same = reply.text == last;
            last.clone_from(&reply.text);
            let refuses = reply.status == 503 && reply.text.contains("waybill rewind");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            (same && (reply.status == 200 || refuses)).then_some(refuses)
        })
        .await
    }

    async fn rewinds(&mut self) {
        self.stack.stop().await;
        for service in WRITERS {
            let rewind =
                [vec!["rewind".to_owned(), service.to_owned()], self.stack.store().arguments()];
            let rewound = run(&rewind.concat()).await;
            assert_eq!(rewound.code, Some(0), "{rewound:?}");
        }
        self.stack.restart().await;
    }
}

async fn an_event_store_that_is_lost_refills_and_after_a_rewind_nothing_is_doubled(kind: Kind) {
    let mut trial = Trial::start(kind).await;
    trial.answers(50).await;
    trial.stack.stop().await;
    lose(trial.stack.store(), kind, EVENT_STORE).await;
    tally::count(kind, "event store lost", 1);
    assert!(trial.refuses_until_a_rewind().await, "another event store is not trusted");
    trial.answers(20).await;
    trial.rewinds().await;
    trial.answers(20).await;
    trial.ends_well().await;
}

async fn an_event_store_restored_older_refills_and_after_a_rewind_nothing_is_doubled(kind: Kind) {
    let mut trial = Trial::start(kind).await;
    trial.answers(30).await;
    trial.stack.stop().await;
    let backup = Backup::of(trial.stack.store(), kind, &[EVENT_STORE]);
    trial.stack.restart().await;
    trial.answers(50).await;
    trial.stack.stop().await;
    backup.restore(trial.stack.store(), kind).await;
    tally::count(kind, "event store restored older", 1);
    if trial.refuses_until_a_rewind().await {
        trial.rewinds().await;
    }
    trial.answers(20).await;
    trial.ends_well().await;
}

async fn a_service_restored_older_is_refused_in_a_sentence(kind: Kind) {
    let mut trial = Trial::start(kind).await;
    for service in WRITERS {
        trial.answers(5).await;
        trial.stack.stop().await;
        let older = Backup::of(trial.stack.store(), kind, &[service]);
        trial.stack.restart().await;
        trial.answers(10).await;
        trial.stack.stop().await;
        let newer = Backup::of(trial.stack.store(), kind, &[service]);
        older.restore(trial.stack.store(), kind).await;
        tally::count(kind, "service restored older", 1);
        let refused = run(&trial.stack.options.arguments(trial.stack.store())).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        let said = refused.stderr.lines().last().unwrap_or_default();
        let advice = format!("restore {service} from a newer backup");
        assert!(said.contains(&advice), "{advice:?} is not in {said:?}");
        newer.restore(trial.stack.store(), kind).await;
        trial.stack.restart().await;
    }
    trial.answers(20).await;
    trial.ends_well().await;
}

async fn a_house_restored_as_one_goes_on_from_there(kind: Kind) {
    let Trial { mut stack, mut load, world, .. } = Trial::start(kind).await;
    load.answered(50).await;
    let answered = load.stop().await;
    stack.stop().await;
    let everything = [&WRITERS[..], &[EVENT_STORE]].concat();
    let backup = Backup::of(stack.store(), kind, &everything);
    stack.restart().await;
    let customer = &world.customers[0].0;
    for _ in 0..10 {
        stack.order(customer, &[("P-0", 1)]).await;
    }
    stack.stop().await;
    backup.restore(stack.store(), kind).await;
    tally::count(kind, "everything restored from one point", 1);
    stack.restart().await;
    let mut later = Vec::new();
    for _ in 0..10 {
        later.push(stack.order(customer, &[("P-1", 1)]).await);
    }
    let mut orders: BTreeMap<String, Value> = world.balances(&stack).await;
    assert!(orders.values().all(|order| order["status"] == "completed"), "there is enough for all");
    for id in &later {
        assert!(orders.remove(id).is_some(), "{id} was answered and is lost");
    }
    assert_eq!(orders.len(), answered.len(), "what came after the backup is gone");
    each_exists_once(&stack, &answered, &orders).await;
    stack.ends_well().await;
}
