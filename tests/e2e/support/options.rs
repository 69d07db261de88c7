//! How servers are started.

use std::process::ExitStatus;

use super::process::Process;
use super::store::Store;

/// By default everything runs, and parcels arrive at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Those that run; all of them if none is named.
    pub(super) services: Vec<String>,
    pub(super) packing: String,
    pub(super) transit: String,
    pub(super) carrier: String,
    pub(super) deadline: String,
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

    /// A variable in the environment of a process.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Whether this service runs.
    pub(super) fn runs(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|one| one == service)
    }

    /// A process with them, on this store; where it serves.
    pub(super) async fn serve(&self, store: &Store) -> (Process, String) {
        Process::serve_with(&self.arguments(store), &self.variables).await
    }

    /// The same for a process that may end before it serves; with what, if it does.
    pub(super) async fn try_serve(&self, store: &Store) -> (Process, Result<String, ExitStatus>) {
        Process::try_serve(&self.arguments(store), &self.variables).await
    }

    /// A process with them, on this store, that was only just started.
    pub(super) fn spawn(&self, store: &Store) -> Process {
        Process::spawn(&self.arguments(store), &self.variables)
    }

    /// The command line of one process with them, on this store.
    pub(crate) fn arguments(&self, store: &Store) -> Vec<String> {
        self.arguments_at(store.arguments())
    }

    /// The same, with the part of it that says where the data is.
    pub(crate) fn arguments_at(&self, data: Vec<String>) -> Vec<String> {
        let pairs = [
            ("--listen", "127.0.0.1:0"),
            ("--packing", &self.packing),
            ("--carrier-transit", &self.transit),
            ("--carrier", &self.carrier),
            ("--order-deadline", &self.deadline),
        ];
        let options = pairs.iter().flat_map(|(name, value)| [*name, *value]).map(str::to_owned);
        let serve = ["serve".to_owned()].into_iter();
        serve.chain(self.services.clone()).chain(options).chain(data).collect()
    }
}
