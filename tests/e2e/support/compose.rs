//! Servers as containers: what `docker compose up` starts, with every service twice.

use std::sync::OnceLock;

use tokio::sync::{Mutex, MutexGuard};

use super::client::Client;
use super::docker::{Container, Project, REPLICAS, SERVICES, docker, docker_on, try_docker};
use super::options::Options;
use super::process::Ended;
use super::wait::{PATIENCE, until};
use super::world::WRITERS;

/// Lines of each container's log that are shown when its test fails.
const SHOWN: &str = "60";
/// The variables of `compose.yaml` for the options of servers: carrier, packing, transit, deadline.
const VARIABLES: [&str; 4] =
    ["WAYBILL_CARRIER", "WAYBILL_PACKING", "WAYBILL_CARRIER_TRANSIT", "WAYBILL_ORDER_DEADLINE"];
/// The owner of the database, and its name.
const OWNER: &str = "waybill";

/// The stack with fresh data. Postgres and the gateway are kept from case to case; every container
/// of a service begins anew.
#[derive(Debug)]
pub(crate) struct Compose {
    pub(super) project: Project,
    /// Since when its logs are of this case.
    since: String,
    /// There is one stack for all.
    _turn: MutexGuard<'static, ()>,
}

impl Compose {
    /// The stack with these options on a fresh database; where its gateway is.
    pub(super) async fn start(options: &Options) -> (Self, String) {
        static TURN: OnceLock<Mutex<()>> = OnceLock::new();
        let turn = TURN.get_or_init(Mutex::default).lock().await;
        let project = Project::to_test();
        begin_anew(&project).await;
        let since = docker(&["info", "--format", "{{.SystemTime}}"]).await.trim().to_owned();
        let mut compose = Self { project, since, _turn: turn };
        compose.restart(options).await;
        let gateway = compose.project.one("gateway").await;
        (compose, gateway.url().to_owned())
    }

    /// Starts the containers of the services that are named, with these options, and waits until
    /// each is ready and reached through the gateway.
    pub(super) async fn restart(&mut self, options: &Options) {
        let values = [&options.carrier, &options.packing, &options.transit, &options.deadline];
        self.project.variables = VARIABLES.into_iter().zip(values.map(Clone::clone)).collect();
        let services = SERVICES.into_iter().filter(|service| options.runs(service));
        let services: Vec<&str> = services.collect();
        scale(&self.project, &services, REPLICAS).await;
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
        let gateway = Client::new(self.project.one("gateway").await.url().to_owned());
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

pub(super) fn running(containers: Vec<Container>) -> Vec<Container> {
    containers.into_iter().filter(|one| one.state == "running").collect()
}

/// Starts containers so that each of these services has this many.
pub(crate) async fn scale(project: &Project, services: &[&str], replicas: usize) {
    let scales: Vec<String> =
        services.iter().map(|name| format!("--scale={name}={replicas}")).collect();
    let scales: Vec<&str> = scales.iter().map(String::as_str).collect();
    let up = ["up", "--detach", "--no-deps"];
    project.compose(&[&up, &scales[..], services].concat()).await;
}

/// Ends every container of a service, wherever the last case left them, and gives the others an
/// empty database with tables and roles.
async fn begin_anew(project: &Project) {
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
pub(crate) async fn psql(
    project: &Project,
    role: &str,
    database: &str,
    statements: &[&str],
) -> Ended {
    let postgres = project.one("postgres").await.id;
    let connect = ["--username", role, "--dbname", database];
    let psql = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"];
    let commands: Vec<&str> = statements.iter().flat_map(|sql| ["--command", sql]).collect();
    try_docker(&[&["exec", &postgres], &psql[..], &connect, &commands].concat()).await
}
