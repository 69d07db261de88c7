//! Want of file descriptors, and a data folder that somebody else has.

use std::process::Command;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Trial, tally};
use crate::support::{Kind, PATIENCE, run, until};

breaking_both!(without_file_descriptors_nothing_is_lost_and_afterwards_all_is_well);

/// Connections that nobody needs.
const IDLE: usize = 60;
/// File descriptors that are left to a process when it becomes short of them.
const LEFT: usize = 2;
const ROUNDS: usize = 3;

/// How many files the process may open from now on; the number of those it has open otherwise.
fn limit_files(process: u32, most: Option<usize>) {
    let most = most.map_or_else(|| "20000".to_owned(), |most| most.to_string());
    let limited = Command::new("prlimit")
        .arg(format!("--pid={process}"))
        .arg(format!("--nofile={most}:20000"))
        .status();
    assert!(limited.expect("prlimit starts").success(), "{process} may open {most} files");
}

fn open_files(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").count()
}

async fn without_file_descriptors_nothing_is_lost_and_afterwards_all_is_well(kind: Kind) {
    let mut trial = Trial::start(kind).await;
    for _ in 0..ROUNDS {
        trial.answers(20).await;
        let process = trial.stack.process().id();
        limit_files(process, Some(open_files(process) + LEFT));
        let address = trial.stack.url("").replace("http://", "");
        let mut idle = Vec::new();
        for _ in 0..IDLE {
            idle.push(TcpStream::connect(&address).await.expect("the system takes it"));
        }
        until("nothing can be opened any more", PATIENCE, async || {
            let log = trial.stack.process().log();
            log.iter().any(|line| line.contains("Too many open files")).then_some(())
        })
        .await;
        tally::count(kind, "file descriptors exhausted", 1);
        if kind == Kind::Postgres {
            // So that connections to the database are wanted too.
            trial.stack.store().goes_away().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            trial.stack.store().comes_back().await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(idle);
        limit_files(process, None);
        trial.stack.ready().await;
        trial.answers(20).await;
    }
    trial.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `scripts/test faults` prepares"]
async fn a_data_folder_is_refused_while_another_process_has_it_and_free_once_that_is_killed() {
    let mut trial = Trial::start(Kind::Sqlite).await;
    for _ in 0..ROUNDS {
        trial.answers(10).await;
        let second = run(&trial.stack.options.arguments(trial.stack.store())).await;
        assert_eq!(second.code, Some(2), "{second:?}");
        assert!(second.stderr.contains("in use by another process"), "{second:?}");
        tally::count(Kind::Sqlite, "data folder in use by another process", 1);
        trial.answers(10).await;
        trial.stack.kill().await;
        trial.stack.restart().await;
    }
    trial.ends_well().await;
}
