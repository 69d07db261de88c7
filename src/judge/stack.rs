//! A deployment of the judge's own, to be broken: processes of this executable on fresh data.

use std::iter;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::Url;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use waybill_runtime::{Clock, Ids};

use super::CannotJudge;
use super::dice::Dice;
use super::scratch::Scratch;
use crate::readiness::Asker;

/// How long a process may take to be ready.
const READY: Duration = Duration::from_mins(1);
/// How long one question whether it is ready may take.
const ASKING: Duration = Duration::from_secs(2);
/// How long a process may take to end when it is told to.
const STOP: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
/// How often a port is looked for that is free.
const PORTS_TRIED: u32 = 100;
/// Below those that systems hand out for outgoing connections.
const PORTS: (u64, u64) = (20_000, 31_999);
/// On Postgres each has a process of its own; the last answers for the event store.
const SERVICES: [&str; 5] = ["order", "inventory", "logistics", "user", "audit"];
/// Orders that nobody confirms for so long are cancelled, so that a run sees that too.
const DEADLINE: &str = "30s";

/// Processes on fresh data. Killed, and the data removed, when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Stack {
    /// Dropped before the data.
    processes: Vec<Process>,
    database: Option<Scratch>,
    folder: TempDir,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    /// What runs in it; everything if nothing is named.
    service: Option<&'static str>,
    port: u16,
    child: Option<Child>,
    executable: PathBuf,
    log: PathBuf,
    data: (&'static str, String),
    clock: Clock,
}

impl Stack {
    /// Prepares fresh data: a folder, or a database on the server of this address. Nothing runs.
    pub(crate) async fn prepare(
        database_url: Option<&str>,
        clock: &Clock,
        ids: &Ids,
        dice: &mut Dice,
    ) -> Result<Self, CannotJudge> {
        let folder = tempfile::Builder::new().prefix("waybill-judge-").tempdir()?;
        let executable = std::env::current_exe()?;
        let name = format!("waybill_judge_{}", ids.next().simple());
        let database = match database_url {
            Some(url) => Some(Scratch::make(url, &name).await?),
            None => None,
        };
        let data = match &database {
            Some(database) => ("WAYBILL_DATABASE_URL", database.url.clone()),
            None => ("WAYBILL_DATA_DIR", folder.path().join("data").display().to_string()),
        };
        // The files of a folder are for one process at a time.
        let services: Vec<Option<&'static str>> = match &database {
            Some(_) => SERVICES.into_iter().map(Some).collect(),
            None => vec![None],
        };
        let mut stack = Self { processes: Vec::new(), database, folder };
        for service in services {
            let log = stack.folder.path().join(format!("{}.log", service.unwrap_or("waybill")));
            let port = stack.free_port(dice).await?;
            stack.processes.push(Process {
                service,
                port,
                child: None,
                executable: executable.clone(),
                log,
                data: data.clone(),
                clock: clock.clone(),
            });
        }
        Ok(stack)
    }

    /// A port that nobody uses, and none of these processes will.
    async fn free_port(&self, dice: &mut Dice) -> Result<u16, CannotJudge> {
        for _ in 0..PORTS_TRIED {
            let port = u16::try_from(dice.between(PORTS.0, PORTS.1)).unwrap_or_default();
            let taken = self.processes.iter().any(|process| process.port == port);
            if !taken && TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
                return Ok(port);
            }
        }
        Err(CannotJudge::NoPort)
    }

    /// The service and address of each process that hosts one service only.
    pub(crate) fn apart(&self) -> Vec<(String, String)> {
        let named = |process: &Process| Some((process.service?.to_owned(), process.url()));
        self.processes.iter().filter_map(named).collect()
    }

    /// The address that answers for the event store.
    pub(crate) fn url(&self) -> String {
        self.processes.last().map_or_else(String::new, Process::url)
    }

    /// Starts every process that does not run, and waits until all are ready.
    pub(crate) async fn start(&mut self, dice: &mut Dice) -> Result<(), CannotJudge> {
        for process in &mut self.processes {
            process.start(dice)?;
        }
        for process in &mut self.processes {
            process.ready(dice).await?;
        }
        Ok(())
    }

    /// One of its processes.
    pub(crate) fn one(&mut self, dice: &mut Dice) -> Option<&mut Process> {
        let indices: Vec<usize> = (0..self.processes.len()).collect();
        self.processes.get_mut(*dice.pick(&indices)?)
    }

    /// All of its processes.
    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut Process> {
        self.processes.iter_mut()
    }

    /// The database, where it is Postgres.
    pub(crate) fn database(&self) -> Option<&Scratch> {
        self.database.as_ref()
    }

    /// Stops every process with a warning, then proves the data: what `waybill verify` finds wrong.
    pub(crate) async fn prove(&mut self) -> Result<Option<String>, CannotJudge> {
        for process in &mut self.processes {
            process.stop().await?;
        }
        let Some(process) = self.processes.first() else { return Ok(None) };
        let mut verify = process.command();
        let output = verify.arg("verify").stderr(Stdio::piped()).output().await?;
        if output.status.success() {
            return Ok(None);
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Ok(Some(said.lines().last().unwrap_or_default().to_owned()))
    }

    /// Kills what runs and keeps logs and data for whoever wants to look; where they are.
    pub(crate) fn keep(mut self) -> Vec<String> {
        self.processes.clear();
        let folder = self.folder.keep().display().to_string();
        let database = self.database.map(|database| format!("the database {}", database.name));
        iter::once(folder).chain(database).collect()
    }

    /// Kills what runs and keeps the logs alone.
    pub(crate) async fn keep_logs(mut self) -> Result<(), CannotJudge> {
        self.end().await?;
        self.folder.disable_cleanup(true);
        Ok(())
    }

    /// Kills what runs and removes everything.
    pub(crate) async fn remove(mut self) -> Result<(), CannotJudge> {
        self.end().await?;
        Ok(self.folder.close()?)
    }

    async fn end(&mut self) -> Result<(), CannotJudge> {
        for process in &mut self.processes {
            process.kill().await?;
        }
        if let Some(database) = &self.database {
            database.remove().await?;
        }
        Ok(())
    }
}

