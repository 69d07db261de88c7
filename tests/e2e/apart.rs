//! Services and the event store on Postgres servers of their own: processes are killed and servers
//! go away, and nothing that was answered is lost or doubled.

use std::time::Duration;

use crate::load::{Load, each_exists_once};
use crate::support::{Client, Options, Process, Server, Store, World, run, until};

const ALL: [&str; 5] = ["order", "inventory", "logistics", "user", "audit"];
const CLIENTS: usize = 8;
/// How long each client waits before its next order.
const PAUSE: Duration = Duration::from_millis(40);

/// Two processes: one of a service that has its tables on the second server, and one of all others,
/// which have theirs on the first. Fields are dropped in their order: processes before their data.
struct Apart {
    client: Client,
    one: Host,
    others: Host,
    first: Store,
    second: Store,
}

/// A process, and what it was started with.
struct Host {
    process: Process,
    services: Vec<&'static str>,
    data: Vec<String>,
    /// Asks this process for everything.
    client: Client,
}

impl Host {
    async fn start(services: Vec<&'static str>, data: Vec<String>) -> Self {
        let arguments = Options::default().services(&services).arguments_at(data.clone());
        let (process, url) = Process::serve(&arguments).await;
        let client = Client::new(url);
        client.ready().await;
        Self { process, services, data, client }
    }

    /// It is killed without a warning and started anew.
    async fn crash(&mut self) {
        self.process.kill().await;
        *self = Self::start(self.services.clone(), self.data.clone()).await;
    }

    async fn says_that_it_is_not_ready(&self) {
        until("the process says that it is not ready", Duration::from_secs(5), async || {
            (self.client.get("/readyz").await.status == 503).then_some(())
        })
        .await;
    }

    /// Each service agrees with its own outbox, and the event store with that.
    async fn verify(&self) {
        for service in self.services.iter().filter(|service| **service != "audit") {
            let verify = ["verify".to_owned(), (*service).to_owned()];
            let verified = run(&[&verify[..], &self.data].concat()).await;
            assert_eq!(verified.code, Some(0), "{verified:?}");
            assert_eq!(verified.stdout.matches("  agree\n").count(), 2, "{verified:?}");
        }
    }
}

impl Apart {
    /// `service` has its tables on the second server; this server has the event store.
    async fn start(service: &'static str, event_store: Server) -> Self {
        let (first, second) = (Store::on(Server::First).await, Store::on(Server::Second).await);
        let log = match event_store {
            Server::First => first.database().0,
            Server::Second => second.database().0,
        };
        let data = |tables: &Store| {
            ["--database-url", tables.database().0, "--event-store-url", log].map(str::to_owned)
        };
        let rest = ALL.into_iter().filter(|one| *one != service).collect();
        let others = Host::start(rest, data(&first).to_vec()).await;
        let one = Host::start(vec![service], data(&second).to_vec()).await;
        let apart = Self { client: Client::new(String::new()), one, others, first, second };
        apart.turn();
        apart
    }

    /// Clients ask the processes where they are now.
    fn turn(&self) {
        self.client.turn_to(self.others.client.url(""));
        self.client.turn_for(&self.one.services, &self.one.client.url(""));
    }

    async fn each_process_crashes(&mut self, load: &mut Load) {
        for _ in 0..2 {
            load.answered(load.answers() + 20).await;
            self.one.crash().await;
            self.turn();
            load.answered(load.answers() + 20).await;
            self.others.crash().await;
            self.turn();
        }
    }

    /// With the tables of the order service away, nothing is answered.
    async fn the_first_server_is_away(&self, load: &mut Load) {
        self.first.goes_away().await;
        self.others.says_that_it_is_not_ready().await;
        load.refused(load.refusals() + 2 * CLIENTS).await;
        let answers = load.answers();
        load.refused(load.refusals() + 2 * CLIENTS).await;
        assert_eq!(load.answers(), answers, "nothing is answered without a database");
        self.first.comes_back().await;
        self.others.client.ready().await;
    }

    /// Orders are taken without the service that has its tables there, and without the event store.
    async fn the_second_server_is_away(&self, load: &mut Load) {
        self.second.goes_away().await;
        self.one.says_that_it_is_not_ready().await;
        load.answered(load.answers() + 2 * CLIENTS).await;
        self.second.comes_back().await;
        for host in [&self.one, &self.others] {
            host.client.ready().await;
        }
    }

    /// Orders under load are all completed, whatever happens to processes and servers.
    async fn survives_everything(mut self) {
        let world =
            World::make(&self.client, &[(100, 10_000), (250, 10_000)], &[1_000_000; 4]).await;
        let mut load = Load::steady(&self.client, &world, CLIENTS, PAUSE);
        self.each_process_crashes(&mut load).await;
        self.the_second_server_is_away(&mut load).await;
        self.the_first_server_is_away(&mut load).await;
        let answered = load.stop().await;
        let orders = world.balances(&self.client).await;
        assert_eq!(orders.len(), answered.len(), "one order for each key");
        each_exists_once(&self.client, &answered, &orders).await;
        let completed = orders.values().all(|order| order["status"] == "completed");
        assert!(completed, "there is enough for all");
        for host in [&mut self.one, &mut self.others] {
            host.process.stop().await;
            host.verify().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_may_have_a_server_of_its_own_and_processes_and_servers_may_go_away() {
    Apart::start("inventory", Server::First).await.survives_everything().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_store_may_be_apart_from_most_services_and_processes_and_servers_may_go_away() {
    Apart::start("user", Server::Second).await.survives_everything().await;
}
