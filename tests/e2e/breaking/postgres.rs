//! A Postgres server of one case's own, which can be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlx::{AnyConnection, Connection as _};

use super::tally;
use crate::support::{Dice, Kind, PATIENCE, signal, until};

/// A running server with an empty database; killed when it goes out of scope.
#[derive(Debug)]
pub(super) struct Postgres {
    data: PathBuf,
    port: u16,
    variables: Vec<(String, String)>,
    server: Option<Child>,
}

/// How it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kill {
    /// One of its processes, upon which it ends all others and recovers by itself.
    One,
    /// All of its processes at once.
    All,
}

impl Postgres {
    /// A server with new data in this folder.
    pub(super) async fn make(folder: &Path) -> Self {
        let data = folder.join("postgres");
        let made = program("initdb")
            .args(["--username=waybill", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .args(["--no-sync", "--pgdata"])
            .arg(&data)
            .current_dir(folder)
            .output();
        let made = made.expect("initdb starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = Self { data, port: free_port(), variables: Vec::new(), server: None };
        server.start().await;
        server
    }

    /// A variable in the environment of the server when it is started the next time.
    pub(super) fn variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it, and waits until it has recovered.
    pub(super) async fn start(&mut self) {
        sqlx::any::install_default_drivers();
        let log = self.data.with_extension("log");
        let log = std::fs::File::options().create(true).append(true).open(log);
        let log = log.expect("a log of the server");
        let settings = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c restart_after_crash=on",
            self.port
        );
        let server = program("postgres")
            .args(settings.split(' '))
            .arg("-D")
            .arg(&self.data)
            .current_dir(&self.data)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.server = Some(server.expect("postgres starts"));
        let ready = until("the server answers, or has ended", PATIENCE * 2, async || {
            let answers = AnyConnection::connect(&self.url()).await.is_ok();
            (answers || self.has_ended()).then_some(answers)
        });
        let ready = ready.await;
        assert!(ready, "the server ended at once; the end of its log:\n{}", self.log());
    }

    /// Whether it is gone by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        let server = self.server.as_mut().expect("it was started");
        server.try_wait().expect("a child of this process").is_some()
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://waybill@127.0.0.1:{}/postgres", self.port)
    }

    /// The last that it told.
    pub(super) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Kills all or one of its processes, without a warning.
    pub(super) async fn kill(&mut self, how: Kill, dice: &mut Dice) {
        let server = self.main_process().expect("it runs");
        let others = children(server);
        match how {
            Kill::One => {
                // One that has ended since has nothing to be killed for.
                let _ = Command::new("kill")
                    .args(["-s", "KILL"])
                    .arg(dice.pick(&others).to_string())
                    .output();
                tally::count(Kind::Postgres, "Postgres: one backend killed", 1);
            }
            Kill::All => {
                self.gone().await;
                tally::count(Kind::Postgres, "Postgres killed", 1);
            }
        }
    }

    /// Kills what there is of it, and waits for the end of every process.
    pub(super) async fn gone(&mut self) {
        let Some(mut started) = self.server.take() else { return };
        if let Some(server) = self.main_process() {
            // Stopped first, it starts no other process meanwhile.
            signal("STOP", &[server]);
            let mut all = children(server);
            all.push(server);
            let ids = all.iter().map(ToString::to_string);
            drop(Command::new("kill").args(["-s", "KILL"]).args(ids).output());
            until("every process of the server has ended", PATIENCE, async || {
                let _ = started.try_wait();
                all.iter().all(|one| has_ended(*one)).then_some(())
            })
            .await;
        }
        started.wait().expect("a child of this process");
    }

    /// Every process of it, the main one first.
    pub(super) fn processes(&self) -> Vec<u32> {
        let main = self.main_process();
        main.into_iter().chain(main.into_iter().flat_map(children)).collect()
    }

    fn main_process(&self) -> Option<u32> {
        let file = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let process = file.lines().next()?.parse().ok()?;
        (!has_ended(process)).then_some(process)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut started) = self.server.take() else { return };
        if let Some(server) = self.main_process() {
            let all = children(server).into_iter().chain([server]).map(|one| one.to_string());
            drop(Command::new("kill").args(["-s", "KILL"]).args(all).output());
        }
        let _ = started.wait();
        if std::thread::panicking() {
            eprintln!("--- the end of the log of Postgres\n{}", self.log());
        }
    }
}

/// One of the programs of the newest Postgres here, as the user that it runs as.
pub(super) fn program(name: &str) -> Command {
    let variable = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is set; `scripts/test faults` does"))
    };
    let user = variable("WAYBILL_TEST_POSTGRES_USER");
    let mut words = user.split_whitespace();
    let mut command = Command::new(words.next().expect("a command that changes the user"));
    let binary = Path::new(&variable("WAYBILL_TEST_POSTGRES_BINARIES")).join(name);
    command.args(words).arg(binary);
    command
}

/// Nobody listens there now, and nobody else is told to.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

/// The processes that this one has started.
fn children(process: u32) -> Vec<u32> {
    let file = format!("/proc/{process}/task/{process}/children");
    let listed = std::fs::read_to_string(file).unwrap_or_default();
    listed.split_whitespace().map(|one| one.parse().expect("a number")).collect()
}

/// Whether there is no such process, or nothing is left of it but its exit code.
fn has_ended(process: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return true };
    // The name before the state stands in brackets.
    status.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}
