//! A deployment with fresh data, and a client of it.

use std::ops::Deref;

use super::client::Client;
use super::compose::Compose;
use super::local::Local;
use super::options::Options;
use super::process::{Ended, Process};
use super::store::{Kind, Store};
use super::world::WRITERS;

/// Servers, ready for requests; what a client can do, it can do.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) client: Client,
    pub(crate) options: Options,
    deployment: Deployment,
}

/// Where the servers run.
#[derive(Debug)]
enum Deployment {
    Local(Local),
    Compose(Compose),
}

impl Deref for Stack {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Stack {
    /// Servers of everything on fresh data.
    pub(crate) async fn start(kind: Kind) -> Self {
        Self::with(kind, Options::default()).await
    }

    /// Servers with these options on fresh data.
    pub(crate) async fn with(kind: Kind, options: Options) -> Self {
        if kind == Kind::Compose {
            let (compose, url) = Compose::start(&options).await;
            return Self::ready_at(url, options, Deployment::Compose(compose)).await;
        }
        Self::on(Store::new(kind).await, options).await
    }

    /// One process with these options on this data.
    pub(crate) async fn on(store: Store, options: Options) -> Self {
        let (local, url) = Local::start(store, &options).await;
        Self::ready_at(url, options, Deployment::Local(local)).await
    }

    async fn ready_at(url: String, options: Options, deployment: Deployment) -> Self {
        let client = Client::new(url);
        client.ready().await;
        Self { client, options, deployment }
    }

    /// The one process of a case that is about processes.
    fn local(&self) -> &Local {
        match &self.deployment {
            Deployment::Local(local) => local,
            Deployment::Compose(_) => panic!("this case is about processes"),
        }
    }

    fn local_mut(&mut self) -> &mut Local {
        match &mut self.deployment {
            Deployment::Local(local) => local,
            Deployment::Compose(_) => panic!("this case is about processes"),
        }
    }

    /// The containers of a case that is about those.
    pub(crate) fn compose(&self) -> &Compose {
        match &self.deployment {
            Deployment::Local(_) => panic!("this case is about containers"),
            Deployment::Compose(compose) => compose,
        }
    }

    /// The store of a case that is about one process.
    pub(crate) fn store(&self) -> &Store {
        &self.local().store
    }

    /// The process of a case that is about one.
    pub(crate) fn process(&self) -> &Process {
        &self.local().process
    }

    pub(crate) fn process_mut(&mut self) -> &mut Process {
        &mut self.local_mut().process
    }

    /// One more process on the same data, which must be Postgres for that; its client.
    pub(crate) async fn beside(&self, options: &Options) -> (Process, Client) {
        self.local().beside(options).await
    }

    /// Kills all servers without a warning. [`Self::restart`] starts them again.
    pub(crate) async fn kill(&mut self) {
        match &mut self.deployment {
            Deployment::Local(local) => local.kill().await,
            Deployment::Compose(compose) => compose.kill().await,
        }
    }

    /// Stops all servers with SIGTERM: each must exit with 0 within 10 s.
    pub(crate) async fn stop(&mut self) {
        match &mut self.deployment {
            Deployment::Local(local) => local.stop().await,
            Deployment::Compose(compose) => compose.stop().await,
        }
    }

    /// Starts the servers again on the same data, as `options` now say, and waits until they are
    /// ready. Clients and their clones ask the new ones.
    pub(crate) async fn restart(&mut self) {
        match &mut self.deployment {
            Deployment::Local(local) => {
                self.client.turn_to(local.restart(&self.options).await);
                self.client.ready().await;
            }
            Deployment::Compose(compose) => compose.restart(&self.options).await,
        }
    }

    /// The same for one process that may end before it serves; whether it serves. It need not be
    /// ready yet.
    pub(crate) async fn try_restart(&mut self) -> bool {
        let options = self.options.clone();
        let Some(url) = self.local_mut().try_restart(&options).await else { return false };
        self.client.turn_to(url);
        true
    }

    /// Starts one process again and waits for nothing. Nobody learns where it serves.
    pub(crate) fn begin_restart(&mut self) {
        let options = self.options.clone();
        self.local_mut().begin_restart(&options);
    }

    /// What `waybill verify` says about the data.
    pub(crate) async fn verify(&self) -> Ended {
        match &self.deployment {
            Deployment::Local(local) => local.verify().await,
            Deployment::Compose(compose) => compose.verify().await,
        }
    }

    /// Runs SQL on an owner's tables, behind the back of the servers.
    pub(crate) async fn execute(&self, owner: &str, sql: &str) {
        self.try_execute(owner, sql).await.expect("the statement runs");
    }

    /// The same where the database may refuse; what it said then.
    pub(crate) async fn try_execute(&self, owner: &str, sql: &str) -> Result<(), String> {
        match &self.deployment {
            Deployment::Local(local) => {
                local.store.try_execute(owner, sql).await.map_err(|error| error.to_string())
            }
            Deployment::Compose(compose) => compose.try_execute(owner, sql).await,
        }
    }

    /// What each server counts, as Prometheus text.
    pub(crate) async fn metrics(&self) -> Vec<String> {
        match &self.deployment {
            Deployment::Local(_) => vec![self.get("/metrics").await.expect(200).text],
            Deployment::Compose(compose) => compose.metrics().await,
        }
    }

    /// Nothing was put aside as impossible to handle.
    async fn has_no_dead_letters(&self) {
        for service in WRITERS.into_iter().filter(|service| self.options.runs(service)) {
            let letters = self.all(&format!("/v1/ops/{service}/dead-letters")).await;
            assert!(letters.is_empty(), "{service}: {letters:#?}");
        }
    }

    /// Stops the servers, which must be clean, and proves the data, which must agree. Nothing may
    /// have been put aside as impossible to handle.
    pub(crate) async fn ends_well(mut self) {
        self.has_no_dead_letters().await;
        self.stop().await;
        let verified = self.verify().await;
        assert_eq!(verified.code, Some(0), "{verified:?}");
    }
}
