//! What lies between Waybill and Postgres: a wire that is cut, slow, or lets nothing through.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};

use crate::support::{PATIENCE, until};

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From Waybill to the server.
    Asked,
    /// From the server to Waybill.
    Answered,
}

/// What happens to the next transaction that is about to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Its commit never reaches the server: the connection is cut.
    CutBeforeCommit,
    /// The server commits, and the connection is cut before its answer arrives.
    CutAfterCommit,
    /// Holding its turn, it asks for more than fits into any buffer instead of its commit, and stops
    /// in the middle of reading that.
    StopInMidRead,
}

/// What the wire is like.
#[derive(Clone, Copy, Debug, Default)]
struct Condition {
    /// How much later everything arrives.
    delay: Duration,
    /// What goes this way arrives when the wire is mended, as with packets that are lost and sent
    /// again.
    held: Option<Way>,
    /// What goes this way over connections older than this number never arrives.
    silent: Option<(Way, u64)>,
    /// Connections older than this number are cut.
    cut: u64,
    /// Nobody gets a new connection.
    refuses: bool,
    /// What happens next, once.
    plan: Option<Plan>,
    /// How many plans were carried out.
    carried_out: usize,
    /// How many connections there were.
    connections: u64,
}

/// It can be reached at an address of its own.
#[derive(Clone)]
pub(super) struct Wire {
    condition: Arc<watch::Sender<Condition>>,
    url: String,
}

impl Wire {
    /// A wire to the Postgres at this address.
    pub(super) async fn to(url: &str) -> Self {
        let (_, after_user) = url.split_once('@').expect("the address names a user");
        let (host, _) = after_user.split_once('/').expect("the address names a database");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let here = listener.local_addr().expect("it has an address").to_string();
        let wire = Self { condition: Arc::default(), url: url.replace(host, &here) };
        let (end, host) = (wire.clone(), host.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(end.clone().connect(client, host.clone()));
            }
        });
        wire
    }

    /// The address of the server, as seen through the wire.
    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// Cuts every connection.
    pub(super) fn cut(&self) {
        self.condition.send_modify(|now| now.cut = now.connections);
    }

    /// Cuts every connection, and lets nobody connect until it is mended.
    pub(super) fn breaks(&self) {
        self.condition.send_modify(|now| now.refuses = true);
        self.cut();
    }

    /// From now on everything arrives so much later.
    pub(super) fn delays(&self, delay: Duration) {
        self.condition.send_modify(|now| now.delay = delay);
    }

    /// From now on nothing that goes this way arrives, until it is mended.
    pub(super) fn holds(&self, way: Way) {
        self.condition.send_modify(|now| now.held = Some(way));
    }

    /// Nothing that goes this way over the connections of this moment ever arrives. New ones work.
    pub(super) fn silences(&self, way: Way) {
        self.condition.send_modify(|now| now.silent = Some((way, now.connections)));
    }

    /// Everything arrives at once again.
    pub(super) fn mend(&self) {
        self.condition.send_modify(|now| {
            (now.delay, now.held, now.refuses) = (Duration::ZERO, None, false);
        });
    }

    /// Waits until this has happened to a transaction.
    pub(super) async fn carry_out(&self, plan: Plan) {
        let before = self.condition.borrow().carried_out;
        self.condition.send_modify(|now| now.plan = Some(plan));
        until("a transaction meets its fate", PATIENCE, async || {
            (self.condition.borrow().carried_out > before).then_some(())
        })
        .await;
    }

    async fn connect(self, client: TcpStream, host: String) {
        let mut number = 0;
        self.condition.send_modify(|now| {
            now.connections += 1;
            number = now.connections;
        });
        if self.condition.borrow().refuses {
            return;
        }
        let Ok(server) = TcpStream::connect(host).await else { return };
        for end in [&client, &server] {
            end.set_nodelay(true).expect("an open connection");
        }
        let ((client_reads, client_writes), (server_reads, server_writes)) =
            (client.into_split(), server.into_split());
        let mut condition = self.condition.subscribe();
        let line = Line { wire: self, number, fate: Mutex::default() };
        // However a connection ends, both of its sides learn of it by its end.
        tokio::select! {
            _ = line.ask(client_reads, server_writes) => {}
            _ = line.answer(server_reads, client_writes) => {}
            _ = condition.wait_for(|now| now.cut >= number) => {}
        }
    }
}

/// One connection.
struct Line {
    wire: Wire,
    number: u64,
    /// What happens when the server answers.
    fate: Mutex<Option<Plan>>,
}

impl Line {
    async fn ask(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
        let mut chunk = vec![0; 65_536];
        let too_much = query(TOO_MUCH);
        loop {
            let length = from.read(&mut chunk).await?;
            let mut asked = &chunk[..length];
            match self.fate_of(asked) {
                _ if asked.is_empty() => return Ok(()),
                Some(Plan::CutBeforeCommit) => {
                    self.carried_out();
                    return Ok(());
                }
                Some(Plan::StopInMidRead) => {
                    asked = &too_much;
                    *self.fate.lock().await = Some(Plan::StopInMidRead);
                }
                fate => *self.fate.lock().await = fate,
            }
            self.passes(Way::Asked).await;
            to.write_all(asked).await?;
        }
    }

    async fn answer(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
        let mut chunk = vec![0; 65_536];
        loop {
            let length = from.read(&mut chunk).await?;
            if length == 0 {
                return Ok(());
            }
            let fate = *self.fate.lock().await;
            if fate == Some(Plan::StopInMidRead) {
                self.carried_out();
                return std::future::pending().await;
            }
            // What was written before is answered before.
            let ended = chunk[..length].windows(7).any(|text| text == b"COMMIT\0");
            if fate.is_some() && ended {
                self.carried_out();
                return Ok(());
            }
            self.passes(Way::Answered).await;
            to.write_all(&chunk[..length]).await?;
        }
    }

    /// What is to happen to whoever asks this: nothing, unless it is a commit.
    fn fate_of(&self, asked: &[u8]) -> Option<Plan> {
        let asks = |what: &[u8]| asked.windows(what.len()).any(|text| text == what);
        if !asks(b"commit\0") {
            return None;
        }
        // Who begins and commits at once holds no turn before.
        let holds_turn = !asks(b"begin\0");
        // Only one of those who ask for it at the same moment.
        let mut taken = None;
        self.wire.condition.send_modify(|now| {
            if holds_turn || now.plan != Some(Plan::StopInMidRead) {
                taken = now.plan.take();
            }
        });
        taken
    }

    fn carried_out(&self) {
        self.wire.condition.send_modify(|now| now.carried_out += 1);
    }

    /// Returns when something may go on this way.
    async fn passes(&self, way: Way) {
        let mut condition = self.wire.condition.subscribe();
        let mut delay = Duration::ZERO;
        let opened = condition.wait_for(|now| {
            delay = now.delay;
            let silent = now.silent.is_some_and(|(one, older)| one == way && self.number <= older);
            now.held != Some(way) && !silent
        });
        drop(opened.await);
        tokio::time::sleep(delay).await;
    }
}

/// More than fits into any buffer.
const TOO_MUCH: &str = "select repeat('x', 200000000)";

/// A question as Postgres's protocol writes it.
fn query(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).expect("it fits");
    [&b"Q"[..], &length.to_be_bytes(), sql.as_bytes(), b"\0"].concat()
}