impl Process {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// This executable on the data, and nothing else of the environment that it would heed.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        for (name, _) in std::env::vars_os() {
            let prefixes = ["WAYBILL_", "OTEL_"];
            if prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        let (variable, data) = &self.data;
        command.env_remove("RUST_LOG").env("NO_COLOR", "1").env(variable, data);
        // A group of its own: Ctrl-C is for the judge, who then cleans up.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        command
    }

    /// Starts it if it does not run; parcels are carried by itself or by the judge, as it falls.
    pub(crate) fn start(&mut self, dice: &mut Dice) -> Result<(), CannotJudge> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let carrier = if dice.percent(50) { "simulated" } else { "manual" };
        let packing = format!("{}ms", dice.between(0, 200));
        let mut command = self.command();
        command
            .arg("serve")
            .args(self.service)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--carrier", carrier, "--packing", &packing, "--carrier-transit", "300ms"]);
        command.args(["--order-deadline", DEADLINE]).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Waits until it can do its work; one that ends meanwhile, as when connections are cut while
    /// it starts, is started again.
    pub(crate) async fn ready(&mut self, dice: &mut Dice) -> Result<(), CannotJudge> {
        let not_ready =
            |why: String, log: &Path| CannotJudge::NotReady { why, log: log.to_owned() };
        let asker = Asker::new(ASKING).map_err(|error| not_ready(error.to_string(), &self.log))?;
        let url = self.url();
        let server = Url::parse(&url).map_err(|error| not_ready(error.to_string(), &self.log))?;
        let began = self.clock.now();
        loop {
            let Err(why) = asker.ask(&server).await else { return Ok(()) };
            if self.clock.now().since(began) > READY {
                return Err(not_ready(why.to_string(), &self.log));
            }
            if let Some(child) = &mut self.child
                && child.try_wait()?.is_some()
            {
                self.child = None;
                self.start(dice)?;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends it without a warning, as `kill -9` does.
    pub(crate) async fn kill(&mut self) -> Result<(), CannotJudge> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends it as `kill` does, and waits for its clean end.
    pub(crate) async fn stop(&mut self) -> Result<(), CannotJudge> {
        self.signal(Signal::TERM)?;
        if let Some(mut child) = self.child.take() {
            let ended = tokio::time::timeout(STOP, child.wait()).await;
            let status =
                ended.map_err(|_| CannotJudge::DoesNotStop { log: self.log.clone() })??;
            if !status.success() {
                return Err(CannotJudge::DoesNotStop { log: self.log.clone() });
            }
        }
        Ok(())
    }

    /// It does nothing, until it goes on.
    pub(crate) fn pause(&self) -> Result<(), CannotJudge> {
        self.signal(Signal::STOP)
    }

    /// It goes on.
    pub(crate) fn go_on(&self) -> Result<(), CannotJudge> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), CannotJudge> {
        let id = self.child.as_ref().and_then(Child::id);
        let id = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            kill_process(id, signal).map_err(std::io::Error::from)?;
        }
        Ok(())
    }
}
