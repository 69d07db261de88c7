//! A store with a server on it, and further servers beside it.

use std::ops::Deref;

use super::client::Client;
use super::process::{Ended, Process, run};
use super::store::{Kind, Store};

/// How a server is started. By default everything runs, and parcels arrive at once.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    services: Vec<String>,
    packing: String,
    transit: String,
    carrier: String,
    deadline: String,
    variables: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            packing: "0s".to_owned(),
            transit: "0s".to_owned(),
            carrier: "simulated".to_owned(),
            deadline: "15m".to_owned(),
            variables: Vec::new(),
        }
    }
}

impl Options {
    /// Only these services.
    pub(crate) fn services(mut self, services: &[&str]) -> Self {
        self.services = services.iter().map(|&service| service.to_owned()).collect();
        self
    }

    /// How long a parcel is packed, such as `60s`.
    pub(crate) fn packing(mut self, packing: &str) -> Self {
        packing.clone_into(&mut self.packing);
        self
    }

    /// How long the simulated carrier takes.
    pub(crate) fn transit(mut self, transit: &str) -> Self {
        transit.clone_into(&mut self.transit);
        self
    }

    /// Parcels move only by what is posted to their tracking route.
    pub(crate) fn manual_carrier(mut self) -> Self {
        "manual".clone_into(&mut self.carrier);
        self
    }

    /// How long an order may wait for its answers.
    pub(crate) fn deadline(mut self, deadline: &str) -> Self {
        deadline.clone_into(&mut self.deadline);
        self
    }

    /// A variable in the server's environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn arguments(&self, store: &Store) -> Vec<String> {
        let pairs = [
            ("--listen", "127.0.0.1:0"),
            ("--packing", &self.packing),
            ("--carrier-transit", &self.transit),
            ("--carrier", &self.carrier),
            ("--order-deadline", &self.deadline),
        ];
        let options = pairs.iter().flat_map(|(name, value)| [*name, *value]).map(str::to_owned);
        let serve = ["serve".to_owned()].into_iter();
        serve.chain(self.services.clone()).chain(options).chain(store.arguments()).collect()
    }

    async fn serve(&self, store: &Store) -> (Process, String) {
        Process::serve_with(&self.arguments(store), &self.variables).await
    }
}

/// A server, ready for requests; what a client can do, it can do. Fields are dropped in their
/// order: the server ends before its store.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) client: Client,
    pub(crate) process: Process,
    /// Those that were killed or stopped before it.
    past: Vec<Process>,
    pub(crate) options: Options,
    pub(crate) store: Store,
}

impl Deref for Stack {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Stack {
    /// A server of everything on a fresh database.
    pub(crate) async fn start(kind: Kind) -> Self {
        Self::with(kind, Options::default()).await
    }

    /// A server with these options on a fresh database.
    pub(crate) async fn with(kind: Kind, options: Options) -> Self {
        let store = Store::new(kind).await;
        let (process, url) = options.serve(&store).await;
        let client = Client::new(url);
        client.ready().await;
        Self { client, process, past: Vec::new(), options, store }
    }

    /// One more server on the same data, which must be Postgres for that; its client.
    pub(crate) async fn beside(&self, options: &Options) -> (Process, Client) {
        let (process, url) = options.serve(&self.store).await;
        let client = Client::new(url);
        client.ready().await;
        (process, client)
    }

    /// Kills the server without a warning. [`Self::restart`] starts it again.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops the server with SIGTERM: it must exit with 0 within 10 s.
    pub(crate) async fn stop(&mut self) {
        self.process.terminate();
        let status = self.process.ended().await;
        assert_eq!(status.code(), Some(0), "the server stops cleanly");
    }

    /// Starts the server again on the same data, as `options` now say, and waits until it is ready.
    /// Clients and their clones ask the new one.
    pub(crate) async fn restart(&mut self) {
        let (process, url) = self.options.serve(&self.store).await;
        self.past.push(std::mem::replace(&mut self.process, process));
        self.client.turn_to(url);
        self.client.ready().await;
    }

    /// What `waybill verify` says about the data.
    pub(crate) async fn verify(&self) -> Ended {
        run(&[vec!["verify".to_owned()], self.store.arguments()].concat()).await
    }

    /// Nothing was put aside as impossible to handle.
    async fn has_no_dead_letters(&self) {
        let all = ["order", "inventory", "logistics", "user"];
        let here = |service: &&str| {
            self.options.services.is_empty() || self.options.services.iter().any(|s| s == service)
        };
        for service in all.into_iter().filter(here) {
            let letters = self.all(&format!("/v1/ops/{service}/dead-letters")).await;
            assert!(letters.is_empty(), "{service}: {letters:#?}");
        }
    }

    /// Stops the server, which must be clean, and proves the data, which must agree. Nothing may
    /// have been put aside as impossible to handle.
    pub(crate) async fn ends_well(mut self) {
        self.has_no_dead_letters().await;
        self.stop().await;
        let verified = self.verify().await;
        assert_eq!(verified.code, Some(0), "{verified:?}");
    }
}
