//! Servers as containers: what `docker compose up` starts, with every service twice.

use std::sync::OnceLock;

use tokio::sync::{Mutex, MutexGuard};

use super::client::Client;
use super::docker::{Container, Project, SERVICES, docker, docker_on, try_docker};
use super::options::Options;
use super::process::Ended;
use super::wait::{PATIENCE, until};
use super::world::WRITERS;

/// Lines of each container's log that are shown when its test fails.
const SHOWN: &str = "60";
/// The variables of `compose.yaml` for the options of servers: carrier, packing, transit, deadline.
const VARIABLES: [&str; 4] =
    ["WAYBILL_CARRIER", "WAYBILL_PACKING", "WAYBILL_CARRIER_TRANSIT", "WAYBILL_ORDER_DEADLINE"];
/// The variable of `tests/compose.yaml` for how often the engine asks a container for its health,
/// and a time that no case reaches.
const HEALTH: (&str, &str) = ("WAYBILL_TEST_HEALTH_INTERVAL", "24h");
/// The owner of the database, and its name.
const OWNER: &str = "waybill";

/// How many containers each service has, where a case does not say otherwise.
const REPLICAS: usize = 2;

/// The stack, which is there once for all cases.
#[derive(Debug)]
pub(crate) struct Compose {
    pub(crate) project: Project,
    /// Since when its logs are of this case.
    since: String,
    _turn: MutexGuard<'static, ()>,
}

impl Compose {
    /// The stack as the last case left it.
    pub(crate) async fn alone() -> Self {
        static TURN: OnceLock<Mutex<()>> = OnceLock::new();
        let turn = TURN.get_or_init(Mutex::default).lock().await;
        let since = docker(&["info", "--format", "{{.SystemTime}}"]).await.trim().to_owned();
        Self { project: Project::to_test(), since, _turn: turn }
    }

    /// The stack with these options and fresh data; where its gateway is. Postgres and the gateway
    /// are kept from case to case; every container of a service begins anew.
    pub(super) async fn start(options: &Options) -> (Self, String) {
        let mut compose = Self::alone().await;
        begin_anew(&compose.project).await;
        compose.restart(options).await;
        let gateway = compose.project.one("gateway").await;
        (compose, gateway.url().to_owned())
    }

    /// `docker compose up` with these further arguments.
    pub(crate) async fn up(&self, arguments: &[&str]) {
        self.project.compose(&[&["up"], arguments].concat()).await;
    }

    /// `docker compose down` with these further arguments.
    pub(crate) async fn down(&self, arguments: &[&str]) {
        self.project.compose(&[&["down"], arguments].concat()).await;
    }

    /// Adds and removes containers until each of these services has this many.
    pub(crate) async fn scale(&self, services: &[&str], replicas: usize) {
        scale(&self.project, services, replicas, &["--no-recreate"]).await;
    }

    /// A client of the gateway.
    pub(crate) async fn gateway(&self) -> Client {
        Client::new(self.project.one("gateway").await.url().to_owned())
    }

    /// Starts the containers of the services that are named, with these options, and waits until
    /// each is ready and reached through the gateway.
    pub(super) async fn restart(&mut self, options: &Options) {
        let values = [&options.carrier, &options.packing, &options.transit, &options.deadline];
        self.project.variables = VARIABLES.into_iter().zip(values.map(Clone::clone)).collect();
        let services = SERVICES.into_iter().filter(|service| options.runs(service));
        let services: Vec<&str> = services.collect();
        scale(&self.project, &services, REPLICAS, &[]).await;
        self.is_ready(options).await;
    }

    async fn is_ready(&self, options: &Options) {
        let replicas = running(self.project.replicas().await);
        for replica in &replicas {
            let client = Client::new(replica.url().to_owned());
            let path = "/readyz?scope=process";
            until(&format!("{} is ready", replica.name), PATIENCE, async || {
                let ask = client.ask(reqwest::Method::GET, path).try_send().await;
                (ask.ok()?.status == 200).then_some(())
            })
            .await;
        }
        let gateway = self.gateway().await;
        for service in WRITERS.into_iter().filter(|service| options.runs(service)) {
            let path = format!("/v1/ops/{service}/outbox");
            until(&format!("the gateway reaches {service}"), PATIENCE, async || {
                (gateway.get(&path).await.status == 200).then_some(())
            })
            .await;
        }
    }

