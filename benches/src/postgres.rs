//! The Postgres server that the benches run on, which `scripts/test` starts for them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};

use crate::figure::Latencies;
use crate::process::WORKSPACE;
use crate::usage::{self, Usage};

/// Names the database that the tests, and the benches, may fill as they like.
const VARIABLE: &str = "WAYBILL_TEST_DATABASE_URL";
/// What to put before the server's own programs, where they are not on this machine.
const PROGRAMS: &str = "WAYBILL_TEST_POSTGRES_PROGRAMS";
/// Where packages put them, beside the search path.
const FOLDERS: [&str; 3] = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"];

/// Whether a server is named already.
pub(crate) fn is_provided() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Runs this program again beside a server that is started for it, and stopped in the end.
pub(crate) fn run_beside_one() -> anyhow::Result<ExitCode> {
    let status = Command::new(Path::new(WORKSPACE).join("scripts/test"))
        .args(["--postgres-only", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The server.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    url: String,
    /// Its first process, if it runs on this machine.
    process: Option<u32>,
}

impl Postgres {
    /// The server that the environment names.
    pub(crate) async fn provided() -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let url = std::env::var(VARIABLE).context(VARIABLE)?;
        let mut connection = AnyConnection::connect(&url).await?;
        let row = sqlx::query("select pg_backend_pid()").fetch_one(&mut connection).await?;
        let backend: i32 = row.try_get(0)?;
        connection.close().await?;
        let process = u32::try_from(backend).ok();
        let process = process.and_then(|backend| usage::parent_named(backend, "postgres"));
        Ok(Self { url, process })
    }

    /// Runs statements on its own database.
    pub(crate) async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let mut connection = AnyConnection::connect(&self.url).await?;
        // Put together from the benches' own texts only.
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// The address of a database of it.
    pub(crate) fn url_of(&self, name: &str) -> anyhow::Result<String> {
        let (base, rest) = self.url.rsplit_once('/').context("an address ends in a database")?;
        let options = rest.split_once('?').map_or_else(String::new, |(_, o)| format!("?{o}"));
        Ok(format!("{base}/{name}{options}"))
    }

    /// What all its processes took so far.
    pub(crate) fn usage(&self) -> Option<Usage> {
        usage::of_family(self.process?)
    }
}

/// What `pgbench` says of a run.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    /// Transactions per second.
    pub(crate) rate: f64,
    /// How long they took; nothing where its log is out of reach.
    pub(crate) times: Option<Latencies>,
}

/// Runs a script of one transaction again and again, with this many clients.
pub(crate) fn pgbench(
    url: &str,
    script: &str,
    variables: &[(&str, &str)],
    clients: usize,
    run: Duration,
) -> anyhow::Result<Raw> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("script.sql");
    std::fs::write(&file, script)?;
    let (mut command, is_here) = pgbench_command(&file)?;
    let threads = std::thread::available_parallelism()?.get().min(clients);
    command
        .args(["--no-vacuum", "--protocol=prepared"])
        .args([format!("--client={clients}"), format!("--jobs={threads}")])
        .arg(format!("--time={}", run.as_secs().max(1)));
    for (name, value) in variables {
        command.arg(format!("--define={name}={value}"));
    }
    let prefix = folder.path().join("log");
    if is_here {
        command.arg("--log").arg(format!("--log-prefix={}", prefix.display()));
    }
    let script = std::fs::File::open(&file)?;
    let ended = command.arg(url).stdin(script).output().context("pgbench does not start")?;
    let said = String::from_utf8_lossy(&ended.stdout);
    ensure!(ended.status.success(), "pgbench: {}", String::from_utf8_lossy(&ended.stderr));
    let rate = |line: &str| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok();
    let rate = said.lines().find_map(rate);
    let times = times(folder.path())?;
    let rate = rate.context("pgbench tells no rate")?;
    Ok(Raw { rate, times: (times.count() > 0).then_some(times) })
}

/// The program, and whether it runs on this machine. The script is its input.
fn pgbench_command(script: &Path) -> anyhow::Result<(Command, bool)> {
    let programs = std::env::var(PROGRAMS).unwrap_or_default();
    let mut words = programs.split_whitespace();
    let Some(first) = words.next() else {
        let mut command = Command::new(find_pgbench().context("pgbench is not installed")?);
        command.arg("--file").arg(script);
        return Ok((command, true));
    };
    let mut command = Command::new(first);
    command.args(words).args(["pgbench", "--file", "-"]);
    Ok((command, false))
}

fn find_pgbench() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).map(|folder| folder.join("pgbench"));
    let mut packaged: Vec<PathBuf> = FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/pgbench")))
        .collect();
    packaged.sort();
    packaged.into_iter().rev().chain(named).find(|file| file.is_file())
}

/// The times of all transactions in the logs of a run.
fn times(folder: &Path) -> anyhow::Result<Latencies> {
    let mut times = Latencies::new()?;
    for entry in std::fs::read_dir(folder)? {
        let file = entry?;
        if file.file_name().to_string_lossy().starts_with("log.") {
            let text = std::fs::read_to_string(file.path())?;
            // Client, number, time, …
            let third = |line: &str| line.split(' ').nth(2)?.parse().ok();
            text.lines().filter_map(third).for_each(|micros| times.record(micros));
        }
    }
    Ok(times)
}
