use std::path::Path;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::sql::{self, File, Server};

/// Connections to a file.
fn to_file(file: &Path, size: u16) -> Connections {
    let target = Target::Sqlite(File(file.to_owned()));
    let settings = "pragma journal_mode = wal".to_owned();
    let (trusted, kept) = (Duration::MAX, Duration::MAX);
    Connections::new(Plan { target, settings, size, trusted, kept })
}

/// Between this test and a Postgres server.
struct Wire {
    connections: Connections,
    /// Nothing goes over the first so many connections any more, and nobody says so.
    silent: watch::Sender<usize>,
}

impl Wire {
    async fn new(size: u16) -> Self {
        let url = std::env::var("WAYBILL_TEST_DATABASE_URL")
            .expect("it names a Postgres to test with; `scripts/test` starts one");
        let (_, after_user) = url.split_once('@').unwrap();
        let host = after_user.split_once('/').unwrap().0.to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let server = Server::at(&url.replace(&host, &here).parse().unwrap()).unwrap();
        let target = Target::Postgres(server);
        let (silent, told) = watch::channel(0);
        tokio::spawn(async move {
            for number in 1.. {
                let (mut client, _) = listener.accept().await.unwrap();
                let (host, mut told) = (host.clone(), told.clone());
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(host).await.unwrap();
                    let ended = tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => true,
                        _ = told.wait_for(|silent| number <= *silent) => false,
                    };
                    if !ended {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        let (trusted, kept) = (limits::IDLE_TRUSTED, limits::IDLE_KEPT);
        let plan = Plan { target, settings: String::new(), size, trusted, kept };
        Self { connections: Connections::new(plan), silent }
    }

    /// All of them, each in use, as a statement on it shows.
    async fn acquire_all(&self) -> Vec<Lent> {
        let mut all = Vec::new();
        for _ in 0..self.connections.0.plan.size {
            let mut lent = self.connections.acquire().await.unwrap();
            assert_eq!(one(&mut lent).await, 1);
            all.push(lent);
        }
        all
    }
}

async fn one(connection: &mut Connection) -> i64 {
    sql::query("select cast(1 as bigint)").fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn connections_that_fall_silent_while_they_are_given_back_do_not_keep_their_places() {
    let wire = Wire::new(3).await;
    for round in 1..=2 {
        let lent = wire.acquire_all().await;
        wire.silent.send_replace(3 * round);
        drop(lent);
        // Whoever waits is lent a place as soon as one is free.
        let all = wire.acquire_all().await;
        all.into_iter().for_each(Lent::give_back);
    }
}

#[tokio::test]
async fn transactions_that_fall_silent_do_not_keep_their_places() {
    let wire = Wire::new(1).await;
    let (transaction, _) = wire.connections.begin(vec![plain("begin")]).await.unwrap();
    wire.silent.send_replace(1);
    let committing = timeout(Duration::from_millis(100), transaction.commit(Vec::new())).await;
    assert!(committing.is_err(), "there is no answer");
    wire.acquire_all().await;
}

#[tokio::test]
async fn connections_that_fell_silent_while_nobody_used_them_are_not_lent() {
    let wire = Wire::new(2).await;
    wire.acquire_all().await.into_iter().for_each(Lent::give_back);
    wire.silent.send_replace(2);
    tokio::time::sleep(limits::IDLE_TRUSTED).await;
    wire.acquire_all().await;
}

#[tokio::test]
async fn a_connection_that_is_given_back_is_lent_again() {
    let wire = Wire::new(2).await;
    let mut lent = wire.connections.acquire().await.unwrap();
    plain("set application_name = 'this one'").execute(&mut lent).await.unwrap();
    lent.give_back();
    let mut again = wire.connections.acquire().await.unwrap();
    let name: String = sql::query("show application_name").fetch_one(&mut again).await.unwrap();
    assert_eq!(name, "this one");
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let connections = to_file(&folder.path().join("file.db"), 1);
    for _ in 0..3 {
        let (mut transaction, _) = connections.begin(vec![plain("begin immediate")]).await.unwrap();
        plain("create table t (a bigint)").execute(&mut transaction).await.unwrap();
    }
    // Given up half-way, too: it is asked once, and not waited for.
    drop(timeout(Duration::ZERO, connections.begin(vec![plain("begin immediate")])).await);
    let (transaction, _) = connections.begin(vec![plain("begin immediate")]).await.unwrap();
    transaction.commit(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn what_is_closed_waits_for_what_is_lent_and_lends_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let connections = to_file(&folder.path().join("file.db"), 2);
    let (mut transaction, _) = connections.begin(vec![plain("begin immediate")]).await.unwrap();
    let closing = tokio::spawn({
        let connections = connections.clone();
        async move { connections.close().await }
    });
    plain("create table t (a bigint)").execute(&mut transaction).await.unwrap();
    transaction.commit(Vec::new()).await.unwrap();
    closing.await.unwrap();
    assert!(!folder.path().join("file.db-wal").exists(), "its contents are in the file");
    let refused = connections.acquire().await.unwrap_err();
    assert!(matches!(refused, Error::Closed), "{refused}");
}

#[test]
fn a_connection_may_be_dropped_after_the_end_of_its_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let connections = to_file(&folder.path().join("file.db"), 1);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lent = runtime().block_on(connections.acquire()).unwrap();
    drop(lent);
    runtime().block_on(async {
        assert_eq!(one(&mut connections.acquire().await.unwrap()).await, 1);
    });
}