    /// Kills every container of a service. Postgres and the gateway stay.
    pub(super) async fn kill(&self) {
        docker_on(&["kill"], &running(self.project.replicas().await)).await;
    }

    /// Tells every container of a service to stop: each must exit with 0 within 10 s.
    pub(super) async fn stop(&self) {
        let replicas = running(self.project.replicas().await);
        docker_on(&["stop", "--time", "10"], &replicas).await;
        let form = "{{.Name}} {{.State.ExitCode}}";
        let ended = docker_on(&["inspect", "--format", form], &replicas).await;
        assert!(ended.lines().all(|line| line.ends_with(" 0")), "all stop cleanly:\n{ended}");
    }

    /// As the README tells operators to.
    pub(super) async fn verify(&self) -> Ended {
        let run = ["run", "--rm", "--no-deps", "--no-TTY", "migrate", "verify"];
        self.project.try_compose(&run).await
    }

    /// Runs SQL on an owner's tables as the owner of the database; what it said if it failed.
    pub(super) async fn try_execute(&self, owner: &str, sql: &str) -> Result<(), String> {
        let path = format!("set search_path = \"{owner}\"");
        let ended = psql(&self.project, OWNER, OWNER, &[&path, sql]).await;
        if ended.code == Some(0) { Ok(()) } else { Err(ended.stderr) }
    }

    /// What each container of a service counts.
    pub(super) async fn metrics(&self) -> Vec<String> {
        let mut metrics = Vec::new();
        for replica in running(self.project.replicas().await) {
            let client = Client::new(replica.url().to_owned());
            metrics.push(client.get("/metrics").await.expect(200).text);
        }
        metrics
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (project, since) = (self.project.clone(), self.since.clone());
            // A destructor cannot wait within the runtime of the test.
            let showing = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(show_logs(&project, &since));
            });
            if showing.join().is_err() {
                eprintln!("the logs of the containers could not be shown");
            }
        }
    }
}

async fn show_logs(project: &Project, since: &str) {
    for Container { id, name, state, .. } in project.containers().await {
        let log = try_docker(&["logs", "--since", since, "--tail", SHOWN, &id]).await;
        eprintln!("--- the end of the log of {name}, which is {state}");
        eprintln!("{}{}", log.stdout, log.stderr);
    }
}

fn running(containers: Vec<Container>) -> Vec<Container> {
    containers.into_iter().filter(|one| one.state == "running").collect()
}

async fn scale(project: &Project, services: &[&str], replicas: usize, more: &[&str]) {
    let mut project = project.clone();
    project.variables.push((HEALTH.0, HEALTH.1.to_owned()));
    let scales: Vec<String> =
        services.iter().map(|name| format!("--scale={name}={replicas}")).collect();
    let scales: Vec<&str> = scales.iter().map(String::as_str).collect();
    let up = ["up", "--detach", "--no-deps"];
    project.compose(&[&up, more, &scales[..], services].concat()).await;
}

/// Ends every container of a service, wherever the last case left them, and gives the others an
/// empty database with tables and roles.
async fn begin_anew(project: &Project) {
    if project.containers().await.is_empty() {
        project.compose(&["up", "--detach", "--wait"]).await;
    }
    let containers = project.containers().await;
    let paused: Vec<Container> =
        containers.iter().filter(|one| one.state == "paused").cloned().collect();
    docker_on(&["unpause"], &paused).await;
    let replicas = project.replicas().await;
    docker_on(&["kill"], &running(replicas)).await;
    let stays = |one: &&Container| ["postgres", "gateway"].contains(&one.service.as_str());
    if containers.iter().filter(stays).any(|one| one.state != "running") {
        project.compose(&["up", "--detach", "--wait", "--no-deps", "postgres", "gateway"]).await;
    }
    let statements = ["drop database if exists waybill with (force)", "create database waybill"];
    let made = psql(project, OWNER, "postgres", &statements).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let migrate = project.one("migrate").await;
    docker(&["start", "--attach", &migrate.id]).await;
}

/// Runs statements in the container of Postgres, as this role.
async fn psql(project: &Project, role: &str, database: &str, statements: &[&str]) -> Ended {
    let postgres = project.one("postgres").await.id;
    let connect = ["--username", role, "--dbname", database];
    let psql = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"];
    let commands: Vec<&str> = statements.iter().flat_map(|sql| ["--command", sql]).collect();
    try_docker(&[&["exec", &postgres], &psql[..], &connect, &commands].concat()).await
}
