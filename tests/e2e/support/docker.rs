//! The containers of the project that `scripts/test compose` makes, by Docker's command line.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::process::{Ended, ends};

/// The services of Waybill, each with containers of its own.
pub(crate) const SERVICES: [&str; 5] = ["order", "inventory", "logistics", "user", "audit"];
/// How long a command of Docker may take on a busy machine.
const WITHIN: Duration = Duration::from_mins(2);

/// A project of Docker Compose, and the variables that `compose.yaml` is read with. Their values
/// from the environment of the tests hold where there is none here.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    name: String,
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// One container, as it was when it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Its service in `compose.yaml`.
    pub(crate) service: String,
    /// `running`, `paused`, `exited` and so on.
    pub(crate) state: String,
    /// Where its port is published.
    url: Option<String>,
}

impl Container {
    /// Where it serves, if it runs.
    #[track_caller]
    pub(crate) fn url(&self) -> &str {
        self.url.as_deref().unwrap_or_else(|| panic!("no port is published: {self:?}"))
    }
}

impl Project {
    /// The project to test. Its data is deleted, so nobody but `scripts/test` should name one.
    pub(crate) fn to_test() -> Self {
        let name = std::env::var("WAYBILL_TEST_PROJECT");
        let name = name.expect("WAYBILL_TEST_PROJECT is set; `scripts/test compose` does that");
        Self { name, variables: Vec::new() }
    }

    /// `docker compose` with these arguments, whatever comes of it. It reads no `.env`, which is a
    /// person's.
    pub(crate) async fn try_compose(&self, arguments: &[&str]) -> Ended {
        let files = ["--file", "compose.yaml", "--file", "tests/compose.yaml"];
        let project = ["--project-name", &self.name, "--env-file", "/dev/null"];
        let project = [&["compose", "--progress", "quiet"][..], &project].concat();
        let mut command = Command::new("docker");
        command.args(project).args(files).args(arguments);
        // The files name others from where they are.
        command.current_dir(env!("CARGO_MANIFEST_DIR")).envs(self.variables.iter().cloned());
        run(command).await
    }

    /// The same where it must succeed; what it printed.
    pub(crate) async fn compose(&self, arguments: &[&str]) -> String {
        self.try_compose(arguments).await.succeeded(arguments)
    }

    /// Every container of the project, also of those that do not run.
    pub(crate) async fn containers(&self) -> Vec<Container> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let form =
            "{{.ID}}|{{.Names}}|{{.Label \"com.docker.compose.service\"}}|{{.State}}|{{.Ports}}";
        let listed = docker(&["ps", "--all", "--filter", &filter, "--format", form]).await;
        listed.lines().map(read).collect()
    }

    /// Every container of Waybill's services.
    pub(crate) async fn replicas(&self) -> Vec<Container> {
        let all = self.containers().await.into_iter();
        all.filter(|one| SERVICES.contains(&one.service.as_str())).collect()
    }

    /// The one container of this service.
    pub(crate) async fn one(&self, service: &str) -> Container {
        let found = self.containers().await.into_iter().find(|one| one.service == service);
        found.unwrap_or_else(|| panic!("there is no container of {service}"))
    }
}

fn read(line: &str) -> Container {
    let cells: Vec<&str> = line.split('|').collect();
    let [id, name, service, state, ports] = cells[..] else { panic!("not a container: {line}") };
    let published = ports.split(", ").find_map(|port| port.split_once("->"));
    Container {
        id: id.to_owned(),
        name: name.to_owned(),
        service: service.to_owned(),
        state: state.to_owned(),
        url: published.map(|(address, _)| format!("http://{address}")),
    }
}

impl Ended {
    /// What it printed, if it succeeded.
    #[track_caller]
    fn succeeded(self, arguments: &[&str]) -> String {
        assert_eq!(self.code, Some(0), "docker {}: {self:?}", arguments.join(" "));
        self.stdout
    }
}

/// A command of Docker, whatever comes of it.
pub(crate) async fn try_docker(arguments: &[&str]) -> Ended {
    let mut command = Command::new("docker");
    command.args(arguments);
    run(command).await
}

/// Runs a command of Docker. An engine that left one without an answer will leave the next one so,
/// and there are hundreds: they fail at once.
async fn run(command: Command) -> Ended {
    static UNANSWERED: OnceLock<String> = OnceLock::new();
    let shown = format!("{command:?}");
    if let Some(earlier) = UNANSWERED.get() {
        panic!("the engine hangs: {earlier} had no answer; not tried: {shown}");
    }
    let ended = ends(command, WITHIN).await;
    ended.unwrap_or_else(|| panic!("not within {WITHIN:?}: {}", UNANSWERED.get_or_init(|| shown)))
}

/// A command of Docker that must succeed; what it printed.
pub(crate) async fn docker(arguments: &[&str]) -> String {
    try_docker(arguments).await.succeeded(arguments)
}

/// The same about these containers, if there are any.
pub(crate) async fn docker_on(arguments: &[&str], containers: &[Container]) -> String {
    if containers.is_empty() {
        return String::new();
    }
    let ids = containers.iter().map(|container| container.id.as_str());
    docker(&arguments.iter().copied().chain(ids).collect::<Vec<_>>()).await
}
