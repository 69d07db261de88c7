//! The executable under test, and its processes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::http::Client;
use crate::place::Place;
use crate::stopwatch::Stopwatch;

/// The folder of the workspace.
pub(crate) const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// How long a server may take to begin or to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(1);
/// Lines of a server's log that are shown when it fails.
const SHOWN: usize = 20;

/// The executable `waybill`, built as it is released.
#[derive(Clone, Debug)]
pub(crate) struct Waybill(PathBuf);

/// What cargo says of something that it built.
#[derive(Debug, Deserialize)]
struct Built {
    executable: Option<PathBuf>,
}

impl Waybill {
    /// Builds it, where it is not built yet.
    pub(crate) fn build() -> anyhow::Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        for (name, _) in std::env::vars_os() {
            // Set by `cargo run`; build scripts that look at them would run again, for minutes.
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name);
            }
        }
        let built = command
            .args(["build", "--release", "--locked", "--quiet", "--package", "waybill"])
            .args(["--bin", "waybill", "--message-format", "json-render-diagnostics"])
            .current_dir(WORKSPACE)
            .stderr(Stdio::inherit())
            .output()
            .context("cargo does not start")?;
        ensure!(built.status.success(), "the executable cannot be built");
        let messages = String::from_utf8(built.stdout)?;
        let executable = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Built>(line).ok()?.executable)
            .next_back();
        Ok(Self(executable.context("cargo built no executable")?))
    }

    /// How large it is, in bytes.
    pub(crate) fn size(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(&self.0)?.len())
    }

    /// Runs a command of it to its end; how long that took.
    pub(crate) fn run(&self, arguments: &[&str], place: &Place) -> anyhow::Result<Duration> {
        let watch = Stopwatch::start();
        let ended = self.command().args(arguments).args(place.arguments()).output()?;
        let took = watch.elapsed();
        ensure!(
            ended.status.success(),
            "waybill {}: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr)
        );
        Ok(took)
    }

    /// Serves until it is stopped; it is ready when this returns.
    pub(crate) async fn serve(&self, arguments: &[&str], place: &Place) -> anyhow::Result<Server> {
        let watch = Stopwatch::start();
        let child = self
            .command()
            .arg("serve")
            .args(arguments)
            .args(["--listen", "127.0.0.1:0", "--packing", "0s", "--carrier-transit", "0s"])
            .args(place.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut server = Server {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log: Arc::default(),
            start_up: Duration::ZERO,
        };
        server.follow_log();
        server.address = server.wait_for_address().await?;
        server.wait_until_ready().await?;
        server.start_up = watch.elapsed();
        Ok(server)
    }

    /// With nothing from the environment of the benches that it would heed.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        for (name, _) in std::env::vars_os() {
            let prefixes = ["WAYBILL_", "OTEL_", "RUST_LOG"];
            if prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.env("NO_COLOR", "1");
        command
    }
}

/// A server; killed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// From its start to the first answer that it is ready.
    pub(crate) start_up: Duration,
}

impl Server {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it as an operator does: queues are drained, outboxes relayed.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let id = self.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status()?;
        ensure!(told.success(), "the server cannot be told to stop");
        let watch = Stopwatch::start();
        while watch.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended with {status}:\n{}", self.last_words());
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        bail!("the server does not stop")
    }

    fn follow_log(&mut self) {
        let (stderr, log) = (self.child.stderr.take(), Arc::clone(&self.log));
        std::thread::spawn(move || {
            let lines = stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines());
            for line in lines.map_while(Result::ok) {
                log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
    }

    async fn wait_for_address(&mut self) -> anyhow::Result<SocketAddr> {
        let watch = Stopwatch::start();
        while watch.elapsed() < PATIENCE {
            let served = {
                let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
                log.iter().find_map(|line| line.split_once(" on http://")?.1.trim().parse().ok())
            };
            if let Some(address) = served {
                return Ok(address);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at once, with {status}:\n{}", self.last_words());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("the server does not say where it serves:\n{}", self.last_words())
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        while watch.elapsed() < PATIENCE {
            let mut client = Client::connect(self.address).await?;
            if client.get("/readyz").await?.status == 200 {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("the server does not get ready:\n{}", self.last_words())
    }

    fn last_words(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log[log.len().saturating_sub(SHOWN)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
