//! One running `waybill`, and every way to end it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::wait::{PATIENCE, until};

/// How long a server may take to end when it is told to.
const STOP: Duration = Duration::from_secs(10);
/// Lines of a server's log that are shown when its test fails.
const SHOWN: usize = 300;

/// A server process; killed when it goes out of scope, and its log shown if its test failed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    name: String,
}

impl Process {
    /// Starts it; its address is known when this returns.
    pub(crate) async fn serve(arguments: &[String]) -> (Self, String) {
        Self::serve_with(arguments, &[]).await
    }

    /// The same with these variables in its environment.
    pub(crate) async fn serve_with(
        arguments: &[String],
        variables: &[(String, String)],
    ) -> (Self, String) {
        let (process, served) = Self::try_serve(arguments, variables).await;
        match served {
            Ok(url) => (process, url),
            Err(status) => panic!("the server ended at once, with {status}"),
        }
    }

    /// The same for one that may end before it serves; with what, if it does.
    pub(crate) async fn try_serve(
        arguments: &[String],
        variables: &[(String, String)],
    ) -> (Self, Result<String, ExitStatus>) {
        let mut process = Self::spawn(arguments, variables);
        let served = until("the server says where it serves", PATIENCE, async || {
            let ended = process.child.try_wait().expect("a child of this process");
            let served = || process.log().iter().find_map(|line| served_at(line));
            ended.map(Err).or_else(|| served().map(Ok))
        })
        .await;
        (process, served)
    }

    /// Starts it; whether and where it serves is not known yet.
    pub(crate) fn spawn(arguments: &[String], variables: &[(String, String)]) -> Self {
        let mut child = executable(arguments)
            .envs(variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, lines) = (child.stderr.take().expect("it is piped"), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("no thread panics with it").push(line);
            }
        });
        Self { child, log, name: arguments.join(" ") }
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("no thread panics with it").clone()
    }

    /// Kills it without a warning, as `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.ended().await;
    }

    /// Stops it with SIGTERM, which must be clean.
    pub(crate) async fn stop(&mut self) {
        self.terminate();
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "the server stops cleanly");
    }

    /// Asks it to stop, as `kill` does.
    pub(crate) fn terminate(&self) {
        signal("TERM", &[self.id()]);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an end that nobody told it to come to.
    pub(crate) async fn ended_by_itself(&mut self) -> ExitStatus {
        until("the server ends by itself", PATIENCE, async || {
            self.child.try_wait().expect("a child of this process")
        })
        .await
    }

    /// Whether it runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child of this process").is_none()
    }

    /// Waits for its end after it was told to.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        until("the server ends when it is told to", STOP, async || {
            self.child.try_wait().expect("a child of this process")
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("--- the end of the log of waybill {}", self.name);
            for line in log.iter().skip(log.len().saturating_sub(SHOWN)) {
                eprintln!("{line}");
            }
        }
    }
}

/// Sends a signal to these processes, all of which must be there.
pub(crate) fn signal(name: &str, processes: &[u32]) {
    let ids = processes.iter().map(ToString::to_string);
    let kill = "kill -s \"$0\" \"$@\"".to_owned();
    let sent = Command::new("sh").args(["-c".to_owned(), kill, name.to_owned()]).args(ids).status();
    assert!(sent.expect("a shell starts").success(), "SIG{name} reaches {processes:?}");
}

/// What a command that ended left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command of the executable to its end.
pub(crate) async fn run(arguments: &[String]) -> Ended {
    finish(executable(arguments), PATIENCE).await
}

/// The same with these variables in its environment.
pub(crate) async fn run_with(arguments: &[String], variables: &[(&str, &str)]) -> Ended {
    let mut command = executable(arguments);
    command.envs(variables.iter().copied());
    finish(command, PATIENCE).await
}

/// Runs a command to its end, which must come within this time.
pub(crate) async fn finish(command: Command, within: Duration) -> Ended {
    let shown = format!("{command:?}");
    let ended = ends(command, within).await;
    ended.unwrap_or_else(|| panic!("not within {within:?}: {shown}"))
}

/// The same; none if that takes longer.
pub(crate) async fn ends(command: Command, within: Duration) -> Option<Ended> {
    let shown = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(within, output).await.ok()?;
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Some(Ended { code: output.status.code(), stdout, stderr })
}

/// The executable with nothing from the environment of the tests that it would heed.
pub(crate) fn executable(arguments: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waybill"));
    for (name, _) in std::env::vars_os() {
        let prefixes = ["WAYBILL_", "OTEL_"];
        if prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env("NO_COLOR", "1").args(arguments);
    command
}

fn served_at(line: &str) -> Option<String> {
    let (_, serving) = line.split_once("serving ")?;
    let (_, address) = serving.split_once(" on http://")?;
    Some(format!("http://{}", address.trim()))
}
